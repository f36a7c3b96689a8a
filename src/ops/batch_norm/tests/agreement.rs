//! Agreement with float64 on every device, of f32 and of f16 activations.

use super::*;
use crate::ops::batch_norm::{BatchNormDx, UpdateRunningStatistics};
use crate::testing::{agree, agree16, bits, get, put_u32, put16, rounded16};
use crate::{DType, Tensor};

const SHAPES: [[usize; 4]; 17] = [
    [1, 1, 1, 2],
    [2, 1, 1, 1],
    [1, 3, 5, 7],
    [4, 17, 3, 3],
    [2, 64, 8, 8],
    [129, 5, 3, 3],
    [257, 2, 1, 1],
    [3, 3, 65, 63],
    [64, 17, 9, 9],
    // Planes of whole vec4s: few images, many images, and a plane longer than a workgroup's lanes.
    [140, 5, 4, 4],
    [37, 17, 8, 8],
    [3, 2, 34, 34],
    // Planes of whole eights: more channels than lanes, fewer channels, and several splits.
    [5, 19, 4, 6],
    [1, 1, 2, 4],
    [21, 3, 32, 32],
    // More splits than a merging workgroup has lanes: each image is half of a small binding.
    [66, 8, 32, 33],
    // Planes about as large as the small bindings of the tests.
    [1, 2, 112, 144],
];

/// Random numbers of one mean and deviation for every channel.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Standard,
    /// Mean 100, deviation 0.1: the squares agree in their first six digits.
    LargeMean,
    /// The first channel has one value everywhere.
    ConstantChannel,
    /// Standard normal numbers, rounded to f16 and stored as f16.
    Half,
}

const KINDS: [Kind; 4] = [
    Kind::Standard,
    Kind::LargeMean,
    Kind::ConstantChannel,
    Kind::Half,
];

impl Kind {
    fn dtype(self) -> DType {
        match self {
            Kind::Half => DType::F16,
            _ => DType::F32,
        }
    }

    fn input(self, rng: &mut Philox, shape: [usize; 4]) -> Vec<f32> {
        let mut x = self.normal(rng, shape.iter().product());
        for (i, x) in x.iter_mut().enumerate() {
            match self {
                Kind::LargeMean => *x = 100.0 + 0.1 * *x,
                Kind::ConstantChannel if channel_of(shape, i) == 0 => *x = 2.7,
                _ => {}
            }
        }
        x
    }

    /// Standard normal numbers that the element type has.
    fn normal(self, rng: &mut Philox, count: usize) -> Vec<f32> {
        let x = normal(rng, count);
        match self.dtype() {
            DType::F16 => rounded16(&x),
            _ => x,
        }
    }

    fn devices(self) -> Vec<(&'static str, Device)> {
        match self.dtype() {
            DType::F16 => devices::with_f16(devices::all()),
            _ => devices::all().into(),
        }
    }

    fn put(self, device: &Device, x: &[f32], shape: [usize; 4]) -> Tensor {
        match self.dtype() {
            DType::F16 => put16(device, x, &shape),
            _ => put(device, x, &shape),
        }
    }

    /// Fails unless activations agree.
    fn agree(self, case: &str, x: &Tensor, shape: [usize; 4], expected: &Expected) {
        match self.dtype() {
            DType::F16 => agree16(case, x, &shape, expected),
            _ => agree(case, x, &shape, expected),
        }
    }
}

/// Each input of every kind and shape.
fn for_each_input(stream: u32, mut check: impl FnMut(&mut Philox, Kind, [usize; 4], Vec<f32>)) {
    let mut rng = random(stream);
    for shape in SHAPES {
        for kind in KINDS {
            let x = kind.input(&mut rng, shape);
            check(&mut rng, kind, shape, x);
        }
    }
}

/// The bits of a tensor of any type.
fn bytes(x: &Tensor) -> Vec<u8> {
    let bytes = x.read().and_then(|transfer| transfer.wait());
    bytes.expect("the download of a test's result")
}

