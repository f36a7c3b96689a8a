//! Tests of the operation.
