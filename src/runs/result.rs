//! The results of a run, stored as `summary.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::record::Facts;
use super::spec::RunSpec;
use super::training::{Plan, Trained};
use super::weights_file::Loaded;
use crate::data::Dataset;
use crate::evaluate::knn;
use crate::evaluate::metrics::Metrics;
use crate::evaluate::online::Sample;
use crate::nn::Normalization;
use crate::tensor::DType;

fn f32() -> String {
    DType::F32.to_string()
}

fn knn_temperature() -> f64 {
    knn::TEMPERATURE
}

/// How an accuracy was measured. Accuracies can be compared if these values and the images are
/// equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccuracyProtocol {
    /// `nearest neighbours`, `linear layer`, `classifier` or `rotations`.
    pub method: String,
    /// Whether it was measured during the training, on a sample of the images.
    pub online: bool,
    /// Number of neighbours that vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
    /// Temperature T of the vote: a neighbour of cosine similarity s has the weight exp(s / T).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Side in pixels of the network's input images: their height, if they are not square.
    pub resolution: usize,
    /// How their pixels were normalised.
    pub normalization: String,
    /// Number of labelled training images that vote, or that a classifier was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_images: Option<usize>,
    pub test_images: usize,
}

impl AccuracyProtocol {
    /// The protocol of an accuracy that is measured after the training.
    pub fn offline(method: &str, resolution: usize, normalization: Normalization) -> Self {
        AccuracyProtocol {
            method: method.to_string(),
            online: false,
            k: None,
            temperature: None,
            resolution,
            normalization: normalization.to_string(),
            train_images: None,
            test_images: 0,
        }
    }

    /// The same protocol with these numbers of images.
    pub fn on(self, train_images: Option<usize>, test_images: usize) -> Self {
        AccuracyProtocol {
            train_images,
            test_images,
            ..self
        }
    }

    /// The protocol of a nearest-neighbour evaluation on all images of `dataset`.
    pub fn neighbours(
        dataset: &Dataset,
        (k, temperature): (usize, f64),
        resolution: usize,
        normalization: Normalization,
    ) -> Self {
        AccuracyProtocol {
            k: Some(k),
            temperature: Some(temperature),
            ..Self::offline(NEIGHBOURS, resolution, normalization)
                .on(Some(dataset.train.len()), dataset.test.len())
        }
    }

    /// The protocol of a nearest-neighbour evaluation during the training.
    pub fn online(sample: &Sample, normalization: Normalization) -> Self {
        AccuracyProtocol {
            online: true,
            k: Some(sample.k()),
            temperature: Some(sample.temperature),
            ..Self::offline(NEIGHBOURS, sample.resolution, normalization)
                .on(Some(sample.bank.len()), sample.queries.len())
        }
    }
}

const NEIGHBOURS: &str = "nearest neighbours";

impl fmt::Display for AccuracyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.method)?;
        if let (Some(k), Some(temperature)) = (self.k, self.temperature) {
            write!(f, ", k = {k}, temperature {temperature}")?;
        }
        write!(
            f,
            ", {} pixels, normalisation {}",
            self.resolution, self.normalization
        )?;
        if let Some(images) = self.train_images {
            write!(f, ", {images} training images")?;
        }
        write!(f, ", {} test images", self.test_images)?;
        f.write_str(if self.online { ", online" } else { ", offline" })
    }
}

/// The protocols of the accuracies of a summary, by their key in it.
pub type Evaluations = BTreeMap<String, AccuracyProtocol>;

/// The key of the accuracy of nearest neighbours during a training.
pub const ONLINE_TOP1: &str = "online_knn_top1";

/// The result of a run, as stored in `summary.json`: the values of every run, and the metrics of
/// its command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult<M> {
    pub command: String,
    /// The protocol, and under `paper` the initial weights of the encoder. Earlier versions did not
    /// record it, nor the network, for `knn`.
    #[serde(default)]
    pub protocol: String,
    /// The data set's own name.
    pub data: String,
    pub device: String,
    #[serde(default)]
    pub arch: String,
    #[serde(default)]
    pub width: f64,
    pub seed: u64,
    /// Tensors of the network that were not in the file of weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_random: Vec<String>,
    #[serde(flatten)]
    pub metrics: M,
    /// How each accuracy was measured, by its key. Earlier versions did not record it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evaluations: Evaluations,
    /// Seconds of the whole run: loading, training and evaluations.
    pub total_seconds: f64,
    pub parallax_version: String,
}

