//! Training with f16 activations, and with f16 factors of products: gradients and losses equal
//! those of f32 up to rounding, steps whose gradient overflows are repeated and none is lost, and
//! activations take half the memory.

// This test uses some of the devices.
#[allow(dead_code)]
#[path = "../src/testing/devices.rs"]
mod devices;

use parallax::autograd::{PassOptions, Tape, Var};
use parallax::data::{self, DataKind};
use parallax::device::gpu::{AdapterChoice, GpuOptions};
use parallax::nn::{Arch, ResNetConfig, Stem};
use parallax::objectives::Protocol;
use parallax::objectives::simclr::{self, SimClr, SimClrNetwork, SimClrSettings};
use parallax::ops::batch_norm::{Activation, Affine};
use parallax::ops::conv2d::Conv2dOptions;
use parallax::ops::pool::Pool2dOptions;
use parallax::philox::Philox;
use parallax::train::{LossScale, Trainer};
use parallax::{DType, Device, Result, Tensor};

type SimClrTrainer = Trainer<SimClrNetwork, SimClr>;

fn trainer(device: &Device, width: f64, batch_size: usize, activations: DType) -> SimClrTrainer {
    let options = PassOptions {
        activations,
        ..PassOptions::default()
    };
    trainer_with(device, width, batch_size, options)
}

fn trainer_with(
    device: &Device,
    width: f64,
    batch_size: usize,
    options: PassOptions,
) -> SimClrTrainer {
    let encoder = ResNetConfig {
        arch: Arch::ResNet18,
        stem: Stem::Cifar { padding: 1 },
        width,
    };
    let settings = SimClrSettings::of_protocol(Protocol::Sound, encoder, 32, batch_size, 1e-6, 0);
    let optimization = settings.optimization;
    let dataset = data::load(DataKind::Shapes, None, 0).expect("they are drawn");
    let network = simclr::network(&settings, device).expect("it fits");
    let objective = SimClr::new(settings, dataset.pretraining(), device).expect("it fits");
    let trainer = Trainer::new(network, optimization, objective).expect("it fits");
    trainer.with_options(options).expect("the device has f16")
}

/// The losses of six steps, `ahead` of which are recorded before the oldest is finished, the number
/// of repeated steps, and the bits of the state after them.
fn six_steps(trainer: &mut SimClrTrainer, ahead: usize) -> Result<(Vec<f32>, u32, Vec<u32>)> {
    let (mut losses, mut overflows) = (Vec::new(), 0);
    let mut pending = std::collections::VecDeque::new();
    for step in 0..6 {
        pending.push_back(trainer.step(step)?);
        while pending.len() > if step == 5 { 0 } else { ahead }
            && let Some(oldest) = pending.pop_front()
        {
            let finished = trainer.finish_scaled(oldest)?;
            losses.push(finished.loss);
            overflows += finished.overflows;
        }
    }
    let mut bits = Vec::new();
    for parameter in trainer.state() {
        let values = parameter.value.to_vec::<f32>()?;
        bits.extend(values.iter().map(|x| x.to_bits()));
    }
    Ok((losses, overflows, bits))
}

#[test]
fn losses_follow_those_of_f32() {
    for (name, device) in [("cpu", devices::cpu()), ("gpu", devices::gpu(false))] {
        let [f32, f16] = [DType::F32, DType::F16].map(|dtype| {
            let mut trainer = trainer(&device, 0.125, 8, dtype);
            six_steps(&mut trainer, 2).expect(name).0
        });
        assert_ne!(f32, f16, "{name}");
        for (step, (a, b)) in f32.iter().zip(&f16).enumerate() {
            assert!(
                (a - b).abs() < 0.05 * a,
                "step {step} on {name}: {a}, in f16 {b}"
            );
        }
    }
}

/// The devices are opened here, since the rounding is a setting of a device.
#[test]
fn losses_with_rounded_factors_follow_those_of_f32() {
    let gpu: Device = devices::open_gpu(false, None).into();
    let runs = [("cpu", Device::cpu()), ("gpu", gpu)].map(|(name, device)| {
        let [exact, rounded] = [false, true].map(|rounds_factors| {
            let options = PassOptions {
                rounds_factors,
                ..PassOptions::default()
            };
            let mut trainer = trainer_with(&device, 0.125, 8, options);
            assert_eq!(trainer.loss_scale().is_some(), rounds_factors, "{name}");
            six_steps(&mut trainer, 2).expect(name).0
        });
        assert_ne!(exact, rounded, "{name}");
        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 0.02 * a;
        let is_close = exact.iter().zip(&rounded).all(close);
        assert!(
            is_close,
            "{name}: {exact:?}, with rounded factors {rounded:?}"
        );
        // The setting ends with the step.
        assert!(!device.round_factors(false), "{name}");
        rounded
    });
    // The order of sums decides how a number between two f16 numbers is rounded. Later losses
    // follow updates, which amplify the difference.
    let [cpu, gpu] = runs.map(|losses| losses[0]);
    assert!((cpu - gpu).abs() < 1e-3 * cpu, "{cpu} on the CPU, {gpu}");
}

