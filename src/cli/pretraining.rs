//! Shared parts of the pretraining commands: their arguments, the run, and the printed results.

use std::path::Path;

use clap::Args;

use super::arguments::{
    CheckpointArguments, DataArguments, NetworkArguments, RunArguments, TuningArguments, notice,
    notice_absent, whole,
};
use super::device_choice::open;
use crate::console::{self, say};
use crate::data::{DataKind, Dataset};
use crate::error::{Error, Result};
use crate::nn::ResNetConfig;
use crate::objectives::Protocol;
use crate::runs::image_size::check_image_size;
use crate::runs::pretrain::{Pretext, PretrainingRequest, run as run_experiment};
use crate::runs::result::PretrainingSummary;
use crate::runs::weights_file::WeightsFile;

/// Side in pixels of SimCLR's views without `--size`.
pub const VIEW_SIZE: usize = 32;

/// The flags of every pretraining.
#[derive(Args)]
pub struct PretrainingArguments {
    #[command(flatten)]
    data: DataArguments,

    #[command(flatten)]
    network: NetworkArguments,

    /// Training steps [default: 150 on shapes, else 5000]
    #[arg(long, value_parser = whole::<u64>(1..=u64::MAX))]
    steps: Option<u64>,

    /// Start from the encoder of this safetensors file (torchvision's names), or none
    #[arg(long, value_name = "FILE|none")]
    init: Option<String>,

    /// Skip the nearest-neighbour evaluation, which passes all images through two encoders
    #[arg(long)]
    no_knn: bool,

    /// Images that pass the network at a time: the gradients are still those of the whole batch, in
    /// less memory and more time; the statistics of batch norm are each chunk's own [default: the
    /// batch size]
    #[arg(long, value_name = "IMAGES", value_parser = whole::<usize>(0..=u64::MAX))]
    pub micro_batch: Option<usize>,

    #[command(flatten)]
    pub run: RunArguments,

    #[command(flatten)]
    checkpoints: CheckpointArguments,

    #[command(flatten)]
    tuning: TuningArguments,
}

impl PretrainingArguments {
    /// Side in pixels of SimCLR's views.
    pub fn view_size(&self) -> usize {
        self.data.size().unwrap_or(VIEW_SIZE)
    }

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
        run.check_out()?;
        run.stop.listen()?;
        let steps = self
            .steps
            .unwrap_or(if self.on_shapes() { 150 } else { 5000 });
        checkpoints.check_steps(steps)?;
        let init = init(run.protocol, self.init.as_deref())?;
        // Checked before any data is read.
        let pretext = pretext(self.network.config(self.data.data)?);
        pretext.check_batch_size()?;
        let init = init.map(|path| WeightsFile::read_for(path, pretext.encoder()));
        let init = init.transpose()?;
        let dataset = self.data.load(run.seed)?;
        dataset.check_pretraining()?;
        let images = dataset.pretraining().len();
        if batch_size > images {
            return Err(Error::usage(format!(
                "--batch-size {batch_size} is larger than the {images} images of {}",
                dataset.name
            )));
        }
        pretext.check_images(&dataset)?;
        pretext.check_micro_batch(&dataset)?;
        let rotation_test = match rotation_images {
            1.0 => None,
            _ if dataset.test.is_empty() => None,
            part => Some(dataset.test_part(part, run.seed).map_err(|error| {
                Error::usage(format!("--rotation-images {part} cannot be drawn: {error}"))
            })?),
        };
        let chosen = open(&run.device)?;
        checkpoints.check_precision(&chosen.device)?;
        pretext
            .step_size(&dataset, checkpoints.recompute, checkpoints.precision)?
            .check(&chosen.device, &|| open(&run.device).map(|c| c.device))?;
        let knn = self.nearest_neighbours(&pretext, &dataset)?;
        let mut left_out = Vec::new();
        if let Err(reason) = &knn {
            notice(&format!("no nearest-neighbour evaluation: {reason}"));
            left_out.push("nearest-neighbour accuracy".to_string());
        }
        if matches!(pretext, Pretext::RotNet(_)) && dataset.test.is_empty() {
            notice(&format!(
                "no rotation accuracy: {} has no test images",
                dataset.name
            ));
            left_out.push("rotation accuracy".to_string());
        }
        if let Pretext::SimClr(settings) = &pretext {
            let size = settings.augmentation.size;
            let split = dataset.pretraining();
            if [split.width, split.height] != [size; 2] {
                notice(&format!(
                    "views have {size} x {size} pixels and images {} x {}; --size sets both",
                    split.width, split.height
                ));
            }
        }
        if let Some(file) = &init {
            file.print_notices();
        }
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
            knn: matches!(knn, Ok(true)),
            left_out,
            rotation_test,
            data: self.data.data,
            dataset,
        };
        print(&run_experiment(&chosen.device, &request, folder)?);
        Ok(())
    }
}

impl PretrainingArguments {
    /// Whether the encoder is evaluated by its nearest neighbours, or the reason why it cannot be.
    ///
    /// # Errors
    /// As `check_image_size`.
    fn nearest_neighbours(
        &self,
        pretext: &Pretext,
        dataset: &Dataset,
    ) -> Result<std::result::Result<bool, String>> {
        if self.no_knn {
            return Ok(Ok(false));
        }
        let name = &dataset.name;
        let missing = if dataset.train.labels.is_none() {
            format!("the images of {name} have no labels")
        } else if dataset.test.is_empty() {
            format!("{name} has no test images")
        } else if dataset.test.labels.is_none() {
            format!("the test images of {name} have no labels")
        } else if let [class] = dataset.classes.as_slice() {
            format!("{name} has one class, {class}")
        } else {
            let size = [dataset.test.width, dataset.test.height];
            check_image_size(
                "the nearest-neighbour evaluation",
                size,
                pretext.encoder(),
                0,
            )?;
            notice_absent(dataset);
            return Ok(Ok(true));
        };
        Ok(Err(missing))
    }
}

/// The file of `--init`; the paper's protocol wants the start to be named.
fn init(protocol: Protocol, word: Option<&str>) -> Result<Option<&Path>> {
    match (protocol, word) {
        (Protocol::Paper, None) => Err(Error::usage(
            "--protocol paper starts from ImageNet weights: give --init FILE.safetensors, or --init none to start \
             from random ones and have every result say so",
        )),
        (_, None | Some("none")) => Ok(None),
        (_, Some(file)) => Ok(Some(Path::new(file))),
    }
}

fn print(summary: &PretrainingSummary) {
    console::json(summary);
    say!(
        "loss    {:.4} at the end, {:.4} at the start, {:.4} by chance",
        summary.final_loss,
        summary.first_loss,
        summary.chance_loss
    );
    if let (Some(accuracy), Some(images)) = (summary.rotation_accuracy, summary.rotation_images) {
        say!(
            "rotation accuracy on {images} test images: {:.1} %, 25 % by chance",
            100.0 * accuracy
        );
    }
    if let (Some(k), Some(trained), Some(untrained)) =
        (summary.knn_k, summary.knn_top1, summary.knn_top1_untrained)
    {
        say!(
            "k-nearest-neighbour accuracy (k = {k}): {:.1} %, untrained encoder {:.1} %",
            100.0 * trained,
            100.0 * untrained
        );
    }
    say!(
        "speed   {:.1} images/s, {:.0} s of training, {:.0} s in all, peak {} MiB",
        summary.images_per_second,
        summary.seconds,
        summary.total_seconds,
        summary.peak_bytes >> 20
    );
}
