//! `parallax simclr`: pretraining and a nearest-neighbour evaluation.

use clap::Args;

use super::arguments::{not_negative, positive, whole};
use super::pretraining::PretrainingArguments;
use crate::error::Result;
use crate::objectives::simclr::SimClrSettings;
use crate::runs::pretrain::Pretext;

/// Pretrain an encoder with SimCLR, then evaluate it by its nearest neighbours
///
/// Without flags it trains a small ResNet-18 on generated shapes, on the best device there is.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pretraining: PretrainingArguments,

    /// Images a step; each gives two views [default: 64 on shapes, else 128]
    #[arg(long, value_parser = whole::<usize>(1..=u64::MAX))]
    batch_size: Option<usize>,

    /// Adam's learning rate
    #[arg(long, default_value = "0.001", value_parser = positive)]
    learning_rate: f64,

    /// L2, added to the gradient (the paper's protocol does not apply it)
    #[arg(long, default_value = "0.000001", value_parser = not_negative)]
    weight_decay: f64,

    /// NT-Xent's temperature
    #[arg(long, default_value = "0.5", value_parser = positive)]
    temperature: f64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let pretraining = &arguments.pretraining;
    let default = if pretraining.on_shapes() { 64 } else { 128 };
    let batch_size = arguments.batch_size.unwrap_or(default);
    pretraining.train(batch_size, 1.0, |encoder| {
        let mut settings = SimClrSettings::of_protocol(
            pretraining.run.protocol,
            encoder,
            pretraining.view_size(),
            batch_size,
            arguments.weight_decay as f32,
            pretraining.run.seed,
        );
        settings.optimization.learning_rate = arguments.learning_rate;
        settings.micro_batch = pretraining.micro_batch;
        settings.temperature = arguments.temperature as f32;
        Pretext::SimClr(settings)
    })
}
