//! Runs the cases of operations, which unit tests and the self-test share, and supports unit tests:
//! devices, random input, comparisons with float64, and checks of gradients and determinism.

pub(crate) mod accuracy;
mod expected;
mod gradients;
mod inputs;
pub(crate) mod tester;

#[cfg(test)]
mod compare;
#[cfg(test)]
mod determinism;
#[cfg(test)]
#[allow(clippy::print_stderr, reason = "tests print what they leave out")]
pub(crate) mod devices;
#[cfg(test)]
mod reference;

pub(crate) use expected::{Expected, Sum};
pub(crate) use gradients::{normal_leaf, signed, spaced};
pub(crate) use inputs::{SEED, bits, narrow, normal, normal16, pixels, rounded16, size, wide};
pub(crate) use tester::Tester;

#[cfg(test)]
pub(crate) use compare::{
    agree, check_cases, check_cases_with_rounding, different_devices, get, get_u32, get16, put,
    put_u32, put16, refused, refused_argument, refused_everywhere, zeros, zeros_or_refused,
    zeros_u32, zeros16,
};
#[cfg(test)]
pub(crate) use determinism::same_bits;
#[cfg(test)]
pub(crate) use inputs::random;
#[cfg(test)]
pub(crate) use reference::{check_reference, dot, numbers};
