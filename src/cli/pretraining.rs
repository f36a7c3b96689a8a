//! Shared parts of the pretraining commands: their arguments, the run, and the printed results.

use std::path::PathBuf;

use clap::Args;

use super::arguments::{
    CheckpointArguments, DataArguments, NetworkArguments, RunArguments, TuningArguments,
};
use super::device_choice::open;
use crate::data::DataKind;
use crate::error::{Error, Result};
use crate::nn::ResNetConfig;
use crate::objectives::Protocol;
use crate::runs::pretrain::{Pretext, PretrainingRequest, run as run_experiment};
use crate::runs::result::PretrainingSummary;

/// The flags of every pretraining.
#[derive(Args)]
pub struct PretrainingArguments {
    #[command(flatten)]
    data: DataArguments,

    #[command(flatten)]
    network: NetworkArguments,

    /// Training steps [default: 150 on shapes, else 5000]
    #[arg(long)]
    steps: Option<u64>,

    /// Start from the encoder of this safetensors file (torchvision's names), or none
    #[arg(long, value_name = "FILE|none")]
    init: Option<String>,

    /// Skip the nearest-neighbour evaluation, which passes all images through two encoders
    #[arg(long)]
    no_knn: bool,

    /// Images that pass the network at a time: the gradients are still those of the whole batch, in less memory and
    /// more time; the statistics of batch norm are each chunk's own [default: the batch size]
    #[arg(long, value_name = "IMAGES")]
    pub micro_batch: Option<usize>,

    #[command(flatten)]
    pub run: RunArguments,

    #[command(flatten)]
    checkpoints: CheckpointArguments,

    #[command(flatten)]
    tuning: TuningArguments,
}

impl PretrainingArguments {
    pub fn on_shapes(&self) -> bool {
        self.data.data == DataKind::Shapes
    }

    /// Pretrains on the task that `pretext` returns, in batches of `batch_size` images, and prints
    /// the results. RotNet's accuracy is measured on the fraction `rotation_images` of the test
    /// images.
    pub fn train(
        &self,
        batch_size: usize,
        rotation_images: f64,
        pretext: impl FnOnce(ResNetConfig) -> Pretext,
    ) -> Result<()> {
        let (run, checkpoints) = (&self.run, &self.checkpoints);
        run.stop.listen()?;
        let steps = self
            .steps
            .unwrap_or(if self.on_shapes() { 150 } else { 5000 });
        if steps == 0 {
            return Err(Error::usage("--steps is 0; train for 1 step or more"));
        }
        checkpoints.check_steps(steps)?;
        let init = init(run.protocol, self.init.as_deref())?;
        // Said before any data is read.
        let pretext = pretext(self.network.config(self.data.data)?);
        let dataset = self.data.load(run.seed)?;
        let images = dataset.pretraining().len();
        if batch_size > images {
            return Err(Error::usage(format!(
                "--batch-size {batch_size} is larger than the {images} images of {}",
                dataset.name
            )));
        }
        pretext.check_micro_batch(&dataset)?;
        let rotation_test = match rotation_images {
            1.0 => None,
            part => Some(dataset.test_part(part, run.seed).map_err(|error| {
                Error::usage(format!("--rotation-images {part} cannot be drawn: {error}"))
            })?),
        };
        let chosen = open(&run.device)?;
        checkpoints.check_precision(&chosen.device)?;
        pretext
            .step_size(&dataset, checkpoints.recompute, checkpoints.precision)?
            .check(&chosen.device, &|| open(&run.device).map(|c| c.device))?;
        let folder = run.start(pretext.command(), (self.data.data, &dataset), &chosen)?;
        self.tuning
            .prepare(&chosen, &folder, || pretext.trained_network(&dataset))?;
        let request = PretrainingRequest {
            protocol: run.protocol,
            pretext,
            steps,
            save_every: checkpoints.save_every,
            checkpoint_every: checkpoints.checkpoint_every(),
            recompute: checkpoints.recompute,
            precision: checkpoints.precision,
            profile: checkpoints.profile,
            init,
            knn: !self.no_knn,
            rotation_test,
            data: self.data.data,
            dataset,
        };
        print(&run_experiment(&chosen.device, &request, folder)?);
        Ok(())
    }
}

/// The file of `--init`; the paper's protocol wants the start to be named.
fn init(protocol: Protocol, word: Option<&str>) -> Result<Option<PathBuf>> {
    match (protocol, word) {
        (Protocol::Paper, None) => Err(Error::usage(
            "--protocol paper starts from ImageNet weights: give --init FILE.safetensors, or --init none to start \
             from random ones and have every result say so",
        )),
        (_, None | Some("none")) => Ok(None),
        (_, Some(file)) => Ok(Some(PathBuf::from(file))),
    }
}

fn print(summary: &PretrainingSummary) {
    println!(
        "loss    {:.4} at the end, {:.4} at the start, {:.4} by chance",
        summary.final_loss, summary.first_loss, summary.chance_loss
    );
    if let (Some(accuracy), Some(images)) = (summary.rotation_accuracy, summary.rotation_images) {
        println!(
            "rotation accuracy on {images} test images: {:.1} %, 25 % by chance",
            100.0 * accuracy
        );
    }
    if let (Some(k), Some(trained), Some(untrained)) =
        (summary.knn_k, summary.knn_top1, summary.knn_top1_untrained)
    {
        println!(
            "k-nearest-neighbour accuracy (k = {k}): {:.1} %, untrained encoder {:.1} %",
            100.0 * trained,
            100.0 * untrained
        );
    }
    println!(
        "speed   {:.1} images/s, {:.0} s of training, {:.0} s in all, peak {} MiB",
        summary.images_per_second,
        summary.seconds,
        summary.total_seconds,
        summary.peak_bytes >> 20
    );
}
