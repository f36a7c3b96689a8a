//! Whole networks, the contrastive loss and the optimisers against PyTorch, on every device. The files are made by
//! `tests/golden/generate.py` and described in `tests/golden/README.md`.

#[path = "../src/testing/devices.rs"]
mod devices;

use std::path::PathBuf;

use parallax::autograd::{self, Gradients, Tape, Var};
use parallax::device::kernels::HostSlice;
use parallax::device::{read_f32, read_scalar, upload_f32, upload_u32};
use parallax::nn::{Arch, Head, Mode, Parameter, ResNet, ResNetConfig, Stem};
use parallax::optim::{Adam, AdamOptions, Sgd, SgdOptions};
use parallax::{Device, Result, Tensor};
use safetensors::{Dtype, SafeTensors};

/// Of logits, absolute.
const LOGITS: f64 = 1e-4;
/// Of gradients and running statistics, by relative norm.
const RELATIVE_NORM: f64 = 1e-3;

/// One step of an optimiser.
type Update = Box<dyn FnMut(&Gradients) -> Result<()>>;

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

    /// Elements and shape, whatever the precision.
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
        upload_f32(device, &values, &shape)
    }

    fn upload_labels(&self, device: &Device) -> Result<Tensor> {
        let (values, shape) = self.numbers("labels");
        let values: Vec<u32> = values.into_iter().map(|v| v as u32).collect();
        upload_u32(device, &values, &shape)
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

/// An encoder with a ten-way head, holding the file's parameters, and the file's batch.
struct Classifier {
    device: Device,
    encoder: ResNet,
    head: Head,
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
        let encoder = ResNet::new(device, &config, 1)?;
        let head = Head::new(device, encoder.feature_width(), 10, 1)?;
        let classifier = Classifier {
            device: device.clone(),
            encoder,
            head,
            images: golden.upload(device, "input")?,
            labels: golden.upload_labels(device)?,
        };
        let parameters = classifier.parameters();
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
            device.overwrite(&parameter.value, HostSlice::F32(&values))?;
        }
        Ok(classifier)
    }

    fn parameters(&self) -> Vec<&Parameter> {
        let mut parameters = self.encoder.parameters();
        parameters.extend(self.head.parameters());
        parameters
    }

    fn logits(&self, tape: &Tape, images: &Var, mode: Mode) -> Result<Var> {
        let features = self.encoder.forward(tape, images, mode)?;
        self.head.forward(tape, &features)
    }

    fn read(&self, x: &Tensor) -> Result<Vec<f32>> {
        read_f32(&self.device, x)
    }

    /// One step's loss and gradients.
    fn step(&self) -> Result<(f32, Gradients)> {
        let tape = Tape::new(&self.device);
        let images = tape.constant(&self.images);
        let logits = self.logits(&tape, &images, Mode::Training)?;
        let loss = autograd::softmax_cross_entropy(&tape, &logits, &self.labels)?;
        let gradients = tape.backward(&loss)?;
        self.encoder.commit_running_statistics(None)?;
        Ok((read_scalar(&self.device, loss.tensor())?, gradients))
    }
}