#[test]
fn statistics_of_a_batch() {
    for_each_input(40, |_, kind, shape, x| {
        let (mean, variance) = statistics(shape, &wide(&x));
        for (name, device) in kind.devices() {
            let case = format!("of {kind:?} {shape:?} on {name}");
            let x = &kind.put(&device, &x, shape);
            let found = device.run(BatchNormStatistics { x }).expect(name);
            let c = &[shape[1]];
            agree(&format!("mean {case}"), &found.mean, c, &mean);
            agree(&format!("variance {case}"), &found.variance, c, &variance);
        }
    });
}

#[test]
fn normalization_and_activation() {
    for_each_input(41, |rng, kind, shape, x| {
        let shortcut = kind.normal(rng, x.len());
        let numbers = Numbers::new(rng, shape, &x);
        let identity = batch_norm(shape, &wide(&x), &numbers.wide());
        let expected = [
            identity.clone(),
            activated(&identity, None),
            activated(&identity, Some(&wide(&shortcut))),
        ];
        for (name, device) in kind.devices() {
            let (x, norm) = (&kind.put(&device, &x, shape), &numbers.put(&device));
            let shortcut = kind.put(&device, &shortcut, shape);
            for ((what, activation), expected) in activations(&shortcut).iter().zip(&expected) {
                let activation = *activation;
                let y = device.run(BatchNorm {
                    x,
                    norm,
                    activation,
                });
                let case = format!("batch_norm, {what}, of {kind:?} {shape:?} on {name}");
                kind.agree(&case, &y.expect(name), shape, expected);
            }
        }
    });
}

#[test]
fn a_rectified_result_keeps_nan() {
    let norm = Numbers {
        mean: vec![0.0],
        variance: vec![1.0],
        gamma: vec![1.0],
        beta: vec![0.0],
    };
    for (name, device) in devices::all() {
        let x = &put(&device, &[f32::NAN, -1.0], &[1, 1, 1, 2]);
        let zeros = &put(&device, &[0.0; 2], &[1, 1, 1, 2]);
        let norm = &norm.put(&device);
        for activation in [Activation::Relu, Activation::AddRelu(zeros)] {
            let y = device.run(BatchNorm {
                x,
                norm,
                activation,
            });
            let y = get(&y.expect(name));
            assert!(y[0].is_nan() && y[1] == 0.0, "{y:?} on {name}");
        }
    }
}

/// Also checks that the gradient takes the memory of x if nothing else shares it, with the same
/// bits, and that a shared x is unchanged.
#[test]
fn gradients_in_training_and_evaluation() {
    for_each_input(42, |rng, kind, shape, x| {
        let numbers = Numbers::new(rng, shape, &x);
        let y = batch_norm(shape, &wide(&x), &numbers.wide());
        let mut dy = kind.normal(rng, x.len());
        // If rounding decides the side of the kink on which y is, nothing may depend on it.
        for (i, dy) in dy.iter_mut().enumerate() {
            if y.value[i].abs() <= y.bound[i] {
                *dy = 0.0;
            }
        }
        for (statistics, is_rectified) in [
            (Statistics::OfTheBatch, false),
            (Statistics::OfTheBatch, true),
            (Statistics::Constant, false),
            (Statistics::Constant, true),
        ] {
            let mut passed = wide(&dy);
            for (dy, &y) in passed.iter_mut().zip(&y.value) {
                if is_rectified && y <= 0.0 {
                    *dy = 0.0;
                }
            }
            let expected = backward(shape, &passed, &wide(&x), &numbers.wide(), statistics);
            for (name, device) in kind.devices() {
                let case = format!(
                    "of {kind:?} {shape:?}, {statistics:?}, rectified: {is_rectified}, on {name}"
                );
                let (dy, x) = (kind.put(&device, &dy, shape), kind.put(&device, &x, shape));
                let norm = &numbers.put(&device);
                let gradients = |x| {
                    let backward = BatchNormBackward {
                        dy: &dy,
                        x,
                        norm,
                        is_rectified,
                        statistics,
                    };
                    device.run(backward).expect(name)
                };
                let before = bytes(&x);
                let found = gradients(x.clone());
                let c = &[shape[1]];
                agree(&format!("dbeta {case}"), &found.dbeta, c, &expected.dbeta);
                agree(
                    &format!("dgamma {case}"),
                    &found.dgamma,
                    c,
                    &expected.dgamma,
                );
                kind.agree(&format!("dx {case}"), &found.dx, shape, &expected.dx);
                assert_ne!(found.dx.id(), x.id(), "{case}");
                assert!(bytes(&x) == before, "{case}: x changed");

                let unshared = device.run(Copy { x: &x }).expect(name);
                let id = unshared.id();
                let in_place = gradients(unshared);
                assert_eq!(in_place.dx.id(), id, "{case}");
                for (what, in_place, found) in [
                    ("dx", &in_place.dx, &found.dx),
                    ("dgamma", &in_place.dgamma, &found.dgamma),
                    ("dbeta", &in_place.dbeta, &found.dbeta),
                ] {
                    assert!(bytes(in_place) == bytes(found), "{what} in place {case}");
                }

                if statistics == Statistics::Constant {
                    let forward = BatchNorm {
                        x: &x,
                        norm,
                        activation: Activation::Relu,
                    };
                    let y = is_rectified.then(|| device.run(forward).expect(name));
                    let (dy, y) = (&dy, y.as_ref());
                    let dx = device.run(BatchNormDx { dy, norm, y }).expect(name);
                    kind.agree(&format!("dx alone {case}"), &dx, shape, &expected.dx);
                }
            }
        }
    });
}

