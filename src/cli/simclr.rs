//! `parallax simclr`: pretraining and a nearest-neighbour judgement.

use std::path::PathBuf;

use clap::Args;

use super::arguments::{
    CheckpointArguments, DataArguments, NetworkArguments, RunArguments, at_least_one_step,
    batch_fits, not_negative, positive,
};
use super::pretraining::{init, print};
use crate::data::DataKind;
use crate::error::Result;
use crate::experiment::pretraining::{Pretext, PretrainingRequest, run as run_experiment};
use crate::optim::Optimization;
use crate::pretext::simclr::SimClrSettings;

/// Pretrain an encoder with SimCLR, then judge it by its nearest neighbours
///
/// Without flags it trains a small ResNet-18 on generated shapes, on the best device there is.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    data: DataArguments,

    #[command(flatten)]
    network: NetworkArguments,

    /// Images a step; each gives two views [default: 64 on shapes, else 128]
    #[arg(long)]
    batch_size: Option<usize>,

    /// Training steps [default: 150 on shapes, else 5000]
    #[arg(long)]
    steps: Option<u64>,

    /// Adam's learning rate
    #[arg(long, default_value = "0.001", value_parser = positive)]
    learning_rate: f64,

    /// L2, added to the gradient (the paper's protocol does not apply it)
    #[arg(long, default_value = "0.000001", value_parser = not_negative)]
    weight_decay: f64,

    /// NT-Xent's temperature
    #[arg(long, default_value = "0.5", value_parser = positive)]
    temperature: f64,

    /// Start from the encoder of this safetensors file (torchvision's names), or none
    #[arg(long, value_name = "FILE|none")]
    init: Option<String>,

    #[command(flatten)]
    run: RunArguments,

    #[command(flatten)]
    checkpoints: CheckpointArguments,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { data, run, .. } = arguments;
    let on_shapes = data.data == DataKind::Shapes;
    let steps = at_least_one_step(
        arguments
            .steps
            .unwrap_or(if on_shapes { 150 } else { 5000 }),
    )?;
    let init: Option<PathBuf> = init(run.protocol, arguments.init.as_deref())?;
    // Said before any data is read.
    let encoder = arguments.network.config(data.data)?;
    let dataset = data.load(run.seed)?;
    let batch_size = arguments
        .batch_size
        .unwrap_or(if on_shapes { 64 } else { 128 });
    let settings = SimClrSettings::of_protocol(
        run.protocol,
        encoder,
        32,
        batch_size,
        arguments.weight_decay as f32,
        run.seed,
    );
    let settings = SimClrSettings {
        optimization: Optimization {
            learning_rate: arguments.learning_rate,
            ..settings.optimization
        },
        temperature: arguments.temperature as f32,
        ..settings
    };
    batch_fits(batch_size, dataset.pretraining().len(), &dataset)?;
    let checkpoints = &arguments.checkpoints;
    let (chosen, folder) =
        run.start_or_resume("simclr", &dataset, data.data, checkpoints.resume)?;
    let request = PretrainingRequest {
        protocol: run.protocol,
        pretext: Pretext::SimClr(settings),
        steps,
        save_every: checkpoints.save_every,
        checkpoint_every: checkpoints.checkpoint_every(),
        init,
        data: data.data,
        dataset,
    };
    print(&run_experiment(&chosen.device, &request, folder)?);
    Ok(())
}
