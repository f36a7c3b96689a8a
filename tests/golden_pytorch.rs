//! Whole networks, the contrastive loss and the optimisers against PyTorch, on every device.
//! `tests/golden/generate.py` writes the files, which `tests/golden/README.md` describes.

// This test uses some of the devices.
#[allow(dead_code)]
#[path = "../src/testing/devices.rs"]
mod devices;

use std::path::PathBuf;

use parallax::autograd::{Gradients, Tape};
use parallax::nn::{Arch, Linear, Module, Parameter, ResNet, ResNetConfig, Stem};
use parallax::optim::{
    AdamOptions, Decay, LarsOptions, Milestones, Optimizer, OptimizerOptions, Schedule, SgdOptions,
};
use parallax::{Device, Result, Tensor};
use safetensors::{Dtype, SafeTensors};

/// The largest difference of a logit.
const LOGITS: f64 = 1e-4;
/// The largest relative norm of the difference of gradients and of running statistics.
const RELATIVE_NORM: f64 = 1e-3;

/// One golden file.
struct Golden {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Golden {
    fn open(name: &'static str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let bytes = std::fs::read(path.join(name))
            .unwrap_or_else(|error| panic!("tests/golden/{name}: {error}; run generate.py"));
        Golden { name, bytes }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect(self.name)
    }

    /// The elements of any type, and the shape.
    fn numbers(&self, tensor: &str) -> (Vec<f64>, Vec<usize>) {
        let file = self.file();
        let view = file
            .tensor(tensor)
            .unwrap_or_else(|error| panic!("{}: {tensor}: {error}", self.name));
        let values = match view.dtype() {
            Dtype::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(view.data())
                .into_iter()
                .map(f64::from)
                .collect(),
            Dtype::F64 => bytemuck::pod_collect_to_vec(view.data()),
            Dtype::U32 => bytemuck::pod_collect_to_vec::<u8, u32>(view.data())
                .into_iter()
                .map(f64::from)
                .collect(),
            other => panic!("{}: {tensor} holds {other:?}", self.name),
        };
        (values, view.shape().to_vec())
    }

    fn values(&self, tensor: &str) -> Vec<f64> {
        self.numbers(tensor).0
    }

    fn scalar(&self, tensor: &str) -> f64 {
        let values = self.values(tensor);
        assert_eq!(values.len(), 1, "{}: {tensor}", self.name);
        values[0]
    }

    fn upload(&self, device: &Device, tensor: &str) -> Result<Tensor> {
        let (values, shape) = self.numbers(tensor);
        let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        Tensor::from_slice(&values, &shape, device)
    }

    fn upload_labels(&self, device: &Device) -> Result<Tensor> {
        let (values, shape) = self.numbers("labels");
        let values: Vec<u32> = values.into_iter().map(|v| v as u32).collect();
        Tensor::from_slice(&values, &shape, device)
    }

    /// A number of the metadata, which is JSON.
    fn setting(&self, key: &str) -> serde_json::Value {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).expect(self.name);
        let metadata = header.metadata().clone().unwrap_or_default();
        let text = metadata
            .get(key)
            .unwrap_or_else(|| panic!("{}: no metadata {key}", self.name));
        serde_json::from_str(text).expect(key)
    }

    fn number(&self, key: &str) -> f64 {
        self.setting(key).as_f64().expect(key)
    }
}

/// `|found - expected| / |expected|`
fn relative_norm(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let apart: f64 = found
        .iter()
        .zip(expected)
        .map(|(&f, e)| (f64::from(f) - e).powi(2))
        .sum();
    let norm: f64 = expected.iter().map(|e| e.powi(2)).sum();
    (apart / norm).sqrt()
}

/// The largest absolute difference.
fn largest_difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .map(|(&f, e)| (f64::from(f) - e).abs())
        .fold(0.0, f64::max)
}

/// A network with the parameters of a file, and the batch of the file.
struct Classifier {
    device: Device,
    /// An encoder and a linear layer with ten classes.
    network: (ResNet, Linear),
    images: Tensor,
    labels: Tensor,
}

impl Classifier {
    fn new(device: &Device, golden: &Golden, arch: Arch) -> Result<Self> {
        let config = ResNetConfig {
            arch,
            stem: Stem::Cifar { padding: 1 },
            width: golden.number("width"),
        };
        let encoder = ResNet::new(&config, 1, device)?;
        let head = Linear::new("fc", encoder.feature_width(), 10, 1, device)?;
        let classifier = Classifier {
            device: device.clone(),
            network: (encoder, head),
            images: golden.upload(device, "input")?,
            labels: golden.upload_labels(device)?,
        };
        let parameters = classifier.network.parameters();
        let file = golden.file();
        let stored = file
            .names()
            .iter()
            .filter(|n| n.starts_with("param."))
            .count();
        assert_eq!(parameters.len(), stored, "{}: parameters", golden.name);
        for parameter in parameters {
            let (values, shape) = golden.numbers(&format!("param.{}", parameter.name));
            assert_eq!(parameter.value.shape(), shape, "{}", parameter.name);
            let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
            parameter.value.overwrite(&values)?;
        }
        Ok(classifier)
    }

