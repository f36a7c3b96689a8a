//! Batch norm against float64: the reference, gradients and determinism.

mod agreement;
mod errors;

use super::{
    Activation, Affine, BatchNorm, BatchNormBackward, BatchNormStatistics, BatchStatistics,
    ChannelNorm, Statistics,
};
use crate::Device;
use crate::autograd::Var;
use crate::autograd::gradcheck::Leaf;
use crate::ops::{Conv2dOptions, Copy};
use crate::philox::Philox;
use crate::testing::accuracy::{DIVISION, ONE_OVER_SQRT, U};
use crate::testing::{
    Expected, Sum, check_gradients, check_reference, devices, dot, narrow, normal, normal_leaf,
    numbers, put, random, same_bits, signed, wide,
};

const EPS: f32 = 1e-5;

/// A convolution of single pixels.
const POINTWISE: Conv2dOptions = Conv2dOptions {
    stride: 1,
    padding: 0,
};

/// The elements of channel `c`, image by image.
fn channel([n, channels, h, w]: [usize; 4], c: usize) -> impl Iterator<Item = usize> + Clone {
    let plane = h * w;
    (0..n).flat_map(move |i| {
        let start = (i * channels + c) * plane;
        start..start + plane
    })
}

/// The channel of element `i`.
fn channel_of([_, channels, h, w]: [usize; 4], i: usize) -> usize {
    i / (h * w) % channels
}

/// Returns mean and biased variance.
///
/// The mean is a sum of m terms divided by m; its bound is e. The variance is the sum of squares of
/// centred elements. As a sum of m products, its error is up to 4 sqrt(m) U of its value, and three
/// roundings per element. Centring with a mean that has the error e adds e^2. Also, the centred
/// numbers, or the means of parts that are merged, have a rounding error of the size of x. By
/// Cauchy and Schwarz, each such rounding changes the variance by up to 2 std U rms(x); four are
/// allowed. A difference of mean squares has the much larger error U rms(x)^2 and fails.
fn statistics(shape: [usize; 4], x: &[f64]) -> (Expected, Expected) {
    let (mut means, mut variances) = (Expected::default(), Expected::default());
    for c in 0..shape[1] {
        let elements = channel(shape, c);
        let m = elements.clone().count() as f64;
        let sum = Sum::of(elements.clone().map(|i| x[i]));
        let mean = sum.value / m;
        let mean_bound = sum.bound() / m + DIVISION * mean.abs();
        let squares = Sum::of(elements.clone().map(|i| (x[i] - mean).powi(2)));
        let variance = squares.value / m;
        let rms = (elements.map(|i| x[i] * x[i]).sum::<f64>() / m).sqrt();
        let variance_bound = squares.bound() / m
            + (3.0 * U + DIVISION) * variance
            + mean_bound * mean_bound
            + 4.0 * 2.0 * variance.sqrt() * U * rms;
        means.push(mean, mean_bound);
        variances.push(variance, variance_bound);
    }
    (means, variances)
}

/// The numbers of a norm in float64, one per channel.
#[derive(Clone)]
struct Norm64 {
    mean: Vec<f64>,
    variance: Vec<f64>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    eps: f64,
}

/// Returns `y = (x - mean) / sqrt(variance + eps) gamma + beta`.
///
/// The first term has a subtraction, an addition of eps (half of it after the root), one over a
/// root and two products: 3.5 U and the allowance of the root. Adding beta is a sum of two terms. A
/// kernel that moves the mean into the shift, `x s + (beta - mean s)`, cancels if the mean is
/// large, and fails.
fn batch_norm(shape: [usize; 4], x: &[f64], norm: &Norm64) -> Expected {
    let mut y = Expected::default();
    for (i, x) in x.iter().enumerate() {
        let c = channel_of(shape, i);
        let deviation = (norm.variance[c] + norm.eps).sqrt();
        let scaled = (x - norm.mean[c]) / deviation * norm.gamma[c];
        let sum = Sum::of([scaled, norm.beta[c]]);
        y.push(
            sum.value,
            sum.bound() + (3.5 * U + ONE_OVER_SQRT) * scaled.abs(),
        );
    }
    y
}

