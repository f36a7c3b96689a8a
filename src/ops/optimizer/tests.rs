//! SGD, Adam and LARS: several steps, each against a float64 step from the device's state before
//! it.

use super::cases::{self, ADAM, LARS, SGD, update_all};
use super::{AdamUpdate, LarsStep, LarsUpdate, SgdUpdate};
use crate::testing::{
    check_cases, devices, normal, put, random, refused, same_bits, zeros, zeros_u32,
};

#[test]
fn results_are_deterministic() {
    same_bits(devices::all(), |device| {
        let mut rng = random(90);
        let mut state: [_; 4] = std::array::from_fn(|_| normal(&mut rng, 20_001));
        // A second moment is a sum of squares.
        state[3].iter_mut().for_each(|v| *v = v.abs());
        let state = state.map(|x| put(device, &x, &[20_001]));
        update_all(device, &state, None).expect("a step of each");
        let [parameter, _, first, second] = state;
        [
            ("parameter", parameter),
            ("first moment", first),
            ("second moment", second),
        ]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let [p, g, m, v] = &[(); 4].map(|()| zeros(&device, &[2, 3]));
        let (other, integers) = (&zeros(&device, &[6]), &zeros_u32(&device, &[2, 3]));
        let [gate, long_gate] = &[1, 2].map(|len| zeros_u32(&device, &[len]));
        let float_gate = &zeros(&device, &[1]);
        let sgd = |parameter, gradient, momentum, gate| {
            device.run(SgdUpdate {
                step: SGD,
                parameter,
                gradient,
                momentum,
                gate,
            })
        };
        refused(name, "sgd: gradient", sgd(p, other, m, None));
        refused(name, "sgd: momentum", sgd(p, g, other, None));
        refused(name, "sgd: type", sgd(p, integers, m, None));
        refused(
            name,
            "sgd: type of the gate",
            sgd(p, g, m, Some(float_gate)),
        );
        refused(
            name,
            "sgd: shape of the gate",
            sgd(p, g, m, Some(long_gate)),
        );
        refused(name, "sgd: one tensor twice", sgd(p, g, p, None));
        sgd(p, g, m, Some(gate)).expect("arguments that fit");
        let adam = |parameter, gradient, [first_moment, second_moment]: [_; 2], gate| {
            device.run(AdamUpdate {
                step: ADAM,
                parameter,
                gradient,
                first_moment,
                second_moment,
                gate,
            })
        };
        refused(name, "adam: gradient", adam(p, other, [m, v], None));
        refused(name, "adam: first moment", adam(p, g, [other, v], None));
        refused(name, "adam: second moment", adam(p, g, [m, other], None));
        refused(name, "adam: type", adam(integers, g, [m, v], None));
        refused(name, "adam: gate", adam(p, g, [m, v], Some(long_gate)));
        refused(name, "adam: one tensor twice", adam(p, g, [m, m], None));
        adam(p, g, [m, v], Some(gate)).expect("arguments that fit");
        let lars = |gradient, momentum, scale| {
            let step = LarsStep {
                gradient_scale: scale,
                ..LARS
            };
            device.run(LarsUpdate {
                step,
                parameter: p,
                gradient,
                momentum,
                gate: Some(gate),
            })
        };
        refused(name, "lars: gradient", lars(other, m, 1.0));
        refused(name, "lars: momentum", lars(g, other, 1.0));
        refused(name, "lars: one tensor twice", lars(g, g, 1.0));
        refused(name, "lars: gradient scale", lars(g, m, 0.0));
        lars(g, m, 1.0).expect("arguments that fit");
    }
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
