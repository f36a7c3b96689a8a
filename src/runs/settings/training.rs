//! Settings of the commands that train a network.

use std::path::Path;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Common, EncoderSettings, Given, NormalizationSetting, PretrainedEncoder, replace};
use crate::data::DataKind;
use crate::error::Result;
use crate::optim::{OptimizerOptions, Schedule};
use crate::runs::values::{count, fraction, not_negative, positive, precision, schedule, whole};
use crate::tensor::DType;

/// Settings of every training of a network: memory, checkpoints and profiles.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Training")]
pub struct TrainingSettings {
    /// Process the batch in chunks of this many images, which needs less memory and more time. The
    /// loss is that of the whole batch; batch norm uses the statistics of each chunk [default: the
    /// batch size]
    #[arg(long, value_name = "IMAGES", value_parser = whole::<usize>(0..=u64::MAX))]
    pub micro_batch: Option<usize>,

    /// Element type of activations during training: f32, or f16 with half the memory. Sums, weights
    /// and the optimiser's state stay f32. With f16, the loss is scaled so that small gradients do
    /// not underflow
    #[arg(long, value_name = "f32|f16", default_value = "f32", value_parser = precision)]
    pub precision: DType,

    /// Precision of the factors in f32 matrix products and convolutions during training: f32, or
    /// f16, so that a GPU can use its matrix units. Sums stay f32, and the loss is scaled. Like
    /// PyTorch's TF32 switch; each product has a relative error of at most 2^-10
    #[arg(long, value_name = "f32|f16", default_value = "f32", value_parser = precision)]
    pub matmul_precision: DType,

    /// Under mpirun, on computes the statistics of batch norm over all ranks, off over the images
    /// of each rank [default: on; off with --protocol paper]
    #[arg(long, value_name = "on|off")]
    pub sync_batch_norm: Option<Switch>,

    /// Save only the inputs of the network's blocks, and recompute the other activations in the
    /// backward pass. Needs less memory and up to a third more time; the weights are bitwise the
    /// same
    #[arg(long)]
    pub recompute: bool,

    /// Save the network after every STEPS steps
    #[arg(long, value_name = "STEPS", value_parser = count::<u64>)]
    pub save_every: Option<u64>,

    /// With --save-every, also save the optimiser's state, as checkpoint-stepN.safetensors, so that
    /// verify can repeat the steps that follow
    #[arg(long, requires = "save_every")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_checkpoints: bool,

    /// Minimum number of seconds between two checkpoints
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = whole::<u64>(0..=u64::MAX))]
    pub checkpoint_every: u64,

    /// Measure the time of each kernel in the first eight steps. Prints a table, and writes
    /// profile.json, a Chrome trace, to the run folder
    #[arg(long)]
    pub profile: bool,

    /// Write TensorBoard's files to the run folder: the metrics of each step, views and nearest
    /// neighbours as images, and features for the projector
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tensorboard: bool,
}

/// A setting that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    On,
    Off,
}

impl TrainingSettings {
    /// Whether products of f32 round their factors to f16.
    pub fn rounds_factors(&self) -> bool {
        self.matmul_precision == DType::F16
    }

    /// The types of activations and of the factors of products, for results.
    pub fn precision_label(&self) -> String {
        if self.rounds_factors() {
            format!("{}, products {}", self.precision, self.matmul_precision)
        } else {
            self.precision.to_string()
        }
    }

    /// Whether some products have f16 factors, so that matrix units can compute them.
    pub fn has_f16_factors(&self) -> bool {
        self.precision == DType::F16 || self.rounds_factors()
    }
}

/// An update rule of `--optimizer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    Adam,
    // The configuration of a run has the optimiser's name in full.
    #[value(alias = "sgd-nesterov")]
    Sgd,
    Lars,
}

/// The update rule of a training, and how its learning rate changes.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize)]
#[command(next_help_heading = "Training")]
pub struct OptimizerSettings {
    /// adam, sgd (Nesterov momentum 0.9), or lars (momentum 0.9, trust coefficient 0.001; biases
    /// and batch norms have neither trust ratio nor weight decay) [default: adam with simclr,
    /// otherwise sgd]
    #[arg(long, value_name = "adam|sgd|lars")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Rule>,

    /// Learning-rate schedule: constant, cosine (to 0 at the last step), or step:A,BxG (multiplied
    /// by G, 0.1 if not given, at steps A and B) [default: constant; with --protocol paper, divided
    /// by 10 every 1000 steps]
    #[arg(long = "schedule", value_name = "constant|cosine|step:A,BxG", value_parser = schedule)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<String>,

    /// Steps over which the learning rate rises linearly at the start [default: none]
    #[arg(long, value_name = "STEPS", value_parser = whole::<u64>(0..=u64::MAX))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<u64>,
}

impl OptimizerSettings {
    /// The update rule, which has the weight decay of `default`, the rule of the command.
    pub fn rule(&self, default: OptimizerOptions) -> OptimizerOptions {
        let weight_decay = default.weight_decay();
        match self.optimizer {
            None => default,
            Some(Rule::Adam) => OptimizerOptions::adam(weight_decay),
            Some(Rule::Lars) => OptimizerOptions::lars(weight_decay),
            Some(Rule::Sgd) => OptimizerOptions::nesterov(weight_decay),
        }
    }

