//! Batch norm against float64, with f32 and f16 activations.

mod gradients;

use super::reference::{
    EPS, Norm64, activated, backward, batch_norm, channel_of, running, statistics,
};
use super::{
    Activation, BatchNorm, BatchNormBackward, BatchNormDx, BatchNormStatistics, BatchNormTraining,
    BatchStatistics, ChannelNorm, Statistics, UpdateAverages, UpdateRunningStatistics,
};
use crate::device::{Device, Readback};
use crate::error::Result;
use crate::ops::CopyTensor;
use crate::philox::Philox;
use crate::tensor::{DType, Tensor};
use crate::testing::tester::On;
use crate::testing::{Expected, Tester, bits, narrow, normal, rounded16, wide};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    statistics_of_a_batch(tester)?;
    normalization_and_activation(tester)?;
    normalization_by_the_statistics_of_x(tester)?;
    a_rectified_result_keeps_nan(tester)?;
    gradients_in_training_and_evaluation(tester)?;
    x_may_be_its_own_gradient(tester)?;
    running_statistics_move_unless_the_gate_is_set(tester)?;
    averages_move_unless_the_gate_is_set(tester)?;
    gradients::run(tester)
}

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

    fn devices(self, tester: &Tester) -> impl Iterator<Item = On<'_>> {
        let is_half = self.dtype() == DType::F16;
        tester.all().filter(move |on| !is_half || on.has_f16())
    }

    fn put(self, on: &On<'_>, x: &[f32], shape: [usize; 4]) -> Result<Tensor> {
        match self.dtype() {
            DType::F16 => on.put16(x, &shape),
            _ => on.put(x, &shape),
        }
    }

    /// Compares activations.
    fn agree(
        self,
        on: &On<'_>,
        case: &str,
        x: &Tensor,
        shape: [usize; 4],
        expected: &Expected,
    ) -> Result<()> {
        match self.dtype() {
            DType::F16 => on.agree16(case, x, &shape, expected),
            _ => on.agree(case, x, &shape, expected),
        }
    }
}

/// Each input of every kind and shape.
fn for_each_input(
    tester: &Tester,
    stream: u32,
    mut check: impl FnMut(&mut Philox, Kind, [usize; 4], Vec<f32>) -> Result<()>,
) -> Result<()> {
    let mut rng = tester.random(stream);
    for shape in SHAPES {
        for kind in KINDS {
            let x = kind.input(&mut rng, shape);
            check(&mut rng, kind, shape, x)?;
        }
    }
    Ok(())
}

/// The bits of a tensor of any type.
fn bytes(x: &Tensor) -> Result<Vec<u8>> {
    x.read().and_then(Readback::wait)
}

fn statistics_of_a_batch(tester: &Tester) -> Result<()> {
    for_each_input(tester, 40, |_, kind, shape, x| {
        let (mean, variance) = statistics(shape, &wide(&x));
        for on in kind.devices(tester) {
            let case = format!("of {kind:?} {shape:?}");
            let x = &kind.put(&on, &x, shape)?;
            let found = on.run(BatchNormStatistics { x })?;
            let c = &[shape[1]];
            on.agree(&format!("mean {case}"), &found.mean, c, &mean)?;
            on.agree(&format!("variance {case}"), &found.variance, c, &variance)?;
        }
        Ok(())
    })
}

fn normalization_and_activation(tester: &Tester) -> Result<()> {
    for_each_input(tester, 41, |rng, kind, shape, x| {
        let shortcut = kind.normal(rng, x.len());
        let numbers = Numbers::new(rng, shape, &x);
        let identity = batch_norm(shape, &wide(&x), &numbers.wide());
        let expected = [
            identity.clone(),
            activated(&identity, None),
            activated(&identity, Some(&wide(&shortcut))),
        ];
        for on in kind.devices(tester) {
            let (x, norm) = (&kind.put(&on, &x, shape)?, &numbers.put(&on)?);
            let shortcut = kind.put(&on, &shortcut, shape)?;
            for ((what, activation), expected) in activations(&shortcut).iter().zip(&expected) {
                let activation = *activation;
                let y = on.run(BatchNorm {
                    x,
                    norm,
                    activation,
                });
                let case = format!("{what} of {kind:?} {shape:?}");
                kind.agree(&on, &case, &y?, shape, expected)?;
            }
        }
        Ok(())
    })
}