/// Forward, backward, running statistics and evaluation of one batch.
fn first_step(file: &'static str, arch: Arch) -> Result<()> {
    let golden = Golden::open(file);
    for (name, device) in devices::unsliced() {
        let classifier = Classifier::new(&device, &golden, arch)?;
        let tape = Tape::new(&device);
        let images = tape.leaf(&classifier.images);
        let logits = classifier.logits(&tape, &images, Mode::Training)?;
        let apart =
            largest_difference(&classifier.read(logits.tensor())?, &golden.values("logits"));
        assert!(apart < LOGITS, "{name}: logits are {apart:.1e} apart");

        let loss = autograd::softmax_cross_entropy(&tape, &logits, &classifier.labels)?;
        let apart = f64::from(read_scalar(&device, loss.tensor())?) - golden.scalar("loss");
        assert!(
            apart.abs() < LOGITS,
            "{name}: the loss is {apart:.1e} apart"
        );

        let gradients = tape.backward(&loss)?;
        let gradient = |of: &Tensor| classifier.read(gradients.of(of).expect("in the graph"));
        let mut worst = (0.0, String::new());
        let mut compare = |what: String, found: Vec<f32>| {
            let apart = relative_norm(&found, &golden.values(&what));
            assert!(apart < RELATIVE_NORM, "{name}: {what} is {apart:.1e} apart");
            if apart > worst.0 {
                worst = (apart, what);
            }
        };
        compare("grad_input".to_string(), gradient(&classifier.images)?);
        for parameter in classifier.parameters() {
            let what = format!("grad.{}", parameter.name);
            compare(what, gradient(&parameter.value)?);
        }
        classifier.encoder.commit_running_statistics(None)?;
        for buffer in classifier.encoder.buffers() {
            let what = format!("running.{}", buffer.name);
            compare(what, classifier.read(&buffer.value)?);
        }
        println!(
            "{name}: farthest by relative norm: {} {:.1e}",
            worst.1, worst.0
        );

        let tape = Tape::inference(&device);
        let images = tape.constant(&classifier.images);
        let logits = classifier.logits(&tape, &images, Mode::Evaluation)?;
        let found = classifier.read(logits.tensor())?;
        let apart = largest_difference(&found, &golden.values("logits_eval"));
        assert!(
            apart < LOGITS,
            "{name}: evaluation logits are {apart:.1e} apart"
        );
    }
    Ok(())
}

/// The losses of ten steps against `OPTIMIZER_losses_f64`, each within the larger of 1e-3 of it, 1e-4, and four times
/// what torch's own f32 is away from it.
fn ten_losses(
    file: &'static str,
    arch: Arch,
    optimizer: &str,
    make_step: impl Fn(&Golden, &Classifier) -> Result<Update>,
) -> Result<()> {
    let golden = Golden::open(file);
    let exact = golden.values(&format!("{optimizer}_losses_f64"));
    let single = golden.values(&format!("{optimizer}_losses_f32"));
    assert_eq!((exact.len(), single.len()), (10, 10));
    for (name, device) in devices::unsliced() {
        let classifier = Classifier::new(&device, &golden, arch)?;
        let mut update = make_step(&golden, &classifier)?;
        let mut largest = 0f64;
        for (step, (exact, single)) in exact.iter().zip(&single).enumerate() {
            let (loss, gradients) = classifier.step()?;
            update(&gradients)?;
            let apart = (f64::from(loss) - exact).abs();
            let allowed = (1e-3 * exact).max(1e-4).max(4.0 * (single - exact).abs());
            assert!(
                apart < allowed,
                "{name}: step {step} of {optimizer}: loss {loss}, torch {exact}; {apart:.1e} apart, {allowed:.1e} allowed"
            );
            largest = largest.max(apart / exact);
        }
        println!("{name}: ten {optimizer} losses within {largest:.1e} of torch's in f64");
    }
    Ok(())
}

fn adam(golden: &Golden, classifier: &Classifier) -> Result<Update> {
    let mut adam = Adam::new(
        &classifier.device,
        &classifier.parameters(),
        adam_options(golden),
    )?;
    let learning_rate = golden.number("adam_lr") as f32;
    Ok(Box::new(move |gradients| {
        adam.step(learning_rate, gradients, None)
    }))
}

fn adam_options(golden: &Golden) -> AdamOptions {
    let betas = golden.setting("adam_betas");
    AdamOptions {
        beta1: betas[0].as_f64().expect("a number") as f32,
        beta2: betas[1].as_f64().expect("a number") as f32,
        eps: golden.number("adam_eps") as f32,
        weight_decay: golden.number("adam_weight_decay") as f32,
    }
}

fn sgd(golden: &Golden, classifier: &Classifier) -> Result<Update> {
    let mut sgd = Sgd::new(
        &classifier.device,
        &classifier.parameters(),
        sgd_options(golden, true),
    )?;
    let learning_rate = golden.number("sgd_lr") as f32;
    Ok(Box::new(move |gradients| {
        sgd.step(learning_rate, gradients, None)
    }))
}

fn sgd_options(golden: &Golden, nesterov: bool) -> SgdOptions {
    SgdOptions {
        momentum: golden.number("sgd_momentum") as f32,
        nesterov,
        weight_decay: golden.number("sgd_weight_decay") as f32,
    }
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
    ten_losses("resnet18.safetensors", Arch::ResNet18, "adam", adam)
}

