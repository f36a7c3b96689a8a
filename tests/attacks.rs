//! Attacks: against PyTorch, against a float64 loop, and what they never do.

#[allow(dead_code)]
#[path = "../src/testing/devices.rs"]
mod devices;

use std::path::Path;

use parallax::augment::CIFAR10_STATISTICS;
use parallax::autograd::{Tape, Var};
use parallax::evaluate::attack::{
    AttackSettings, Method, Units, climb, in_units, input_gradient, network_input, perturb,
};
use parallax::nn::{Normalization, Parameter};
use parallax::objectives::Protocol;
use parallax::ops::{Conv2dOptions, NoiseKey, Uniform};
use parallax::philox::Philox;
use parallax::{Device, Error, Result, Tensor};
use proptest::prelude::*;
use safetensors::SafeTensors;

const PGD: Method = Method::Pgd { iterations: 10 };
const KEY: NoiseKey = NoiseKey { seed: 4, stream: 9 };

/// A linear classifier of 3 x 4 x 4 pixels into four classes.
struct Linear {
    w: Vec<f32>,
    bias: Vec<f32>,
}

const PIXELS: usize = 48;
const CLASSES: usize = 4;

impl Linear {
    fn new(seed: u64) -> Self {
        let mut rng = Philox::new(seed, [0; 3]);
        Linear {
            w: (0..CLASSES * PIXELS).map(|_| 0.2 * rng.normal()).collect(),
            bias: (0..CLASSES).map(|_| 0.1 * rng.normal()).collect(),
        }
    }

    fn classifier(&self, device: &Device, units: Units) -> impl Fn(&Var) -> Result<Var> {
        let w = Parameter::new("w", &self.w, &[CLASSES, PIXELS], device).expect("it fits");
        let bias = Parameter::new("bias", &self.bias, &[CLASSES], device).expect("it fits");
        move |images| {
            let x = network_input(units, Normalization::default(), images)?;
            let x = x.reshape(&[x.shape()[0], PIXELS])?;
            x.linear(&x.parameter(&w), &x.parameter(&bias))
        }
    }

    /// The gradient of the mean cross-entropy with respect to pixels, in float64.
    fn gradient(&self, units: Units, x: &[f64], labels: &[u32]) -> Vec<f64> {
        let (mean, std) = CIFAR10_STATISTICS;
        let mut gradient = Vec::with_capacity(x.len());
        for (image, &label) in x.chunks(PIXELS).zip(labels) {
            let scaled = |k: usize| match units {
                Units::Pixels => {
                    let channel = k / 16;
                    (image[k] - f64::from(mean[channel])) / f64::from(std[channel])
                }
                Units::Normalized => image[k],
            };
            let logits: Vec<f64> = (0..CLASSES)
                .map(|c| {
                    let row = &self.w[c * PIXELS..][..PIXELS];
                    let products = row
                        .iter()
                        .enumerate()
                        .map(|(k, &w)| f64::from(w) * scaled(k));
                    f64::from(self.bias[c]) + products.sum::<f64>()
                })
                .collect();
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
            for k in 0..PIXELS {
                let slope: f64 = (0..CLASSES)
                    .map(|c| {
                        let hot = if c == label as usize { 1.0 } else { 0.0 };
                        let p = (logits[c] - largest).exp() / sum;
                        (p - hot) * f64::from(self.w[c * PIXELS + k])
                    })
                    .sum();
                let std = match units {
                    Units::Pixels => f64::from(std[k / 16]),
                    Units::Normalized => 1.0,
                };
                gradient.push(slope / std / labels.len() as f64);
            }
        }
        gradient
    }
}

fn pixels(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = Philox::new(seed, [1; 3]);
    (0..count).map(|_| rng.uniform(0.0, 1.0)).collect()
}

