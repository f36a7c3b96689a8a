//! What the unit tests share: the devices under test, random input, comparisons with float64, and
//! gradient checks.

pub(crate) mod accuracy;
mod compare;
mod determinism;
pub(crate) mod devices;
mod expected;
mod gradients;
mod reference;

pub(crate) use compare::{
    agree, agree16, bits, different_devices, get, get_u32, get16, narrow, normal, normal16, put,
    put_u32, put16, random, refused, refused_argument, rounded16, size, wide, zeros,
    zeros_or_refused, zeros_u32, zeros16,
};
pub(crate) use determinism::same_bits;
pub(crate) use expected::{Expected, Sum};
pub(crate) use gradients::{check_gradients, normal_leaf, signed, spaced};
pub(crate) use reference::{check_reference, dot, numbers};
