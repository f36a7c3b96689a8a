//! Cross-entropy against float64.

use super::cases::{self, DLOSS, cross_entropy, cross_entropy_backward};
use super::{CrossEntropy, CrossEntropyBackward};
use crate::Tensor;
use crate::testing::{
    check_cases, check_reference, devices, normal, numbers, put, put_u32, random, refused,
    same_bits, zeros, zeros_u32,
};

#[test]
fn the_reference_has_the_gradient_of_its_forward_pass() {
    let (logits, labels) = (numbers(116, 20), [3, 0, 4, 3]);
    let loss = |x: &[f64]| cross_entropy(5, x, &labels);
    let lse = loss(&logits).1.value;
    let dlogits = cross_entropy_backward(5, -1.7, &logits, &labels, &lse);
    check_reference("dlogits", &logits, &dlogits.value, |x| {
        -1.7 * loss(x).0.value[0]
    });
}

#[test]
fn results_are_deterministic() {
    let classes: Vec<u32> = (0..301).map(|i| i % 65).collect();
    same_bits(devices::all(), |device| {
        let logits = &put(device, &normal(&mut random(90), 301 * 65), &[301, 65]);
        let labels = &put_u32(device, &classes, &[301]);
        let forward = device
            .run(CrossEntropy { logits, labels })
            .expect("the loss");
        let back = device.run(CrossEntropyBackward {
            dloss: &put(device, &[DLOSS], &[1]),
            logits,
            labels,
            log_sum_exp: &forward.log_sum_exp,
        });
        [
            ("loss", forward.loss),
            ("log-sum-exp", forward.log_sum_exp),
            ("dlogits", back.expect("dlogits")),
        ]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let (x, labels) = (zeros(&device, &[4, 3]), zeros_u32(&device, &[4]));
        let forward =
            |logits: &Tensor, labels: &Tensor| device.run(CrossEntropy { logits, labels });
        refused(name, "labels", forward(&x, &zeros_u32(&device, &[3])));
        refused(name, "type of labels", forward(&x, &zeros(&device, &[4])));
        refused(
            name,
            "logits",
            forward(&zeros(&device, &[4, 3, 1]), &labels),
        );
        refused(
            name,
            "type of logits",
            forward(&zeros_u32(&device, &[4, 3]), &labels),
        );
        // A mean over no rows and a sum over no classes have no value.
        refused(
            name,
            "no rows",
            forward(&zeros(&device, &[0, 3]), &zeros_u32(&device, &[0])),
        );
        refused(
            name,
            "no classes",
            forward(&zeros(&device, &[3, 0]), &zeros_u32(&device, &[3])),
        );
        let backward = |dloss: usize, labels: &Tensor, rows: usize| {
            device.run(CrossEntropyBackward {
                dloss: &zeros(&device, &[dloss]),
                logits: &x,
                labels,
                log_sum_exp: &zeros(&device, &[rows]),
            })
        };
        refused(name, "dloss", backward(2, &labels, 4));
        refused(
            name,
            "labels of the backward pass",
            backward(1, &zeros_u32(&device, &[5]), 4),
        );
        refused(name, "log-sum-exp", backward(1, &labels, 3));
        backward(1, &labels, 4).expect("arguments that fit");
    }
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