/// Both attacks in both units, step by step beside a float64 loop that starts from the same noise.
#[test]
fn attacks_follow_a_float64_loop() {
    let labels = [0, 1, 2, 3, 1];
    let model = Linear::new(2);
    let pixels = pixels(3, labels.len() * PIXELS);
    for (name, device) in devices::all() {
        for protocol in [Protocol::Sound, Protocol::Paper] {
            for method in [Method::Fgsm, PGD] {
                let case = format!("{method:?}, {protocol}, on {name}");
                let settings = AttackSettings::of_protocol(protocol, method, 0.05).expect("fits");
                let images = Tensor::from_slice(&pixels, &[labels.len(), 3, 4, 4], &device)
                    .expect("it fits");
                let clean = in_units(&device, settings.units, &images).expect("they fit");
                let targets =
                    Tensor::from_slice(&labels, &[labels.len()], &device).expect("they fit");
                let classifier = model.classifier(&device, settings.units);
                let found = perturb(&device, &classifier, &clean, &targets, &settings, KEY)
                    .expect("they fit");
                let found = found.to_vec::<f32>().expect("floats");

                let wide = |x: &Tensor| -> Vec<f64> {
                    let values = x.to_vec::<f32>().expect("floats");
                    values.into_iter().map(f64::from).collect()
                };
                let clean_values = wide(&clean);
                let [low, high] = settings.units.range().map(f64::from);
                let eps = f64::from(settings.eps);
                let (mut x, steps) = match method {
                    Method::Fgsm => (clean_values.clone(), 1),
                    Method::Pgd { iterations } => {
                        let noise = device.run(Uniform {
                            key: KEY,
                            low: -settings.eps,
                            high: settings.eps,
                            shape: clean.shape(),
                        });
                        let noise = wide(&noise.expect("it fits"));
                        let start = clean_values.iter().zip(noise);
                        let start = start.map(|(c, n)| (c + n).clamp(low, high));
                        (start.collect(), iterations)
                    }
                };
                // Where a gradient is nearly zero, rounding decides its sign.
                let mut doubtful = vec![false; x.len()];
                for _ in 0..steps {
                    let gradient = model.gradient(settings.units, &x, &labels);
                    let largest = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
                    for i in 0..x.len() {
                        doubtful[i] |= gradient[i].abs() < 1e-4 * largest;
                        let moved = x[i] + f64::from(settings.alpha) * gradient[i].signum();
                        let (near, far) = (clean_values[i] - eps, clean_values[i] + eps);
                        x[i] = moved.clamp(near, far).clamp(low, high);
                    }
                }
                let doubts = doubtful.iter().filter(|&&d| d).count();
                assert!(doubts * 50 < x.len(), "{case}: {doubts} of {}", x.len());
                for i in (0..x.len()).filter(|&i| !doubtful[i]) {
                    let error = (f64::from(found[i]) - x[i]).abs();
                    assert!(
                        error < 1e-5,
                        "{case}: pixel {i} is {}, expected {}",
                        found[i],
                        x[i]
                    );
                }
            }
        }
    }
}