/// A scale at which gradients overflow is halved until none overflows. No step is lost: the result
/// has the same bits whether other steps were recorded after the one that overflowed or not, and
/// the losses are those of a scale that never overflows.
#[test]
fn a_step_that_overflows_is_repeated_and_none_is_lost() {
    for (name, device) in [("cpu", devices::cpu()), ("gpu", devices::gpu(false))] {
        let run = |scale: f32, ahead: usize| {
            let mut trainer = trainer(&device, 0.0625, 4, DType::F16);
            trainer.resume_with_loss_scale(LossScale {
                scale,
                good_steps: 7,
            });
            let taken = six_steps(&mut trainer, ahead).expect(name);
            assert_eq!(trainer.optimizer_steps(), 6, "{name}");
            (taken, trainer.loss_scale().expect("it is f16"))
        };
        let too_large = 2f32.powi(30);
        let ((losses, overflows, state), settled) = run(too_large, 2);
        assert!(overflows > 1, "{name}: {overflows}");
        assert_eq!(
            settled.scale,
            too_large * 0.5f32.powi(overflows as i32),
            "{name}"
        );
        let one_by_one = run(too_large, 0);
        assert!(
            one_by_one == ((losses.clone(), overflows, state), settled),
            "{name}"
        );
        let ((expected, none, _), _) = run(1024.0, 2);
        assert_eq!(none, 0, "{name}");
        for (step, (a, b)) in expected.iter().zip(&losses).enumerate() {
            assert!(
                (a - b).abs() < 0.05 * a,
                "step {step} on {name}: {a}, after overflows {b}"
            );
        }
    }
}

/// The gradients of a small network of every operation that has f16.
fn gradients(device: &Device, dtype: DType) -> Result<Vec<Vec<f32>>> {
    let mut rng = Philox::new(5, [0; 3]);
    let mut leaf = |shape: &[usize], scale: f32, shift: f32| -> Result<Tensor> {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| shift + scale * rng.normal()).collect();
        Tensor::from_slice(&values, shape, device)
    };
    let leaves = [
        leaf(&[4, 3, 9, 9], 1.0, 0.0)?,
        leaf(&[6, 3, 3, 3], 0.3, 0.0)?,
        leaf(&[6], 0.2, 1.0)?,
        leaf(&[6], 0.2, 0.0)?,
        leaf(&[6, 6, 1, 1], 0.4, 0.0)?,
        leaf(&[6], 0.2, 1.0)?,
        leaf(&[6], 0.2, 4.0)?,
        leaf(&[4, 6], 1.0, 0.0)?,
    ];
    let (leaves, dy) = leaves.split_at(7);
    let tape = Tape::new(device);
    let [x, w1, gamma1, beta1, w2, gamma2, beta2] = std::array::from_fn(|i| tape.leaf(&leaves[i]));
    let norm = |x: &Var, gamma, beta, activation| {
        let affine = Affine {
            gamma,
            beta,
            eps: 1e-5,
        };
        x.batch_norm(affine, activation).map(|(y, _)| y)
    };
    let conv = |x: &Var, w, padding| x.conv2d(w, Conv2dOptions { stride: 1, padding });
    let x = x.cast(dtype)?;
    let y = norm(&conv(&x, &w1, 1)?, &gamma1, &beta1, Activation::Identity)?;
    let y = y.max_pool2d(Pool2dOptions {
        kernel: 3,
        stride: 2,
        padding: 1,
    })?;
    // Far from the kink of the last ReLU, so that both types pass the same elements.
    let z = norm(&conv(&y, &w2, 0)?, &gamma2, &beta2, Activation::AddRelu(&y))?;
    let z = z.add(&y)?;
    let features = z.global_average_pool()?;
    assert_eq!(z.tensor().dtype(), dtype);
    assert_eq!(features.tensor().dtype(), DType::F32);
    let gradients = features.backward_from(dy[0].clone())?;
    let of = |leaf| {
        gradients
            .of(leaf)
            .expect("it depends on it")
            .to_vec::<f32>()
    };
    leaves.iter().map(of).collect()
}

/// The tests of the operations compare the gradients of f32 with central differences, whose steps
/// f16 would round away.
#[test]
fn gradients_are_those_of_f32_up_to_rounding() {
    for (name, device) in devices::with_f16(devices::all()) {
        let [f32, f16] = [DType::F32, DType::F16].map(|dtype| gradients(&device, dtype));
        for (leaf, (a, b)) in f32.expect(name).iter().zip(f16.expect(name)).enumerate() {
            let norm = |x: &mut dyn Iterator<Item = f32>| {
                x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
            };
            let apart = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b));
            let error = apart / norm(&mut a.iter().copied());
            assert!(error < 2e-2, "leaf {leaf} on {name}: {error:e}");
        }
    }
}

#[test]
fn f16_holds_less() {
    let peak = |dtype| {
        let device = Device::cpu();
        let mut trainer = trainer(&device, 0.25, 32, dtype);
        let before = device.memory().current;
        let pending = trainer.step(0).expect("it runs");
        trainer.finish(pending).expect("it is finite");
        (device.memory().peak - before) as f64
    };
    let (f32, f16) = (peak(DType::F32), peak(DType::F16));
    assert!(f16 < 0.65 * f32, "{f16} of {f32} bytes");
}

#[test]
fn an_adapter_without_f16_is_named() {
    let adapter = std::env::var("PARALLAX_TEST_ADAPTER").unwrap_or_else(|_| "llvmpipe".to_string());
    let device = Device::open_gpu(GpuOptions {
        adapter: AdapterChoice::Named(adapter),
        f16: false,
        ..GpuOptions::default()
    });
    let device = device.expect("the adapter of the tests");
    let error = Tensor::zeros(&[1], DType::F16, &device).expect_err("it has no f16");
    let text = error.to_string();
    assert!(
        text.contains("SHADER_F16") && text.contains("use f32"),
        "{text}"
    );
}
