//! Batch norm: the reference's own check, and determinism.

mod errors;

use super::cases;
use super::reference::{EPS, Norm64, backward, batch_norm, statistics};
use super::{
    Activation, BatchNorm, BatchNormBackward, BatchNormStatistics, BatchNormTraining,
    BatchStatistics, ChannelNorm, Normalized, Statistics,
};
use crate::Device;
use crate::ops::CopyTensor;
use crate::testing::{
    check_cases, check_reference, devices, dot, normal, numbers, put, random, same_bits,
};

#[test]
fn the_reference_has_the_gradients_of_its_forward_pass() {
    let shape = [3, 2, 2, 3];
    let (x, dy) = (numbers(108, 36), numbers(109, 36));
    let with_statistics_of = |x: &[f64], norm: &Norm64| {
        let (mean, variance) = statistics(shape, x);
        Norm64 {
            mean: mean.value,
            variance: variance.value,
            ..norm.clone()
        }
    };
    let norm = Norm64 {
        mean: Vec::new(),
        variance: Vec::new(),
        gamma: numbers(110, 2),
        beta: numbers(111, 2),
        eps: 1e-3,
    };
    let norm = with_statistics_of(&x, &norm);
    let loss = |x: &[f64], norm: &Norm64| dot(&dy, &batch_norm(shape, x, norm).value);
    for statistics in [Statistics::OfTheBatch, Statistics::Constant] {
        let case = |what: &str| format!("{what}, {statistics:?}");
        let found = backward(shape, &dy, &x, &norm, statistics);
        check_reference(&case("dx"), &x, &found.dx.value, |x| match statistics {
            Statistics::OfTheBatch => loss(x, &with_statistics_of(x, &norm)),
            Statistics::Constant => loss(x, &norm),
        });
        check_reference(&case("dgamma"), &norm.gamma, &found.dgamma.value, |gamma| {
            let gamma = gamma.to_vec();
            loss(
                &x,
                &Norm64 {
                    gamma,
                    ..norm.clone()
                },
            )
        });
        check_reference(&case("dbeta"), &norm.beta, &found.dbeta.value, |beta| {
            let beta = beta.to_vec();
            loss(
                &x,
                &Norm64 {
                    beta,
                    ..norm.clone()
                },
            )
        });
    }
}

#[test]
fn results_are_deterministic() {
    let shape = [9, 17, 16, 15];
    same_bits(devices::all(), |device| {
        let mut rng = random(90);
        let x = put(device, &normal(&mut rng, shape.iter().product()), &shape);
        let [gamma, beta] = [(); 2].map(|()| put(device, &normal(&mut rng, 17), &[17]));
        let statistics = device
            .run(BatchNormStatistics { x: &x })
            .expect("statistics");
        let norm = &ChannelNorm {
            statistics: statistics.clone(),
            gamma,
            beta,
            eps: EPS,
        };
        let forward = BatchNorm {
            x: &x,
            norm,
            activation: Activation::Relu,
        };
        let y = device.run(forward).expect("the result");
        let backward = |x| {
            let backward = BatchNormBackward {
                dy: y.clone(),
                x,
                norm,
                activation: Activation::AddRelu(&y),
                statistics: Statistics::OfTheBatch,
            };
            device.run(backward).expect("the gradients")
        };
        let gradients = backward(x.clone());
        let in_place = backward(device.run(CopyTensor { x: &x }).expect("a copy"));
        let training = BatchNormTraining {
            x: &x,
            gamma: &norm.gamma,
            beta: &norm.beta,
            eps: EPS,
            activation: Activation::Relu,
        };
        let training: Normalized = device.run(training).expect("the result");
        [
            ("y in training", training.y),
            ("mean in training", training.statistics.mean),
            ("variance in training", training.statistics.variance),
            (
                "dshortcut",
                gradients.dshortcut.expect("there is a shortcut"),
            ),
            ("dx in place", in_place.dx),
            ("dx", gradients.dx),
            ("dgamma", gradients.dgamma),
            ("dbeta", gradients.dbeta),
            ("mean", statistics.mean),
            ("variance", statistics.variance),
            ("y", y),
        ]
    });
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