#[test]
fn attacks_equal_pytorchs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/attacks.safetensors");
    let bytes = std::fs::read(path).expect("the golden file");
    let file = SafeTensors::deserialize(&bytes).expect("the golden file");
    let floats = |name: &str| -> (Vec<f32>, Vec<usize>) {
        let view = file.tensor(name).expect(name);
        (
            bytemuck::pod_collect_to_vec(view.data()),
            view.shape().to_vec(),
        )
    };
    let labels: Vec<u32> =
        bytemuck::pod_collect_to_vec(file.tensor("labels").expect("labels").data());
    for (name, device) in devices::all() {
        let put = |name: &str| {
            let (values, shape) = floats(name);
            Tensor::from_slice(&values, &shape, &device).expect("it fits")
        };
        let [conv, fc, bias] = ["conv", "fc", "bias"].map(|name| Parameter {
            name: name.to_string(),
            value: put(name),
        });
        let classifier = |images: &Var| {
            let x = network_input(Units::Pixels, Normalization::default(), images)?;
            let options = Conv2dOptions {
                stride: 1,
                padding: 1,
            };
            let x = x.conv2d(&x.parameter(&conv), options)?;
            let x = x.relu()?.global_average_pool()?;
            x.linear(&x.parameter(&fc), &x.parameter(&bias))
        };
        let (images, start) = (put("images"), put("start"));
        let targets = Tensor::from_slice(&labels, &[labels.len()], &device).expect("they fit");
        let read = |x: &Tensor| x.to_vec::<f32>().expect("floats");

        let gradient = read(&input_gradient(&device, classifier, &images, &targets).expect("fits"));
        let expected = floats("gradient").0;
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
        let pairs = gradient.iter().zip(&expected);
        let error = norm(&mut pairs.map(|(a, b)| f64::from(a - b)));
        let size = norm(&mut expected.iter().map(|&x| f64::from(x)));
        assert!(error < 1e-5 * size, "{name}: {error} of {size}");

        for (method, from, result) in [(Method::Fgsm, &images, "fgsm"), (PGD, &start, "pgd")] {
            let settings =
                AttackSettings::of_protocol(Protocol::Sound, method, 8.0 / 255.0).expect("fits");
            let found =
                climb(&device, classifier, from, &images, &targets, &settings).expect("fits");
            let expected = floats(result).0;
            let apart = read(&found)
                .iter()
                .zip(&expected)
                .filter(|(a, b)| (**a - **b).abs() > 1e-5)
                .count();
            // A gradient that is nearly zero may have the other sign in float32: of 1,152 pixels 2
            // at most.
            assert!(apart <= 2, "{result} on {name}: {apart} pixels differ");
        }
    }
}

#[test]
fn an_attack_raises_the_loss_and_pgd_more_than_fgsm() {
    let device = devices::cpu();
    let labels: Vec<u32> = (0..20).map(|i| i % 4).collect();
    let model = Linear::new(8);
    let clean =
        Tensor::from_slice(&pixels(5, 20 * PIXELS), &[20, 3, 4, 4], &device).expect("it fits");
    let targets = Tensor::from_slice(&labels, &[20], &device).expect("they fit");
    let classifier = model.classifier(&device, Units::Pixels);
    let loss = |x: &Tensor| {
        let tape = Tape::inference(&device);
        let logits = classifier(&tape.constant(x)).expect("they fit");
        let loss = logits.cross_entropy(&targets).expect("they fit");
        loss.tensor().to_scalar::<f32>().expect("one number")
    };
    let attacked = |method| {
        let settings = AttackSettings::of_protocol(Protocol::Sound, method, 0.03).expect("fits");
        loss(&perturb(&device, &classifier, &clean, &targets, &settings, KEY).expect("fits"))
    };
    let (before, fgsm, pgd) = (loss(&clean), attacked(Method::Fgsm), attacked(PGD));
    // On a linear classifier one step of size eps is nearly the best that can be done.
    assert!(
        fgsm > before + 0.5 && pgd > fgsm - 0.02,
        "{before}, {fgsm}, {pgd}"
    );
}

