//! Support of the unit tests: devices, random input, comparisons with float64, and gradient checks.

pub(crate) mod accuracy;
mod compare;
pub(crate) mod devices;
mod expected;
mod gradients;

pub(crate) use compare::{
    agree, agree16, bits, get, get_u32, get16, narrow, normal, normal16, put, put_u32, put16,
    random, refused, rounded16, size, wide,
};
pub(crate) use expected::{Expected, Sum};
pub(crate) use gradients::{check_gradients, normal_leaf, signed, spaced};