/// Returns `max(y, 0)`, or `max(y + shortcut, 0)`. A maximum has the error of its argument, and a
/// sum adds a rounding.
fn activated(y: &Expected, shortcut: Option<&[f64]>) -> Expected {
    let mut activated = Expected::default();
    for (i, (&value, &bound)) in y.value.iter().zip(&y.bound).enumerate() {
        let Some(shortcut) = shortcut else {
            activated.push(value.max(0.0), bound);
            continue;
        };
        let sum = Sum::of([value, shortcut[i]]);
        activated.push(sum.value.max(0.0), bound + sum.bound());
    }
    activated
}

struct Gradients {
    dx: Expected,
    dgamma: Expected,
    dbeta: Expected,
}

/// The relative error of xhat: subtraction, eps, one over a root, product.
const XHAT: f64 = 2.5 * U + ONE_OVER_SQRT;

/// Returns the gradients for `dy` of a result without activation.
///
/// `dbeta = sum dy` is a sum of m terms. `dgamma = sum dy xhat` is a sum of m products, and one
/// factor of each has the error `XHAT`.
///
/// `dx = gamma / sqrt(variance + eps) (dy - dbeta / m - xhat dgamma / m)` in training: the bracket
/// is a sum of three terms. The second has the error of dbeta, the third has the errors of dgamma
/// and xhat, and both have a division and a product. In evaluation, the bracket is `dy`. The factor
/// before it has one over a root, eps and two products.
fn backward(
    shape: [usize; 4],
    dy: &[f64],
    x: &[f64],
    norm: &Norm64,
    statistics: Statistics,
) -> Gradients {
    let m = (shape[0] * shape[2] * shape[3]) as f64;
    let deviation = |c: usize| (norm.variance[c] + norm.eps).sqrt();
    let xhat = |i: usize, c: usize| (x[i] - norm.mean[c]) / deviation(c);
    let (mut dgamma, mut dbeta) = (Expected::default(), Expected::default());
    for c in 0..shape[1] {
        let shift = Sum::of(channel(shape, c).map(|i| dy[i]));
        let scale = Sum::of(channel(shape, c).map(|i| dy[i] * xhat(i, c)));
        dbeta.push(shift.value, shift.bound());
        dgamma.push(scale.value, scale.bound() + XHAT * scale.magnitude);
    }
    let mut dx = Expected::default();
    for (i, &dy) in dy.iter().enumerate() {
        let c = channel_of(shape, i);
        let factor = norm.gamma[c] / deviation(c);
        let (bracket, bracket_bound) = match statistics {
            Statistics::OfTheBatch => {
                let (a, b) = (dbeta.value[c] / m, xhat(i, c) * dgamma.value[c] / m);
                let bracket = Sum::of([dy, -a, -b]);
                let inherited = dbeta.bound[c] / m
                    + (DIVISION + U) * a.abs()
                    + xhat(i, c).abs() * dgamma.bound[c] / m
                    + (XHAT + DIVISION + 2.0 * U) * b.abs();
                (bracket.value, bracket.bound() + inherited)
            }
            Statistics::Constant => (dy, 0.0),
        };
        let value = factor * bracket;
        let bound = factor.abs() * bracket_bound + (2.5 * U + ONE_OVER_SQRT) * value.abs();
        dx.push(value, bound);
    }
    Gradients { dx, dgamma, dbeta }
}

