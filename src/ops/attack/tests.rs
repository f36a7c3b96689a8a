//! The step of an attack has the same bits as a plain loop.

use super::AttackStep;
use super::cases::{self, step};
use crate::testing::{
    check_cases, devices, normal, put, random, refused, same_bits, zeros, zeros_u32,
};

#[test]
fn results_are_deterministic() {
    same_bits(devices::all(), |device| {
        let mut rng = random(90);
        let [x, dx, clean] = &[(); 3].map(|()| put(device, &normal(&mut rng, 40_001), &[40_001]));
        [("y", device.run(step([x, dx, clean])).expect("a step"))]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let (a, b) = (&zeros(&device, &[2, 3]), &zeros(&device, &[3, 2]));
        let integers = &zeros_u32(&device, &[2, 3]);
        refused(name, "shape of dx", device.run(step([a, b, a])));
        refused(name, "shape of clean", device.run(step([a, a, b])));
        refused(name, "type of dx", device.run(step([a, integers, a])));
        let good = || step([a, a, a]);
        for (what, wrong) in [
            (
                "negative eps",
                AttackStep {
                    eps: -0.1,
                    ..good()
                },
            ),
            (
                "eps of NaN",
                AttackStep {
                    eps: f32::NAN,
                    ..good()
                },
            ),
            ("low above high", AttackStep { low: 2.0, ..good() }),
        ] {
            refused(name, what, device.run(wrong));
        }
        device.run(good()).expect("arguments that fit");
    }
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