    fn update_buffers(&self, tape: &Tape) -> Result<()> {
        let mut updates = tape.take_buffer_updates().into_iter();
        updates.try_for_each(|update| update.apply(&self.device, None))
    }

    /// The loss of one step and its gradients.
    fn step(&self) -> Result<(f32, Gradients)> {
        let tape = Tape::new(&self.device);
        let logits = self.network.forward(&tape.constant(&self.images))?;
        let loss = logits.cross_entropy(&self.labels)?;
        let value = loss.tensor().clone();
        let gradients = loss.backward()?;
        self.update_buffers(&tape)?;
        Ok((value.to_scalar()?, gradients))
    }
}

/// Forward pass, backward pass, running statistics and evaluation of one batch.
fn first_step(file: &'static str, arch: Arch) -> Result<()> {
    let golden = Golden::open(file);
    for (name, device) in devices::unsliced() {
        let classifier = Classifier::new(&device, &golden, arch)?;
        let tape = Tape::new(&device);
        let images = tape.leaf(&classifier.images);
        let logits = classifier.network.forward(&images)?;
        let found = logits.tensor().to_vec::<f32>()?;
        let apart = largest_difference(&found, &golden.values("logits"));
        assert!(apart < LOGITS, "{name}: logits are {apart:.1e} apart");

        let loss = logits.cross_entropy(&classifier.labels)?;
        let apart = f64::from(loss.tensor().to_scalar::<f32>()?) - golden.scalar("loss");
        assert!(
            apart.abs() < LOGITS,
            "{name}: the loss is {apart:.1e} apart"
        );

        let gradients = loss.backward()?;
        let gradient = |of: &Tensor| gradients.of(of).expect("in the graph").to_vec::<f32>();
        let mut worst = (0.0, String::new());
        let mut compare = |what: String, found: Vec<f32>| {
            let apart = relative_norm(&found, &golden.values(&what));
            assert!(apart < RELATIVE_NORM, "{name}: {what} is {apart:.1e} apart");
            if apart > worst.0 {
                worst = (apart, what);
            }
        };
        compare("grad_input".to_string(), gradient(&classifier.images)?);
        for parameter in classifier.network.parameters() {
            let what = format!("grad.{}", parameter.name);
            compare(what, gradient(&parameter.value)?);
        }
        classifier.update_buffers(&tape)?;
        for buffer in classifier.network.buffers() {
            let what = format!("running.{}", buffer.name);
            compare(what, buffer.value.to_vec()?);
        }
        println!(
            "{name}: farthest by relative norm: {} {:.1e}",
            worst.1, worst.0
        );

        let images = Tape::inference(&device).constant(&classifier.images);
        let logits = classifier.network.forward(&images)?;
        let found = logits.tensor().to_vec::<f32>()?;
        let apart = largest_difference(&found, &golden.values("logits_eval"));
        assert!(
            apart < LOGITS,
            "{name}: evaluation logits are {apart:.1e} apart"
        );
    }
    Ok(())
}

/// Compares the losses of ten steps of `optimizer` with those in `losses`, a prefix of names in
/// `recorded`. Each may differ by the largest of 1e-3 of the loss, 1e-4, and four times the
/// difference of torch's own f32. `file` has the network and the batch.
fn ten_losses(
    file: &'static str,
    arch: Arch,
    (recorded, losses): (&Golden, &str),
    (optimizer, learning_rate): (OptimizerOptions, f64),
) -> Result<()> {
    let golden = Golden::open(file);
    let exact = recorded.values(&format!("{losses}_losses_f64"));
    let single = recorded.values(&format!("{losses}_losses_f32"));
    assert_eq!((exact.len(), single.len()), (10, 10));
    for (name, device) in devices::unsliced() {
        let classifier = Classifier::new(&device, &golden, arch)?;
        let parameters = classifier.network.parameters();
        let mut update = Optimizer::new(&parameters, optimizer)?;
        let mut largest = 0f64;
        for (step, (exact, single)) in exact.iter().zip(&single).enumerate() {
            let (loss, gradients) = classifier.step()?;
            update.step(learning_rate as f32, &gradients, None)?;
            let apart = (f64::from(loss) - exact).abs();
            let allowed = (1e-3 * exact).max(1e-4).max(4.0 * (single - exact).abs());
            assert!(
                apart < allowed,
                "{name}: step {step} of {losses}: loss {loss}, torch {exact}; {apart:.1e} apart, \
                 {allowed:.1e} allowed"
            );
            largest = largest.max(apart / exact);
        }
        println!("{name}: ten {losses} losses within {largest:.1e} of torch's in f64");
    }
    Ok(())
}

