//! NT-Xent against float64, with the whole matrix of similarities.

use super::cases::{self, DLOSS, nt_xent, nt_xent_backward, unit_rows};
use super::{NtXent, NtXentBackward};
use crate::Tensor;
use crate::testing::{
    check_cases, check_reference, devices, numbers, put, random, refused, same_bits, zeros,
    zeros_u32,
};

#[test]
fn the_reference_has_the_gradient_of_its_forward_pass() {
    let z = numbers(117, 8 * 5);
    for temperature in [0.2, 1.0] {
        let loss = |z: &[f64]| nt_xent(5, z, temperature);
        let lse = loss(&z).1.value;
        let dz = nt_xent_backward(5, -1.7, &z, temperature, &lse).value;
        check_reference("dz", &z, &dz, |z| -1.7 * loss(z).0.value[0]);
    }
}

#[test]
fn results_are_deterministic() {
    let z = unit_rows(&mut random(90), 130, 128);
    let temperature = 0.1;
    same_bits(devices::all(), |device| {
        let z = &put(device, &z, &[130, 128]);
        let forward = device.run(NtXent { z, temperature }).expect("the loss");
        let back = device.run(NtXentBackward {
            dloss: &put(device, &[DLOSS], &[1]),
            z,
            temperature,
            log_sum_exp: &forward.log_sum_exp,
        });
        [
            ("loss", forward.loss),
            ("log-sum-exp", forward.log_sum_exp),
            ("dz", back.expect("dz")),
        ]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let forward = |z: &Tensor, temperature| device.run(NtXent { z, temperature });
        refused(
            name,
            "odd number of rows",
            forward(&zeros(&device, &[3, 4]), 0.5),
        );
        refused(name, "no rows", forward(&zeros(&device, &[0, 4]), 0.5));
        refused(name, "no columns", forward(&zeros(&device, &[4, 0]), 0.5));
        refused(name, "dimensions", forward(&zeros(&device, &[4]), 0.5));
        refused(name, "type", forward(&zeros_u32(&device, &[4, 3]), 0.5));
        for temperature in [0.0, -1.0, f32::NAN] {
            refused(
                name,
                "temperature",
                forward(&zeros(&device, &[4, 3]), temperature),
            );
        }
        let backward = |dloss: usize, rows: usize, log_sum_exp: usize| {
            device.run(NtXentBackward {
                dloss: &zeros(&device, &[dloss]),
                z: &zeros(&device, &[rows, 3]),
                temperature: 0.5,
                log_sum_exp: &zeros(&device, &[log_sum_exp]),
            })
        };
        refused(name, "dloss", backward(4, 4, 4));
        refused(name, "rows of the backward pass", backward(1, 5, 5));
        refused(name, "log-sum-exp", backward(1, 4, 3));
        backward(1, 4, 4).expect("arguments that fit");
    }
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