    /// The schedule of a training of `steps` steps. `default` is that of the protocol.
    ///
    /// # Errors
    /// As [`Schedule::parse`].
    pub fn schedule(&self, default: Schedule, steps: u64) -> Result<Schedule> {
        let warmup = self.warmup.unwrap_or(0);
        match &self.decay {
            None if warmup == 0 => Ok(default),
            words => Schedule::parse(words.as_deref().unwrap_or("constant"), warmup, steps),
        }
    }

    /// The default of the learning rate: that of the command for its own rule.
    fn default_rate(&self, own: (Rule, f64), sgd: f64, batch_size: usize) -> f64 {
        match self.optimizer {
            None => own.1,
            Some(rule) if rule == own.0 => own.1,
            Some(Rule::Adam) => 1e-3,
            Some(Rule::Lars) => 0.3 * batch_size as f64 / 256.0,
            Some(Rule::Sgd) => sgd,
        }
    }
}

/// Settings of every pretraining, but for those of the training.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Run")]
pub struct Pretraining {
    /// Start from the encoder of this safetensors file (torchvision's names), or none
    #[arg(long, value_name = "FILE|none")]
    pub init: Option<String>,

    /// Skip the nearest-neighbour evaluation, which passes all images through two encoders
    #[arg(long)]
    pub no_knn: bool,

    /// Evaluate the encoder after every STEPS steps by nearest neighbours, on at most 1000 test and
    /// 5000 training images (fewer if they are larger than 96 x 96 pixels). The weights are bitwise
    /// the same as without it
    #[arg(long, value_name = "STEPS", value_parser = count::<u64>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u64>,

    #[command(flatten)]
    #[serde(flatten)]
    pub images: NormalizationSetting,

    #[command(flatten)]
    pub encoder: EncoderSettings,
}

impl Pretraining {
    /// The file of the initial weights.
    pub fn init(&self) -> Option<&Path> {
        let file = self.init.as_deref().filter(|&word| word != "none");
        file.map(Path::new)
    }
}

/// A pretraining with SimCLR.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
pub struct SimClr {
    #[command(flatten)]
    #[serde(flatten)]
    pub pretraining: Pretraining,

    #[command(flatten)]
    pub training: SimClrTraining,
}

/// How SimCLR trains.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Training")]
pub struct SimClrTraining {
    /// Training steps [default: 150 on shapes, else 5000]
    #[arg(long, default_value = "5000", value_parser = count::<u64>)]
    pub steps: u64,

    /// Images per step; each gives two views [default: 64 on shapes, else 128]
    #[arg(long, default_value = "128", value_parser = count::<usize>)]
    pub batch_size: usize,

    /// The learning rate [default: adam 0.001, sgd 0.05 B / 256, lars 0.3 B / 256, for a batch of B
    /// images]
    #[arg(long, default_value = "0.001", value_parser = positive)]
    pub learning_rate: f64,

    /// Weight decay, added to the gradient (ignored with --protocol paper)
    #[arg(long, default_value = "0.000001", value_parser = not_negative)]
    pub weight_decay: f64,

    /// Temperature of NT-Xent, SimCLR's loss
    #[arg(long, default_value = "0.5", value_parser = positive)]
    pub temperature: f64,

    /// Blur half of the views at random, by a Gaussian of 0.1 to 2 pixels
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub blur: bool,

    #[command(flatten)]
    #[serde(flatten)]
    pub optimization: OptimizerSettings,

    #[command(flatten)]
    #[serde(flatten)]
    pub every: TrainingSettings,
}

impl SimClr {
    pub(in crate::runs) fn complete(&mut self, common: &Common, given: Given<'_>) {
        self.pretraining.encoder.complete(common, given);
        if common.data.kind == DataKind::Shapes {
            replace(given("steps"), &mut self.training.steps, 150);
            replace(given("batch_size"), &mut self.training.batch_size, 64);
        }
        let (batch, training) = (self.training.batch_size, &mut self.training);
        let sgd = ClassifierTraining::default_rate(batch);
        let rate = training
            .optimization
            .default_rate((Rule::Adam, 1e-3), sgd, batch);
        replace(given("learning_rate"), &mut training.learning_rate, rate);
    }
}

/// A pretraining with RotNet.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
pub struct RotNet {
    #[command(flatten)]
    #[serde(flatten)]
    pub pretraining: Pretraining,

    #[command(flatten)]
    pub training: RotNetTraining,
}

/// How RotNet trains.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Training")]
pub struct RotNetTraining {
    /// Training steps [default: 150 on shapes, else 5000]
    #[arg(long, default_value = "5000", value_parser = count::<u64>)]
    pub steps: u64,

    /// Images per step; each is used in four rotations [default: 32 on shapes, else 128]
    #[arg(long, default_value = "128", value_parser = count::<usize>)]
    pub batch_size: usize,