/// The expected result is that of the statistics that the device found, which are compared too.
fn normalization_by_the_statistics_of_x(tester: &Tester) -> Result<()> {
    for_each_input(tester, 46, |rng, kind, shape, x| {
        let shortcut = kind.normal(rng, x.len());
        let numbers = Numbers::new(rng, shape, &x);
        let (mean, variance) = statistics(shape, &wide(&x));
        for on in kind.devices(tester) {
            let (device_x, norm) = (&kind.put(&on, &x, shape)?, &numbers.put(&on)?);
            let device_shortcut = kind.put(&on, &shortcut, shape)?;
            for (what, activation) in activations(&device_shortcut) {
                let found = on.run(BatchNormTraining {
                    x: device_x,
                    gamma: &norm.gamma,
                    beta: &norm.beta,
                    eps: EPS,
                    activation,
                })?;
                let case = format!("{what} of {kind:?} {shape:?}");
                let BatchStatistics {
                    mean: found_mean,
                    variance: found_variance,
                } = &found.statistics;
                let c = &[shape[1]];
                on.agree(&format!("mean, {case}"), found_mean, c, &mean)?;
                on.agree(&format!("variance, {case}"), found_variance, c, &variance)?;
                let norm = Norm64 {
                    mean: wide(&found_mean.to_vec()?),
                    variance: wide(&found_variance.to_vec()?),
                    ..numbers.wide()
                };
                let identity = batch_norm(shape, &wide(&x), &norm);
                let expected = match activation {
                    Activation::Identity => identity,
                    Activation::Relu => activated(&identity, None),
                    Activation::AddRelu(_) => activated(&identity, Some(&wide(&shortcut))),
                };
                kind.agree(&on, &case, &found.y, shape, &expected)?;
            }
        }
        Ok(())
    })
}

fn a_rectified_result_keeps_nan(tester: &Tester) -> Result<()> {
    let norm = Numbers {
        mean: vec![0.0],
        variance: vec![1.0],
        gamma: vec![1.0],
        beta: vec![0.0],
    };
    for on in tester.all() {
        let x = &on.put(&[f32::NAN, -1.0], &[1, 1, 1, 2])?;
        let zeros = &on.put(&[0.0; 2], &[1, 1, 1, 2])?;
        let norm = &norm.put(&on)?;
        for activation in [Activation::Relu, Activation::AddRelu(zeros)] {
            let y = on.run(BatchNorm {
                x,
                norm,
                activation,
            });
            let expected = Expected::exact(vec![f64::NAN, 0.0]);
            on.agree("of NaN", &y?, &[1, 1, 1, 2], &expected)?;
        }
    }
    Ok(())
}