impl<M> RunResult<M> {
    /// The result of the run `spec`, which began at `started`. `evaluations` are protocols in
    /// addition to those of `facts`.
    pub fn new(
        spec: &RunSpec,
        facts: Facts,
        started: Instant,
        evaluations: impl IntoIterator<Item = (&'static str, AccuracyProtocol)>,
        metrics: M,
    ) -> Self {
        let evaluations = evaluations.into_iter();
        let evaluations = evaluations.map(|(key, protocol)| (key.to_string(), protocol));
        RunResult {
            command: spec.command().to_string(),
            protocol: spec.common.protocol.to_string(),
            data: facts.data.name,
            device: facts.device,
            arch: facts.encoder.arch,
            width: facts.encoder.width,
            seed: spec.common.seed,
            kept_random: facts.weights.kept_random,
            metrics,
            evaluations: facts.evaluations.into_iter().chain(evaluations).collect(),
            total_seconds: started.elapsed().as_secs_f64(),
            parallax_version: facts.versions.parallax,
        }
    }

    /// The same result with other metrics.
    pub fn map<N>(self, metrics: impl FnOnce(M) -> N) -> RunResult<N> {
        RunResult {
            command: self.command,
            protocol: self.protocol,
            data: self.data,
            device: self.device,
            arch: self.arch,
            width: self.width,
            seed: self.seed,
            kept_random: self.kept_random,
            metrics: metrics(self.metrics),
            evaluations: self.evaluations,
            total_seconds: self.total_seconds,
            parallax_version: self.parallax_version,
        }
    }
}

/// Measurements of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingMetrics {
    pub batch_size: usize,
    /// Element type of activations: f32 (earlier versions had no choice) or f16.
    #[serde(default = "f32")]
    pub precision: String,
    pub steps: u64,
    /// The chance level of the loss: ln(2N - 1) for SimCLR, ln(4) for RotNet, and the logarithm of
    /// the number of classes for a training on labels.
    pub chance_loss: f64,
    pub first_loss: f32,
    /// The loss of the last step.
    pub final_loss: f32,
    /// The mean loss of the last ten steps, or of all steps if there are fewer.
    pub final_loss_mean: f64,
    /// Seconds of training alone, from the first step to the last loss.
    pub seconds: f64,
    /// Training images (not views) per second, over all steps.
    pub images_per_second: f64,
    /// Peak bytes held for tensors during training.
    pub peak_bytes: u64,
}

impl TrainingMetrics {
    /// The metrics of a training that followed `plan`.
    pub fn new(plan: &Plan, trained: &Trained, precision: String) -> Self {
        let losses = &trained.losses;
        TrainingMetrics {
            batch_size: plan.images_per_step,
            precision,
            steps: losses.len() as u64,
            chance_loss: plan.chance_loss,
            first_loss: losses.first().copied().unwrap_or(f32::NAN),
            final_loss: losses.last().copied().unwrap_or(f32::NAN),
            final_loss_mean: final_mean(losses).unwrap_or(f64::NAN),
            seconds: trained.seconds,
            images_per_second: trained.images_per_second(plan),
            peak_bytes: trained.peak_bytes,
        }
    }
}

/// The metrics of a pretraining.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainingMetrics {
    pub stem: String,
    /// Floating-point operations of a step: three times the encoder's forward pass over every view.
    pub flops_per_step: u64,
    #[serde(flatten)]
    pub training: TrainingMetrics,
    /// For RotNet: the fraction of the test images, in all four rotations, whose rotation is
    /// predicted correctly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_accuracy: Option<f64>,
    /// The number of these images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_images: Option<usize>,
    /// The nearest-neighbour evaluation. These three fields are `None` if it was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn_k: Option<usize>,
    /// The fraction of the test images that is classified correctly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn_top1: Option<f64>,
    /// The same for the encoder before training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn_top1_untrained: Option<f64>,
    /// The last accuracy of nearest neighbours during the training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online_knn_top1: Option<f64>,
    /// Classes without test images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_classes: Vec<String>,
    /// As [`TrainingMetrics::peak_bytes`], over the whole run.
    pub peak_bytes_total: u64,
}