/// [`ten_losses`] that are in the file of the network.
fn ten_own_losses(
    file: &'static str,
    arch: Arch,
    optimizer: &str,
    options: fn(&Golden) -> OptimizerOptions,
) -> Result<()> {
    let golden = Golden::open(file);
    let learning_rate = golden.number(&format!("{optimizer}_lr"));
    let rule = (options(&golden), learning_rate);
    ten_losses(file, arch, (&golden, optimizer), rule)
}

fn adam(golden: &Golden) -> OptimizerOptions {
    let betas = golden.setting("adam_betas");
    OptimizerOptions::Adam(AdamOptions {
        beta1: betas[0].as_f64().expect("a number") as f32,
        beta2: betas[1].as_f64().expect("a number") as f32,
        eps: golden.number("adam_eps") as f32,
        weight_decay: golden.number("adam_weight_decay") as f32,
    })
}

fn sgd(golden: &Golden, nesterov: bool) -> OptimizerOptions {
    OptimizerOptions::Sgd(SgdOptions {
        momentum: golden.number("sgd_momentum") as f32,
        nesterov,
        weight_decay: golden.number("sgd_weight_decay") as f32,
    })
}

fn nesterov(golden: &Golden) -> OptimizerOptions {
    sgd(golden, true)
}

#[test]
fn resnet18_first_step() -> Result<()> {
    first_step("resnet18.safetensors", Arch::ResNet18)
}

#[test]
fn resnet50_first_step() -> Result<()> {
    first_step("resnet50.safetensors", Arch::ResNet50)
}

#[test]
fn resnet18_ten_adam_losses() -> Result<()> {
    ten_own_losses("resnet18.safetensors", Arch::ResNet18, "adam", adam)
}

#[test]
fn resnet18_ten_sgd_losses() -> Result<()> {
    ten_own_losses("resnet18.safetensors", Arch::ResNet18, "sgd", nesterov)
}

#[test]
fn resnet50_ten_adam_losses() -> Result<()> {
    ten_own_losses("resnet50.safetensors", Arch::ResNet50, "adam", adam)
}

#[test]
fn resnet50_ten_sgd_losses() -> Result<()> {
    ten_own_losses("resnet50.safetensors", Arch::ResNet50, "sgd", nesterov)
}

/// The settings of LARS, whose names have this prefix.
fn lars(golden: &Golden, prefix: &str) -> OptimizerOptions {
    let number = |key: &str| golden.number(&format!("{prefix}lars_{key}")) as f32;
    OptimizerOptions::Lars(LarsOptions {
        momentum: number("momentum"),
        weight_decay: number("decay"),
        trust_coefficient: number("trust"),
        eps: number("eps"),
    })
}

#[test]
fn resnet18_ten_lars_losses() -> Result<()> {
    let golden = Golden::open("lars.safetensors");
    let rule = (
        lars(&golden, "resnet18_"),
        golden.number("resnet18_lars_lr"),
    );
    let file = "resnet18.safetensors";
    ten_losses(file, Arch::ResNet18, (&golden, "resnet18"), rule)
}

#[test]
fn nt_xent_and_its_gradient() -> Result<()> {
    let golden = Golden::open("ntxent.safetensors");
    for (name, device) in devices::unsliced() {
        for case in ["case0", "case1"] {
            let embeddings = golden.upload(&device, &format!("{case}.z"))?;
            let temperature = golden.number(&format!("{case}.temperature")) as f32;
            let z = Tape::new(&device).leaf(&embeddings).l2_normalize(1e-12)?;
            let loss = z.nt_xent(temperature)?;
            let value = loss.tensor().to_scalar::<f32>()?;
            let gradients = loss.backward()?;
            let exact = golden.scalar(&format!("{case}.loss"));
            let apart = (f64::from(value) - exact).abs();
            assert!(
                apart < 1e-5 * exact,
                "{name}, {case}: the loss is {apart:.1e} apart"
            );
            let gradient = gradients.of(&embeddings).expect("in the graph");
            let exact = golden.values(&format!("{case}.grad"));
            let apart = relative_norm(&gradient.to_vec::<f32>()?, &exact);
            assert!(
                apart < 1e-5,
                "{name}, {case}: the gradient is {apart:.1e} apart"
            );
        }
    }
    Ok(())
}

/// The gradients of a loss whose gradient for `parameter` is exactly `values`.
fn gradients_equal_to(parameter: &Parameter, values: &[f32]) -> Result<Gradients> {
    let device = parameter.value.device();
    let dy = Tensor::from_slice(values, parameter.value.shape(), &device)?;
    Tape::new(&device).leaf(&parameter.value).backward_from(dy)
}

