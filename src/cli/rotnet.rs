//! `parallax rotnet`: pretraining by telling rotations, and a nearest-neighbour judgement.

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
use crate::pretext::rotnet::RotNetSettings;

/// Pretrain an encoder with RotNet, then judge it by its nearest neighbours
///
/// Each image of a batch is seen under all four rotations. The paper's protocol takes the ImageNet stem, 1/15 of the work.
/// The generated shapes are drawn under any rotation, so that there is little to tell on them.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    data: DataArguments,

    #[command(flatten)]
    network: NetworkArguments,

    /// Images a step; each is seen under four rotations [default: 32 on shapes, else 128]
    #[arg(long)]
    batch_size: Option<usize>,

    /// Training steps [default: 150 on shapes, else 5000]
    #[arg(long)]
    steps: Option<u64>,

    /// The learning rate of SGD with Nesterov momentum 0.9
    #[arg(long, default_value = "0.01", value_parser = positive)]
    learning_rate: f64,

    /// L2, added to the gradient
    #[arg(long, default_value = "0.0005", value_parser = not_negative)]
    weight_decay: f64,

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
    let init = init(run.protocol, arguments.init.as_deref())?;
    let encoder = arguments.network.config(data.data)?;
    let dataset = data.load(run.seed)?;
    let batch_size = arguments
        .batch_size
        .unwrap_or(if on_shapes { 32 } else { 128 });
    let settings = RotNetSettings::of_protocol(
        run.protocol,
        encoder,
        batch_size,
        arguments.weight_decay as f32,
        run.seed,
    );
    let settings = RotNetSettings {
        optimization: Optimization {
            learning_rate: arguments.learning_rate,
            ..settings.optimization
        },
        ..settings
    };
    batch_fits(batch_size, dataset.pretraining().len(), &dataset)?;
    let checkpoints = &arguments.checkpoints;
    let (chosen, folder) =
        run.start_or_resume("rotnet", &dataset, data.data, checkpoints.resume)?;
    let request = PretrainingRequest {
        protocol: run.protocol,
        pretext: Pretext::RotNet(settings),
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