/// The metrics of a training on labels, from scratch or from a pretrained encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassificationMetrics {
    /// The encoder that was fine-tuned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// The fraction of the training labels that was used.
    pub label_fraction: f64,
    pub labelled_images: usize,
    pub epochs: f64,
    #[serde(flatten)]
    pub training: TrainingMetrics,
    /// On all test images.
    #[serde(rename = "metrics")]
    pub test: Metrics,
}

/// The origin of a pretrained encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    pub file: String,
    /// The command that pretrained it.
    pub command: String,
    pub protocol: String,
    pub data: String,
    pub seed: u64,
    pub steps: u64,
    pub batch_size: usize,
    /// For a classifier, the fraction of the labels that it was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_fraction: Option<f64>,
    /// For a fine-tuned classifier, the command that pretrained its encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained_by: Option<String>,
}

impl Start {
    pub fn new(Loaded { source, origin, .. }: &Loaded) -> Self {
        Start {
            file: source.clone(),
            command: origin.command.clone(),
            protocol: origin.protocol.clone(),
            data: origin.data.clone(),
            seed: origin.seed,
            steps: origin.step,
            batch_size: origin.batch_size,
            label_fraction: origin.label_fraction,
            pretrained_by: origin.pretrained_by.clone(),
        }
    }
}

/// The metrics of a linear evaluation, on the pretraining's data set or another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearMetrics {
    pub start: Start,
    /// SHA-256 of the encoder's parameters and running statistics, the same before and after.
    pub encoder_digest: String,
    pub label_fraction: f64,
    pub labelled_images: usize,
    pub resolution: usize,
    pub epochs: u64,
    /// The mean training loss over the last epoch.
    pub final_loss: f64,
    /// On all test images.
    #[serde(rename = "metrics")]
    pub test: Metrics,
}

/// The metrics of a nearest-neighbour evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnnMetrics {
    /// The file of the encoder.
    pub encoder: String,
    /// Side in pixels of the encoder's input images, if they were resized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<usize>,
    /// The names of the classes, in the order of their labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Classes without held-out images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_classes: Vec<String>,
    /// Number of neighbours that vote.
    pub knn_k: usize,
    /// Temperature T of the vote: a neighbour of cosine similarity s has the weight exp(s / T).
    #[serde(default = "knn_temperature")]
    pub knn_temperature: f64,
    /// Fraction of the held-out images that are classified correctly.
    pub knn_top1: f64,
}

/// The accuracy of a classifier under an attack of several strengths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttackMetrics {
    /// The classifier.
    pub start: Start,
    /// `fgsm` or `pgd`.
    pub method: String,
    /// Number of PGD steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iterations: Option<u32>,
    /// The unit of eps.
    pub units: String,
    pub images: usize,
    /// The names of the classes, in the order of their labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Classes without held-out images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_classes: Vec<String>,
    pub clean_top1: f64,
    pub curve: Vec<AttackPoint>,
    /// The images of `attack.svg` at the last eps, one per row.
    pub pictured: Vec<PicturedImage>,
}

/// One strength of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttackPoint {
    pub eps: f64,
    pub top1: f64,
}

/// The class and the predictions of an image of `attack.svg`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PicturedImage {
    pub class: String,
    pub predicted_clean: String,
    pub predicted_adversarial: String,
}

/// NT-Xent's loss if all similarities are equal: ln(2N - 1) for N = `batch_size` images.
pub fn chance_loss(batch_size: usize) -> f64 {
    ((2 * batch_size - 1) as f64).ln()
}

/// The mean of the last ten losses, or of all if there are fewer; `None` if there are none.
pub fn final_mean(losses: &[f32]) -> Option<f64> {
    let last = &losses[losses.len().saturating_sub(10)..];
    (!last.is_empty()).then(|| last.iter().map(|&l| f64::from(l)).sum::<f64>() / last.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chance levels that the paper's batch sizes have.
    #[test]
    fn chance_is_as_published() {
        for (batch, chance) in [
            (32, 4.14),
            (64, 4.84),
            (128, 5.54),
            (256, 6.24),
            (512, 6.93),
        ] {
            assert!((chance_loss(batch) - chance).abs() < 0.005, "{batch}");
        }
    }

    #[test]
    fn the_final_mean_is_of_the_last_ten() {
        assert_eq!(final_mean(&[]), None);
        assert_eq!(final_mean(&[1.0, 3.0]), Some(2.0));
        let losses: Vec<f32> = (0..100).map(|i| i as f32).collect();
        assert_eq!(final_mean(&losses), Some(94.5));
    }
}
