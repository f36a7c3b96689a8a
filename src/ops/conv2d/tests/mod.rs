//! Tests of convolutions: the float64 reference, its own check, determinism and gradients.

mod agreement;
mod errors;

use super::cases::{
    self, conv2d_in_float64, dw_in_float64, dx_in_float64, fits_small_bindings, geometry, options,
};
use super::{Conv2d, Conv2dDw, Conv2dDx, ConvGeometry};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::testing::{
    check_cases, check_cases_with_rounding, check_reference, devices, dot, normal, numbers, put,
    random, same_bits,
};

/// The devices of `all` on which a convolution of this geometry runs.
fn devices_for(
    g: &ConvGeometry,
    all: impl IntoIterator<Item = (&'static str, Device)>,
) -> Vec<(&'static str, Device)> {
    let runs = |name| name != devices::SLICED || fits_small_bindings(g);
    all.into_iter().filter(|(name, _)| runs(*name)).collect()
}

/// The results of the forward pass and of both gradients.
fn three_passes(
    device: &Device,
    g: &ConvGeometry,
    [x, w, dy]: [&Tensor; 3],
) -> Result<[Tensor; 3]> {
    let options = g.options();
    let (x_shape, w_shape) = (g.x_shape(), g.w_shape());
    Ok([
        device.run(Conv2d { x, w, options })?,
        device.run(Conv2dDx {
            dy,
            w,
            x_shape,
            options,
        })?,
        device.run(Conv2dDw {
            dy,
            x,
            w_shape,
            options,
        })?,
    ])
}

#[test]
fn equal_calls_give_equal_bits() {
    // The CPU takes those with 32 channels by Winograd's method, with more tiles than channels and
    // with fewer.
    for (x_shape, o) in [
        ([9, 17, 16, 15], 33),
        ([9, 32, 16, 15], 33),
        ([17, 32, 4, 4], 33),
        ([19, 16, 16, 15], 24),
        ([19, 32, 16, 15], 40),
    ] {
        let g = geometry(x_shape, [o, x_shape[1], 3, 3], options(1, 1));
        let mut rng = random(36);
        let [x, w, dy] = [g.x_shape(), g.w_shape(), g.y_shape()].map(|shape| {
            let values = normal(&mut rng, shape.iter().product());
            (values, shape)
        });
        same_bits(devices_for(&g, devices::all_variants()), |device| {
            let [x, w, dy] = [&x, &w, &dy].map(|(values, shape)| put(device, values, shape));
            let results = three_passes(device, &g, [&x, &w, &dy]);
            let [y, dx, dw] = results.expect("a convolution");
            [("conv2d", y), ("conv2d_dx", dx), ("conv2d_dw", dw)]
        });
    }
}

#[test]
fn factors_are_rounded_on_every_device() {
    let cases = [
        ([2, 17, 9, 8], [19, 17, 3, 3], 1, 1),
        ([2, 32, 8, 8], [40, 32, 1, 1], 1, 0),
    ];
    check_cases_with_rounding(|tester| cases::convolutions(tester, 85, &cases));
}

#[test]
fn the_references_have_the_right_gradients() {
    let g = geometry([2, 3, 5, 6], [4, 3, 3, 3], options(2, 1));
    let (x, w) = (numbers(101, 180), numbers(102, 108));
    let dy = numbers(103, g.y_shape().iter().product());
    let dx = dx_in_float64(&g, &dy, &w).value;
    check_reference("dx", &x, &dx, |x| {
        dot(&dy, &conv2d_in_float64(&g, x, &w).value)
    });
    let dw = dw_in_float64(&g, &dy, &x).value;
    check_reference("dw", &w, &dw, |w| {
        dot(&dy, &conv2d_in_float64(&g, &x, w).value)
    });
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