#[test]
fn resnet18_ten_sgd_losses() -> Result<()> {
    ten_losses("resnet18.safetensors", Arch::ResNet18, "sgd", sgd)
}

#[test]
fn resnet50_ten_adam_losses() -> Result<()> {
    ten_losses("resnet50.safetensors", Arch::ResNet50, "adam", adam)
}

#[test]
fn resnet50_ten_sgd_losses() -> Result<()> {
    ten_losses("resnet50.safetensors", Arch::ResNet50, "sgd", sgd)
}

#[test]
fn nt_xent_and_its_gradient() -> Result<()> {
    let golden = Golden::open("ntxent.safetensors");
    for (name, device) in devices::unsliced() {
        for case in ["case0", "case1"] {
            let embeddings = golden.upload(&device, &format!("{case}.z"))?;
            let temperature = golden.number(&format!("{case}.temperature")) as f32;
            let tape = Tape::new(&device);
            let z = autograd::l2_normalize(&tape, &tape.leaf(&embeddings), 1e-12)?;
            let loss = autograd::nt_xent(&tape, &z, temperature)?;
            let gradients = tape.backward(&loss)?;
            let exact = golden.scalar(&format!("{case}.loss"));
            let apart = (f64::from(read_scalar(&device, loss.tensor())?) - exact).abs();
            assert!(
                apart < 1e-5 * exact,
                "{name}, {case}: the loss is {apart:.1e} apart"
            );
            let gradient = read_f32(&device, gradients.of(&embeddings).expect("in the graph"))?;
            let apart = relative_norm(&gradient, &golden.values(&format!("{case}.grad")));
            assert!(
                apart < 1e-5,
                "{name}, {case}: the gradient is {apart:.1e} apart"
            );
        }
    }
    Ok(())
}

/// A gradient that is exactly `values` for a parameter of that shape.
fn gradients_equal_to(device: &Device, parameter: &Parameter, values: &[f32]) -> Result<Gradients> {
    let tape = Tape::new(device);
    let x = tape.leaf(&parameter.value);
    let dy = upload_f32(device, values, parameter.value.shape())?;
    tape.backward_from(&x, &dy)
}

/// Runs five updates with the file's gradients and compares the parameters after each with torch's in f64.
fn optimizer_path(
    optimizer: &str,
    make_step: impl Fn(&Golden, &Device, &Parameter) -> Result<Update>,
) -> Result<()> {
    let golden = Golden::open("optimizers.safetensors");
    let start: Vec<f32> = golden.values("initial").iter().map(|&v| v as f32).collect();
    let gradients = golden.values("gradients");
    let expected = golden.values(&format!("{optimizer}.params_f64"));
    let length = start.len();
    assert_eq!(gradients.len(), expected.len());
    for (name, device) in devices::unsliced() {
        let parameter = Parameter::new(&device, "p".to_string(), &start, &[length])?;
        let mut update = make_step(&golden, &device, &parameter)?;
        for (step, gradient) in gradients.chunks(length).enumerate() {
            let gradient: Vec<f32> = gradient.iter().map(|&v| v as f32).collect();
            update(&gradients_equal_to(&device, &parameter, &gradient)?)?;
            let found = read_f32(&device, &parameter.value)?;
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
fn adam_follows_torch() -> Result<()> {
    optimizer_path("adam", |golden, device, parameter| {
        let mut adam = Adam::new(device, &[parameter], adam_options(golden))?;
        let learning_rate = golden.number("adam_lr") as f32;
        Ok(Box::new(move |gradients| {
            adam.step(learning_rate, gradients, None)
        }))
    })
}

#[test]
fn sgd_follows_torch_with_and_without_nesterov() -> Result<()> {
    for (optimizer, nesterov) in [("sgd_nesterov", true), ("sgd_momentum", false)] {
        optimizer_path(optimizer, |golden, device, parameter| {
            let mut sgd = Sgd::new(device, &[parameter], sgd_options(golden, nesterov))?;
            let learning_rate = golden.number("sgd_lr") as f32;
            Ok(Box::new(move |gradients| {
                sgd.step(learning_rate, gradients, None)
            }))
        })?;
    }
    Ok(())
}