/// Also checks that the gradients take the memory of x and dy if nothing else shares it, with the
/// same bits, and that a shared x or dy is unchanged.
fn gradients_in_training_and_evaluation(tester: &Tester) -> Result<()> {
    for_each_input(tester, 42, |rng, kind, shape, x| {
        let numbers = Numbers::new(rng, shape, &x);
        let y = batch_norm(shape, &wide(&x), &numbers.wide());
        let mut dy = kind.normal(rng, x.len());
        // If rounding decides the side of the kink on which y is, nothing may depend on it.
        for (i, dy) in dy.iter_mut().enumerate() {
            if y.value[i].abs() <= y.bound[i] {
                *dy = 0.0;
            }
        }
        // The result after a shortcut, which may be any numbers here.
        let result = kind.normal(rng, x.len());
        for statistics in [Statistics::OfTheBatch, Statistics::Constant] {
            for (what, activation) in activations(()) {
                let mut passed = wide(&dy);
                for (i, dy) in passed.iter_mut().enumerate() {
                    let passes = match activation {
                        Activation::Identity => true,
                        Activation::Relu => y.value[i] > 0.0,
                        Activation::AddRelu(()) => result[i] > 0.0,
                    };
                    if !passes {
                        *dy = 0.0;
                    }
                }
                let expected = backward(shape, &passed, &wide(&x), &numbers.wide(), statistics);
                let case = format!("of {kind:?} {shape:?}, {statistics:?}, {what}");
                for on in kind.devices(tester) {
                    let [dy, x, result] = [&dy, &x, &result].map(|x| kind.put(&on, x, shape));
                    let (dy, x, result) = (dy?, x?, result?);
                    let norm = &numbers.put(&on)?;
                    let gradients = |dy, x| {
                        on.run(BatchNormBackward {
                            dy,
                            x,
                            norm,
                            activation: activation.map(|()| &result),
                            statistics,
                        })
                    };
                    let before = [bytes(&x)?, bytes(&dy)?];
                    let found = gradients(dy.clone(), x.clone())?;
                    let c = &[shape[1]];
                    on.agree(&format!("dbeta {case}"), &found.dbeta, c, &expected.dbeta)?;
                    on.agree(
                        &format!("dgamma {case}"),
                        &found.dgamma,
                        c,
                        &expected.dgamma,
                    )?;
                    kind.agree(&on, &format!("dx {case}"), &found.dx, shape, &expected.dx)?;
                    let is_kept = found.dx.id() != x.id() && [bytes(&x)?, bytes(&dy)?] == before;
                    on.check(&case, is_kept, || "x or dy changed".to_string());
                    let has_shortcut = activation.shortcut().is_some();
                    on.check(&case, found.dshortcut.is_some() == has_shortcut, || {
                        format!("the gradient of the shortcut is {:?}", found.dshortcut)
                    });
                    if let Some(dshortcut) = &found.dshortcut {
                        let expected = Expected::exact(passed.clone());
                        kind.agree(
                            &on,
                            &format!("dshortcut {case}"),
                            dshortcut,
                            shape,
                            &expected,
                        )?;
                    }

                    let (own_dy, own_x) = (
                        on.run(CopyTensor { x: &dy })?,
                        on.run(CopyTensor { x: &x })?,
                    );
                    let ids = [own_x.id(), own_dy.id()];
                    let in_place = gradients(own_dy, own_x)?;
                    let is_reused = in_place.dx.id() == ids[0]
                        && in_place.dshortcut.as_ref().is_none_or(|d| d.id() == ids[1]);
                    on.check(&case, is_reused, || {
                        "the memory of an unshared x or dy is not reused".to_string()
                    });
                    for (what, in_place, found) in [
                        ("dx", Some(&in_place.dx), Some(&found.dx)),
                        ("dgamma", Some(&in_place.dgamma), Some(&found.dgamma)),
                        ("dbeta", Some(&in_place.dbeta), Some(&found.dbeta)),
                        (
                            "dshortcut",
                            in_place.dshortcut.as_ref(),
                            found.dshortcut.as_ref(),
                        ),
                    ] {
                        let [in_place, found] = [in_place, found].map(|x| x.map(bytes));
                        let is_equal = in_place.transpose()? == found.transpose()?;
                        on.check(&case, is_equal, || {
                            format!("the bits of {what} differ in place")
                        });
                    }

                    if statistics == Statistics::Constant && !has_shortcut {
                        let forward = BatchNorm {
                            x: &x,
                            norm,
                            activation: Activation::Relu,
                        };
                        let is_rectified = matches!(activation, Activation::Relu);
                        let y = is_rectified.then(|| on.run(forward)).transpose()?;
                        let (dy, y) = (&dy, y.as_ref());
                        let dx = on.run(BatchNormDx { dy, norm, y })?;
                        kind.agree(&on, &format!("dx alone {case}"), &dx, shape, &expected.dx)?;
                    }
                }
            }
        }
        Ok(())
    })
}

/// The gradient of y may be x itself, which is then shared and unchanged.
fn x_may_be_its_own_gradient(tester: &Tester) -> Result<()> {
    let shape = [4, 17, 3, 3];
    let mut rng = tester.random(45);
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
    for on in tester.all() {
        let x = on.put(&data, &shape)?;
        let found = on.run(BatchNormBackward {
            dy: x.clone(),
            x: x.clone(),
            norm: &numbers.put(&on)?,
            activation: Activation::Identity,
            statistics,
        });
        on.agree("of x for x", &found?.dx, &shape, &expected.dx)?;
        on.equal("of x for x", &bits(&x.to_vec()?), &bits(&data));
    }
    Ok(())
}

