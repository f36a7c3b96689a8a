//! `parallax rotnet`: pretraining by predicting rotations, and a nearest-neighbour evaluation.

use clap::Args;

use super::arguments::{fraction, not_negative, positive, whole};
use super::pretraining::PretrainingArguments;
use crate::error::Result;
use crate::objectives::rotnet::RotNetSettings;
use crate::runs::pretrain::Pretext;

/// Pretrain an encoder with RotNet, then evaluate it by its nearest neighbours
///
/// Each image of a batch is seen under all four rotations. The paper's protocol takes the ImageNet
/// stem, 1/15 of the work. The generated shapes are drawn under any rotation, so that there is
/// little to tell on them.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pretraining: PretrainingArguments,

    /// Images a step; each is seen under four rotations [default: 32 on shapes, else 128]
    #[arg(long, value_parser = whole::<usize>(1..=u64::MAX))]
    batch_size: Option<usize>,

    /// The learning rate of SGD with Nesterov momentum 0.9
    #[arg(long, default_value = "0.01", value_parser = positive)]
    learning_rate: f64,

    /// L2, added to the gradient
    #[arg(long, default_value = "0.0005", value_parser = not_negative)]
    weight_decay: f64,

    /// Fraction of the test images on which rotations are predicted at the end, the same
    /// fraction of each class
    #[arg(long, value_name = "FRACTION", default_value = "1", value_parser = fraction)]
    rotation_images: f64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let pretraining = &arguments.pretraining;
    let default = if pretraining.on_shapes() { 32 } else { 128 };
    let batch_size = arguments.batch_size.unwrap_or(default);
    pretraining.train(batch_size, arguments.rotation_images, |encoder| {
        let mut settings = RotNetSettings::of_protocol(
            pretraining.run.protocol,
            encoder,
            batch_size,
            arguments.weight_decay as f32,
            pretraining.run.seed,
        );
        settings.optimization.learning_rate = arguments.learning_rate;
        settings.micro_batch = pretraining.micro_batch;
        Pretext::RotNet(settings)
    })
}