/// Runs five updates with the gradients of the file, and compares the parameters after each update
/// with those of torch in f64.
fn optimizer_path(
    optimizer: &str,
    learning_rate: &str,
    options: fn(&Golden) -> OptimizerOptions,
) -> Result<()> {
    let golden = Golden::open("optimizers.safetensors");
    let start: Vec<f32> = golden.values("initial").iter().map(|&v| v as f32).collect();
    let gradients = golden.values("gradients");
    let expected = golden.values(&format!("{optimizer}.params_f64"));
    let learning_rate = golden.number(learning_rate) as f32;
    let length = start.len();
    assert_eq!(gradients.len(), expected.len());
    for (name, device) in devices::unsliced() {
        let parameter = Parameter::new("p", &start, &[length], &device)?;
        let mut update = Optimizer::new(&[&parameter], options(&golden))?;
        for (step, gradient) in gradients.chunks(length).enumerate() {
            let gradient: Vec<f32> = gradient.iter().map(|&v| v as f32).collect();
            let gradients = gradients_equal_to(&parameter, &gradient)?;
            update.step(learning_rate, &gradients, None)?;
            let found = parameter.value.to_vec::<f32>()?;
            let expected = &expected[step * length..(step + 1) * length];
            for (found, expected) in found.iter().zip(expected) {
                let apart = (f64::from(*found) - expected).abs();
                assert!(
                    apart < 1e-6 * expected.abs().max(1.0),
                    "{name}: {optimizer}, step {step}: {found}, torch {expected}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn lars_follows_torch() -> Result<()> {
    let golden = Golden::open("lars.safetensors");
    let learning_rate = golden.number("lars_lr") as f32;
    for (name, device) in devices::unsliced() {
        for tensor in ["weight", "bias", "zero", "still"] {
            let parameter = Parameter {
                name: tensor.to_string(),
                value: golden.upload(&device, &format!("{tensor}.initial"))?,
            };
            let mut update = Optimizer::new(&[&parameter], lars(&golden, ""))?;
            let gradients = golden.values(&format!("{tensor}.gradients"));
            let expected = golden.values(&format!("{tensor}.params_f64"));
            let length = parameter.value.len();
            assert_eq!((gradients.len(), expected.len()), (5 * length, 5 * length));
            for step in 0..5 {
                let of_step = step * length..(step + 1) * length;
                let gradient: Vec<f32> = gradients[of_step.clone()]
                    .iter()
                    .map(|&v| v as f32)
                    .collect();
                let gradients = gradients_equal_to(&parameter, &gradient)?;
                update.step(learning_rate, &gradients, None)?;
                let found = parameter.value.to_vec::<f32>()?;
                let apart = largest_difference(&found, &expected[of_step]);
                assert!(
                    apart < 1e-6,
                    "{name}: {tensor}, step {step}: {apart:.1e} apart"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn schedules_follow_torch() -> Result<()> {
    let golden = Golden::open("schedules.safetensors");
    let whole = |key: &str| golden.number(key) as u64;
    let milestones = golden.setting("milestones");
    let milestones = milestones.as_array().expect("a list").iter();
    let milestones: Vec<u64> = milestones.filter_map(serde_json::Value::as_u64).collect();
    let decays = [
        ("constant", Decay::Constant),
        (
            "milestones",
            Decay::Milestones {
                at: Milestones::new(&milestones)?,
                gamma: golden.number("milestones_gamma"),
            },
        ),
        (
            "every",
            Decay::Every {
                every: whole("every"),
                gamma: golden.number("every_gamma"),
            },
        ),
        (
            "cosine",
            Decay::Cosine {
                total: whole("steps"),
            },
        ),
    ];
    let base = golden.number("base");
    for (name, decay) in decays {
        for (suffix, warmup) in [("", 0), ("_warm", whole("warmup"))] {
            let expected = golden.values(&format!("{name}{suffix}"));
            assert_eq!(expected.len() as u64, whole("steps"));
            let schedule = Schedule { warmup, decay };
            for (step, expected) in (0..).zip(expected) {
                let found = f64::from(schedule.learning_rate(base, step));
                // Half a unit of the last place of f32.
                assert!(
                    (found - expected).abs() <= 6e-8 * expected + 1e-15,
                    "{schedule}, step {step}: {found}, torch {expected}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn adam_follows_torch() -> Result<()> {
    optimizer_path("adam", "adam_lr", adam)
}

#[test]
fn sgd_follows_torch_with_and_without_nesterov() -> Result<()> {
    optimizer_path("sgd_nesterov", "sgd_lr", nesterov)?;
    optimizer_path("sgd_momentum", "sgd_lr", |golden| sgd(golden, false))
}