fn running_statistics_move_unless_the_gate_is_set(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(43);
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
            for on in tester.all() {
                for gate in [None, Some(0), Some(1)] {
                    let case = format!("{channels} channels, {count}, {momentum}, gate {gate:?}");
                    let running = &put_statistics(&on, &running_mean, &running_variance)?;
                    let flag = gate.map(|gate: u32| on.put(&[gate], &[1])).transpose()?;
                    let update = UpdateRunningStatistics {
                        running,
                        batch: &put_statistics(&on, &mean, &variance)?,
                        count,
                        momentum,
                        gate: flag.as_ref(),
                    };
                    on.run(update)?;
                    if gate == Some(1) {
                        let found = bits(&running.mean.to_vec()?);
                        on.equal(&case, &found, &bits(&running_mean));
                        let found = bits(&running.variance.to_vec()?);
                        on.equal(&case, &found, &bits(&running_variance));
                        continue;
                    }
                    let c = &[channels];
                    on.agree(&case, &running.mean, c, &mean_expected)?;
                    on.agree(&case, &running.variance, c, &variance_expected)?;
                }
            }
        }
    }
    Ok(())
}

fn averages_move_unless_the_gate_is_set(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(47);
    for count in [1, 3, 64, 257, 20_001] {
        let [averages, values] = std::array::from_fn(|_| normal(&mut rng, count));
        // The factor of a variance is rounded to f32, which the bound includes.
        let factors: Vec<f32> = (0..count).map(|i| [1.0, 1.25][i % 2]).collect();
        for momentum in [0.1, 1.0, 0.0] {
            let product = |(&value, &factor): (&f32, &f32)| f64::from(value) * f64::from(factor);
            let products: Vec<f64> = values.iter().zip(&factors).map(product).collect();
            let expected = running(&wide(&averages), &products, f64::from(momentum), 1.0);
            for on in tester.all() {
                for gate in [None, Some(0), Some(1)] {
                    let case = format!("{count}, {momentum}, gate {gate:?}");
                    let changed = on.put(&averages, &[count])?;
                    let flag = gate.map(|gate: u32| on.put(&[gate], &[1])).transpose()?;
                    on.run(UpdateAverages {
                        averages: &changed,
                        values: &on.put(&values, &[count])?,
                        factors: &on.put(&factors, &[count])?,
                        momentum,
                        gate: flag.as_ref(),
                    })?;
                    if gate == Some(1) {
                        on.equal(&case, &bits(&changed.to_vec()?), &bits(&averages));
                        continue;
                    }
                    on.agree(&case, &changed, &[count], &expected)?;
                }
            }
        }
    }
    Ok(())
}

/// The numbers of a norm on the host, one per channel.
struct Numbers {
    mean: Vec<f32>,
    variance: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl Numbers {
    /// The statistics of `x`, rounded to f32, with random scale and shift.
    fn new(rng: &mut Philox, shape: [usize; 4], x: &[f32]) -> Self {
        let (mean, variance) = statistics(shape, &wide(x));
        let [gamma, beta] = std::array::from_fn(|_| normal(rng, shape[1]));
        Numbers {
            mean: narrow(&mean.value),
            variance: narrow(&variance.value),
            gamma,
            beta,
        }
    }

    fn put(&self, device: &Device) -> Result<ChannelNorm> {
        Ok(ChannelNorm {
            statistics: put_statistics(device, &self.mean, &self.variance)?,
            gamma: Tensor::from_slice(&self.gamma, &[self.gamma.len()], device)?,
            beta: Tensor::from_slice(&self.beta, &[self.beta.len()], device)?,
            eps: EPS,
        })
    }

    fn wide(&self) -> Norm64 {
        Norm64 {
            mean: wide(&self.mean),
            variance: wide(&self.variance),
            gamma: wide(&self.gamma),
            beta: wide(&self.beta),
            eps: f64::from(EPS),
        }
    }
}

fn put_statistics(device: &Device, mean: &[f32], variance: &[f32]) -> Result<BatchStatistics> {
    Ok(BatchStatistics {
        mean: Tensor::from_slice(mean, &[mean.len()], device)?,
        variance: Tensor::from_slice(variance, &[variance.len()], device)?,
    })
}

fn activations<T>(shortcut: T) -> [(&'static str, Activation<T>); 3] {
    [
        ("identity", Activation::Identity),
        ("relu", Activation::Relu),
        ("add_relu", Activation::AddRelu(shortcut)),
    ]
}
