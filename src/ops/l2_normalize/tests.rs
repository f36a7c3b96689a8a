//! Row normalisation against float64.

use super::cases::{self, l2_normalize, l2_normalize_backward};
use super::{L2Normalize, L2NormalizeBackward, Normalized};
use crate::Tensor;
use crate::testing::{
    check_cases, check_reference, devices, dot, get, normal, numbers, put, random, refused,
    same_bits, zeros, zeros_u32,
};

#[test]
fn the_reference_has_the_gradient_of_its_forward_pass() {
    let (x, dy) = (numbers(114, 21), numbers(115, 21));
    // With the second eps, every row is short.
    for eps in [1e-12, 100.0] {
        let (y, norm) = l2_normalize(7, &x, eps);
        let dx = l2_normalize_backward(7, &dy, (&y.value, &norm.value), eps);
        check_reference("dx", &x, &dx.value, |x| {
            dot(&dy, &l2_normalize(7, x, eps).0.value)
        });
    }
}

#[test]
fn results_are_deterministic() {
    same_bits(devices::all(), |device| {
        let x = &put(device, &normal(&mut random(90), 130 * 128), &[130, 128]);
        let eps = 1e-12;
        let forward = &device.run(L2Normalize { x, eps }).expect("rows");
        let dy = x;
        let back = device.run(L2NormalizeBackward { dy, forward, eps });
        [
            ("y", forward.y.clone()),
            ("norm", forward.norm.clone()),
            ("dx", back.expect("dx")),
        ]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let eps = 1e-12;
    for (name, device) in devices::all() {
        let forward = |x: &Tensor| device.run(L2Normalize { x, eps });
        refused(name, "dimensions", forward(&zeros(&device, &[4])));
        refused(name, "type", forward(&zeros_u32(&device, &[4, 3])));
        let backward = |dy: &[usize], y: &[usize], rows| {
            let forward = &Normalized {
                y: zeros(&device, y),
                norm: zeros(&device, &[rows]),
            };
            let dy = &zeros(&device, dy);
            device.run(L2NormalizeBackward { dy, forward, eps })
        };
        refused(name, "dy", backward(&[3, 4], &[4, 3], 4));
        refused(name, "norm", backward(&[4, 3], &[4, 3], 3));
        refused(name, "y", backward(&[4, 3], &[4, 2], 4));
        backward(&[4, 3], &[4, 3], 4).expect("arguments that fit");
    }
}

#[test]
fn a_matrix_without_elements_has_a_result_without_elements() {
    for (name, device) in devices::all() {
        for shape in [[0, 3], [3, 0]] {
            let x = &zeros(&device, &shape);
            let eps = 1e-12;
            let forward = &device.run(L2Normalize { x, eps }).expect(name);
            let back = device.run(L2NormalizeBackward {
                dy: x,
                forward,
                eps,
            });
            for y in [&forward.y, &back.expect(name)] {
                assert_eq!(y.shape(), shape, "{name}");
                assert!(get(y).is_empty(), "{name}");
            }
        }
    }
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
