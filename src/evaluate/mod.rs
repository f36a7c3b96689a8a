//! How good an encoder's features are.

pub mod features;
pub mod knn;