/// Returns `(1 - momentum) running + momentum factor batch`.
///
/// A sum of two products. The first has the rounding of 1 - momentum. The second has the errors of
/// `factor` (1 for the mean, count / (count - 1) for the variance): a division and a product.
fn running(running: &[f64], batch: &[f64], momentum: f64, factor: f64) -> Expected {
    let mut moved = Expected::default();
    for (running, batch) in running.iter().zip(batch) {
        let (kept, added) = ((1.0 - momentum) * running, momentum * factor * batch);
        let sum = Sum::of([kept, added]);
        let inherited = U * kept.abs() + (DIVISION + 2.0 * U) * added.abs();
        moved.push(sum.value, sum.bound() + inherited);
    }
    moved
}

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

    fn put(&self, device: &Device) -> ChannelNorm {
        ChannelNorm {
            statistics: put_statistics(device, &self.mean, &self.variance),
            gamma: put(device, &self.gamma, &[self.gamma.len()]),
            beta: put(device, &self.beta, &[self.beta.len()]),
            eps: EPS,
        }
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

fn put_statistics(device: &Device, mean: &[f32], variance: &[f32]) -> BatchStatistics {
    BatchStatistics {
        mean: put(device, mean, &[mean.len()]),
        variance: put(device, variance, &[variance.len()]),
    }
}

/// Leaves x, gamma, beta and shortcut of a batch norm whose result, with or without the shortcut,
/// is not near the kink: xhat is near 1 or -1, and shift and shortcut are smaller than the scale.
fn leaves_away_from_the_kink() -> [Leaf; 4] {
    let mut x = signed(1, &[4, 3, 3, 2], 0.9, 1.1);
    // As many positive as negative numbers, so that the mean is near 0.
    for (i, x) in x.values.iter_mut().enumerate() {
        *x = if i % 2 == 0 { x.abs() } else { -x.abs() };
    }
    [
        x,
        signed(2, &[3], 1.0, 1.5),
        signed(3, &[3], 0.1, 0.3),
        signed(4, &[4, 3, 3, 2], 0.1, 0.3),
    ]
}

fn activations<T>(shortcut: T) -> [(&'static str, Activation<T>); 3] {
    [
        ("identity", Activation::Identity),
        ("relu", Activation::Relu),
        ("add_relu", Activation::AddRelu(shortcut)),
    ]
}

fn affine(x: &[Var]) -> Affine<'_> {
    Affine {
        gamma: &x[1],
        beta: &x[2],
        eps: EPS,
    }
}

#[test]
fn gradients_in_training() {
    for (name, activation) in activations(()) {
        let leaves = leaves_away_from_the_kink();
        check_gradients(&format!("batch_norm, {name}, in training"), &leaves, |x| {
            let (y, _) = x[0].batch_norm(affine(x), activation.map(|()| &x[3]))?;
            // The shortcut takes part in the result, whatever the activation is.
            y.add(&x[3].scale(0.3)?)
        });
    }
}

#[test]
fn gradients_in_evaluation() {
    for (name, activation) in activations(()) {
        let leaves = leaves_away_from_the_kink();
        check_gradients(
            &format!("batch_norm, {name}, in evaluation"),
            &leaves,
            |x| {
                let device = x[0].device();
                let statistics = put_statistics(&device, &[0.1, -0.1, 0.05], &[0.9, 1.5, 2.5]);
                let activation = activation.map(|()| &x[3]);
                let y = x[0].batch_norm_evaluation(&statistics, affine(x), activation)?;
                y.add(&x[3].scale(0.3)?)
            },
        );
    }
}

/// The gradient of the weight needs the activation before it, which is recomputed in the backward
/// pass. That recomputation needs another recomputed activation.
#[test]
fn gradients_of_a_convolution_of_recomputed_activations() {
    let [x, gamma, beta, shortcut] = leaves_away_from_the_kink();
    let leaves = [x, gamma, beta, shortcut, normal_leaf(5, &[2, 3, 1, 1])];
    check_gradients("conv2d of batch_norms", &leaves, |x| {
        let first = x[3].add(&x[0])?;
        let (first, _) = first.batch_norm(affine(x), Activation::Relu)?;
        let (second, _) = x[0].batch_norm(affine(x), Activation::AddRelu(&first))?;
        second.conv2d(&x[4], POINTWISE)
    });
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
                dy: &y,
                x,
                norm,
                is_rectified: true,
                statistics: Statistics::OfTheBatch,
            };
            device.run(backward).expect("the gradients")
        };
        let gradients = backward(x.clone());
        let in_place = backward(device.run(Copy { x: &x }).expect("a copy"));
        [
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