/// The gradient of y may be x itself, which is then shared and unchanged.
#[test]
fn x_may_be_its_own_gradient() {
    let shape = [4, 17, 3, 3];
    let mut rng = random(45);
    let data = normal(&mut rng, shape.iter().product());
    let numbers = Numbers::new(&mut rng, shape, &data);
    let statistics = Statistics::OfTheBatch;
    let expected = backward(
        shape,
        &wide(&data),
        &wide(&data),
        &numbers.wide(),
        statistics,
    );
    for (name, device) in devices::all() {
        let x = put(&device, &data, &shape);
        let found = device.run(BatchNormBackward {
            dy: &x,
            x: x.clone(),
            norm: &numbers.put(&device),
            is_rectified: false,
            statistics,
        });
        agree(name, &found.expect(name).dx, &shape, &expected.dx);
        assert_eq!(bits(&get(&x)), bits(&data), "{name}");
    }
}

#[test]
fn running_statistics_move_unless_the_gate_is_set() {
    let mut rng = random(43);
    for channels in [1, 3, 17, 257] {
        for (count, momentum) in [(2, 0.1), (10, 0.1), (1000, 1.0), (64, 0.0)] {
            let [running_mean, mean] = std::array::from_fn(|_| normal(&mut rng, channels));
            let [running_variance, variance]: [Vec<f32>; 2] =
                std::array::from_fn(|_| (0..channels).map(|_| rng.uniform(0.1, 3.0)).collect());
            let unbiased = count as f64 / (count as f64 - 1.0);
            let moved = |before: &[f32], batch: &[f32], factor| {
                running(&wide(before), &wide(batch), f64::from(momentum), factor)
            };
            let mean_expected = moved(&running_mean, &mean, 1.0);
            let variance_expected = moved(&running_variance, &variance, unbiased);
            for (name, device) in devices::all() {
                for gate in [None, Some(0), Some(1)] {
                    let case = format!(
                        "{channels} channels, {count}, {momentum}, gate {gate:?}, on {name}"
                    );
                    let running = &put_statistics(&device, &running_mean, &running_variance);
                    let flag = gate.map(|gate| put_u32(&device, &[gate], &[1]));
                    let update = UpdateRunningStatistics {
                        running,
                        batch: &put_statistics(&device, &mean, &variance),
                        count,
                        momentum,
                        gate: flag.as_ref(),
                    };
                    device.run(update).expect(name);
                    if gate == Some(1) {
                        assert_eq!(bits(&get(&running.mean)), bits(&running_mean), "{case}");
                        let found = bits(&get(&running.variance));
                        assert_eq!(found, bits(&running_variance), "{case}");
                        continue;
                    }
                    let c = &[channels];
                    agree(&case, &running.mean, c, &mean_expected);
                    agree(&case, &running.variance, c, &variance_expected);
                }
            }
        }
    }
}