    /// The learning rate [default: sgd 0.01, adam 0.001, lars 0.3 B / 256, for a batch of B images]
    #[arg(long, default_value = "0.01", value_parser = positive)]
    pub learning_rate: f64,

    /// Weight decay, added to the gradient
    #[arg(long, default_value = "0.0005", value_parser = not_negative)]
    pub weight_decay: f64,

    /// Fraction of the test images, the same for each class, for the rotation accuracy at the end
    #[arg(long = "rotation-images", value_name = "FRACTION", default_value = "1", value_parser = fraction)]
    pub rotation_fraction: f64,

    #[command(flatten)]
    #[serde(flatten)]
    pub optimization: OptimizerSettings,

    #[command(flatten)]
    #[serde(flatten)]
    pub every: TrainingSettings,
}

impl RotNet {
    pub(in crate::runs) fn complete(&mut self, common: &Common, given: Given<'_>) {
        self.pretraining.encoder.complete(common, given);
        if common.data.kind == DataKind::Shapes {
            replace(given("steps"), &mut self.training.steps, 150);
            replace(given("batch_size"), &mut self.training.batch_size, 32);
        }
        let (batch, training) = (self.training.batch_size, &mut self.training);
        let rate = training
            .optimization
            .default_rate((Rule::Sgd, 0.01), 0.01, batch);
        replace(given("learning_rate"), &mut training.learning_rate, rate);
    }
}

/// A training on labels from random weights.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Run")]
pub struct Supervised {
    #[command(flatten)]
    #[serde(flatten)]
    pub images: NormalizationSetting,

    #[command(flatten)]
    pub encoder: EncoderSettings,

    #[command(flatten)]
    pub training: ClassifierTraining,
}

impl Supervised {
    /// Without a length, it trains as long as the paper's attacked baseline.
    pub(in crate::runs) fn complete(&mut self, common: &Common, given: Given<'_>) {
        self.training.complete(given, 60);
        self.encoder.complete(common, given);
    }
}

/// A training on labels from a pretrained encoder.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
pub struct Finetune {
    #[command(flatten)]
    #[serde(flatten)]
    pub pretrained: PretrainedEncoder,

    #[command(flatten)]
    pub training: ClassifierTraining,
}

impl Finetune {
    pub(in crate::runs) fn complete(&mut self, given: Given<'_>) {
        let epochs = Finetune::paper_epochs(self.training.labels);
        self.training.complete(given, epochs);
    }

    /// The paper's epochs for a fraction of the labels.
    pub(crate) fn paper_epochs(labels: f64) -> u64 {
        if labels <= 0.01 {
            60
        } else if labels <= 0.1 {
            30
        } else {
            20
        }
    }
}

/// How an encoder and a linear layer are trained together on labels.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
#[command(next_help_heading = "Training")]
pub struct ClassifierTraining {
    /// Fraction of the training labels to use, the same for each class
    #[arg(long, value_name = "FRACTION", default_value = "1", value_parser = fraction)]
    pub labels: f64,

    /// Images per step; all labelled ones if there are fewer
    #[arg(long, default_value = "64", value_parser = count::<usize>)]
    pub batch_size: usize,

    /// Passes over the labelled images
    #[arg(long, conflicts_with = "steps", value_parser = count::<u64>)]
    pub epochs: Option<u64>,

    /// Training steps, in place of --epochs
    #[arg(long, value_parser = count::<u64>)]
    pub steps: Option<u64>,

    /// Stop once the mean loss of STEPS steps is not below that of the STEPS steps before them
    #[arg(long, value_name = "STEPS", value_parser = count::<u64>)]
    pub stop_when_flat: Option<u64>,

    /// The learning rate [default: sgd 0.05 B / 256, adam 0.001, lars 0.3 B / 256, for a batch of B
    /// images]
    #[arg(long, default_value = "0.0125", value_parser = positive)]
    pub learning_rate: f64,

    /// Weight decay, added to the gradient
    #[arg(long, default_value = "0", value_parser = not_negative)]
    pub weight_decay: f64,

    #[command(flatten)]
    #[serde(flatten)]
    pub optimization: OptimizerSettings,

    #[command(flatten)]
    #[serde(flatten)]
    pub every: TrainingSettings,
}

impl ClassifierTraining {
    fn complete(&mut self, given: Given<'_>, epochs: u64) {
        if self.steps.is_none() {
            self.epochs.get_or_insert(epochs);
        }
        let (own, batch) = (Self::default_rate(self.batch_size), self.batch_size);
        let rate = self.optimization.default_rate((Rule::Sgd, own), own, batch);
        replace(given("learning_rate"), &mut self.learning_rate, rate);
    }

    /// The default of `learning_rate`.
    pub fn default_rate(batch_size: usize) -> f64 {
        0.05 * batch_size as f64 / 256.0
    }
}

#[cfg(test)]
mod tests {
    use super::Finetune;

    #[test]
    fn epochs_are_the_papers() {
        assert_eq!([0.01, 0.1, 0.5].map(Finetune::paper_epochs), [60, 30, 20]);
    }
}