#[test]
fn the_protocols_settings_are_those_of_their_code() {
    let of = |protocol, method| AttackSettings::of_protocol(protocol, method, 0.1).expect("fits");
    assert_eq!(of(Protocol::Sound, PGD).alpha, 2.5 * 0.1 / 10.0);
    assert_eq!(of(Protocol::Paper, PGD).alpha, 1.85 * 0.1 / 10.0);
    assert_eq!(of(Protocol::Sound, Method::Fgsm).alpha, 0.1);
    assert_eq!(of(Protocol::Sound, PGD).units.range(), [0.0, 1.0]);
    assert_eq!(of(Protocol::Paper, PGD).units.range(), [-2.4291, 2.7537]);
    for eps in [-0.1, f32::NAN, f32::INFINITY] {
        let refused = AttackSettings::of_protocol(Protocol::Sound, Method::Fgsm, eps);
        assert!(matches!(refused, Err(Error::Usage(_))), "{eps}");
    }
    let none = Method::Pgd { iterations: 0 };
    assert!(AttackSettings::of_protocol(Protocol::Sound, none, 0.1).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever eps is, an attack stays in its ball and in the range of pixels, repeats to the bit,
    /// and with eps 0 does nothing.
    #[test]
    fn attacks_stay_in_the_ball_and_in_range(
        seed in 0u64..1000,
        eps in prop_oneof![Just(0.0f32), 0.0f32..1e-4, 0.0f32..0.01, 0.0f32..2.0],
        paper in any::<bool>(),
        iterations in prop_oneof![Just(0u32), 1u32..6],
    ) {
        let device = devices::cpu();
        let protocol = if paper { Protocol::Paper } else { Protocol::Sound };
        let method = match iterations {
            0 => Method::Fgsm,
            iterations => Method::Pgd { iterations },
        };
        let settings = AttackSettings::of_protocol(protocol, method, eps).expect("eps is 0 or more");
        let mut values = pixels(seed, 2 * PIXELS);
        // The ends of the range too, in every channel.
        for channel in 0..3 {
            (values[16 * channel], values[16 * channel + 1]) = (0.0, 1.0);
        }
        let images = Tensor::from_slice(&values, &[2, 3, 4, 4], &device).expect("it fits");
        let clean = in_units(&device, settings.units, &images).expect("they fit");
        let targets = Tensor::from_slice(&[1u32, 3], &[2], &device).expect("they fit");
        let model = Linear::new(seed);
        let classifier = model.classifier(&device, settings.units);
        let attack = || {
            let x = perturb(&device, &classifier, &clean, &targets, &settings, KEY).expect("they fit");
            x.to_vec::<f32>().expect("floats")
        };
        let (found, clean) = (attack(), clean.to_vec::<f32>().expect("floats"));
        prop_assert_eq!(&found, &attack());
        if eps == 0.0 {
            prop_assert_eq!(&found, &clean);
        }
        let [low, high] = settings.units.range();
        for (x, c) in found.iter().zip(&clean) {
            // What is normalised to above the range is moved to its end, whatever eps is, unless
            // nothing is done at all.
            let outside = c - c.clamp(low, high);
            prop_assert!(outside == 0.0 || paper && outside.abs() < 4e-5, "{}", c);
            if eps > 0.0 {
                prop_assert!((low..=high).contains(x), "{} of {:?}", x, settings);
            }
            // clean +- eps is rounded to the nearest f32.
            let rounding = f32::EPSILON * (c.abs() + eps);
            prop_assert!((x - c).abs() <= eps.max(outside.abs()) + rounding, "{} from {}, eps {}", x, c, eps);
        }
    }
}

/// Units that are normalised pixels are those of CIFAR-10, so no other network can be attacked in
/// them.
#[test]
fn normalised_units_need_the_normalisation_of_cifar10() {
    let device = devices::cpu();
    let images = Tensor::from_slice(&pixels(4, PIXELS), &[1, 3, 4, 4], &device).expect("it fits");
    let images = Tape::inference(&device).constant(&images);
    let input = |units, normalization| network_input(units, normalization, &images);
    let error = match input(Units::Normalized, Normalization::ImageNet) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was accepted"),
    };
    assert!(
        error.contains("imagenet") && error.contains("sound"),
        "{error}"
    );
    let values = |x: Result<Var>| {
        x.expect("it fits")
            .tensor()
            .to_vec::<f32>()
            .expect("floats")
    };
    let none = values(input(Units::Pixels, Normalization::None));
    assert_eq!(
        none,
        values(input(Units::Normalized, Normalization::Cifar10))
    );
    assert_ne!(none, values(input(Units::Pixels, Normalization::ImageNet)));
}
