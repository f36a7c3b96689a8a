//! Uniform random numbers: the integers have the same bits on every device.

use super::Uniform;
use super::cases::{self, KEYS, unit};
use crate::testing::{check_cases, devices, refused_everywhere, same_bits};

#[test]
fn results_are_deterministic() {
    same_bits(devices::all(), |device| {
        let y = device.run(unit(KEYS[1], &[40_003]));
        [("y", y.expect("numbers"))]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let bounds = |part: &str, low: f32, high: f32| {
        refused_everywhere(part, |device| {
            device.run(Uniform {
                low,
                high,
                ..unit(KEYS[0], &[3])
            })
        });
    };
    bounds("low 1", 1.0, 0.0);
    bounds("inf", 0.0, f32::INFINITY);
    let shape = &[1 << 20, 1 << 20];
    refused_everywhere("2^32", |device| device.run(unit(KEYS[0], shape)));
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
