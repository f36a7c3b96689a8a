//! Support of the unit tests: devices, random input, comparisons with float64, and checks of gradients
//! and determinism.

pub(crate) mod accuracy;
mod compare;
mod determinism;
pub(crate) mod devices;
mod expected;
mod gradients;
mod reference;

pub(crate) use compare::{
    agree, agree16, bits, different_devices, get, get_u32, get16, narrow, normal, normal16, pixels,
    put, put_u32, put16, random, refused, refused_argument, refused_everywhere, rounded16, size,
    wide, zeros, zeros_or_refused, zeros_u32, zeros16,
};
pub(crate) use determinism::same_bits;
pub(crate) use expected::{Expected, Sum};
pub(crate) use gradients::{check_gradients, normal_leaf, signed, spaced};
pub(crate) use reference::{check_reference, dot, numbers};
