//! `parallax simclr` and `parallax rotnet`: the run of a pretraining, and the printed results.

use super::arguments::{Place, notice, notice_absent};
use super::classification::{print_loss, print_speed};
use super::device_choice::{DeviceRequest, open_for};
use crate::console::{self, say};
use crate::data::Dataset;
use crate::device::Device;
use crate::distributed;
use crate::error::{Error, Result};
use crate::objectives::Protocol;
use crate::runs::image_size::check_image_size;
use crate::runs::pretrain::{Method, Pretext, PretrainingRequest, run as run_experiment};
use crate::runs::profile::Phases;
use crate::runs::result::{PretrainingMetrics, RunResult};
use crate::runs::settings::{Pretraining, TrainingSettings};
use crate::runs::spec::RunSpec;
use crate::runs::weights_file::WeightsFile;
use crate::tensor::Tensor;
use crate::train::data_parallel;

/// Pretrains on the task of `pretext`, and prints the results.
pub fn run(spec: &RunSpec, pretext: Result<Pretext<'_>>, place: &Place) -> Result<()> {
    let mut pretext = pretext?;
    let Pretext {
        pretraining,
        training,
        ..
    } = pretext;
    // Checked before any data is read.
    check_steps(training, pretext.steps)?;
    data_parallel::check(pretext.batch_size, distributed::current())?;
    check_init(spec, pretraining)?;
    let init = pretraining.init();
    let init = init.map(|path| WeightsFile::read_for(path, &pretext.encoder));
    let mut init = init.transpose()?;
    if let Some(file) = init {
        let file = file.with_normalization(spec.normalization())?;
        pretext = pretext.with_normalization(file.normalization());
        init = Some(file);
    }
    let common = &spec.common;
    let dataset = common.data.load(common.seed)?;
    dataset.check_pretraining()?;
    let images = dataset.pretraining().len();
    if pretext.batch_size > images {
        return Err(Error::usage(format!(
            "--batch-size {} is larger than the {images} images of {}",
            pretext.batch_size, dataset.name
        )));
    }
    pretext.check_images(spec.command(), &dataset)?;
    pretext.check_micro_batch(&dataset)?;
    let rotation_test = match pretext.rotation_fraction {
        1.0 => None,
        _ if dataset.test.is_empty() => None,
        part => Some(dataset.test_part(part, common.seed).map_err(|error| {
            Error::usage(format!("--rotation-images {part} cannot be drawn: {error}"))
        })?),
    };
    let chosen = open_for(&place.device, training.has_f16_factors())?;
    check_precision(training, &chosen.device)?;
    let reopen = || reopened(&place.device, training);
    pretext
        .step_size(&dataset)?
        .check(&chosen.device, &reopen)?;
    let knn = nearest_neighbours(&pretext, &dataset)?;
    let mut left_out = Vec::new();
    if let Err(reason) = &knn {
        notice(&format!("no nearest-neighbour evaluation: {reason}"));
        left_out.push("nearest-neighbour accuracy".to_string());
    }
    if matches!(pretext.method, Method::RotNet(_)) && dataset.test.is_empty() {
        notice(&format!(
            "no rotation accuracy: {} has no test images",
            dataset.name
        ));
        left_out.push("rotation accuracy".to_string());
    }
    if let Method::SimClr(settings) = &pretext.method {
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
    let folder = place.start(spec, &dataset, &chosen)?;
    place.tune(&chosen, &folder, || pretext.trained_network(&dataset))?;
    let request = PretrainingRequest {
        spec,
        pretext,
        init,
        knn: matches!(knn, Ok(true)),
        left_out,
        rotation_test,
        dataset,
        extent: place.extent,
    };
    if let Some(summary) = run_experiment(&chosen.device, &request, folder)? {
        print(&summary);
    }
    Ok(())
}

/// Opens the device of a training again, to measure a step.
pub fn reopened(request: &DeviceRequest, training: &TrainingSettings) -> Result<Device> {
    let device = open_for(request, training.has_f16_factors())?.device;
    device.round_factors(training.rounds_factors());
    Ok(device)
}

/// Fails if `device` does not support the requested precision, so that no folder is created.
pub fn check_precision(training: &TrainingSettings, device: &Device) -> Result<()> {
    for dtype in [training.precision, training.matmul_precision] {
        Tensor::zeros(&[1], dtype, device)?;
    }
    Ok(())
}

/// Fails if a training of `steps` steps is too short for the requested profile, so that no folder
/// is created.
pub fn check_steps(training: &TrainingSettings, steps: u64) -> Result<()> {
    if training.profile {
        Phases::new(0, steps).map(drop)
    } else {
        Ok(())
    }
}

/// Fails if the paper's protocol has no initial weights, which it requires to be named.
fn check_init(spec: &RunSpec, pretraining: &Pretraining) -> Result<()> {
    match (spec.common.protocol, &pretraining.init) {
        (Protocol::Paper, None) => Err(Error::usage(
            "--protocol paper starts from ImageNet weights: give --init FILE.safetensors, or --init none to start \
             from random ones and have every result say so",
        )),
        _ => Ok(()),
    }
}

/// Whether the encoder is evaluated by its nearest neighbours, or the reason why it cannot be.
///
/// # Errors
/// As `check_image_size`; `Error::Usage` if it is asked for during the training and cannot be made.
fn nearest_neighbours(
    pretext: &Pretext<'_>,
    dataset: &Dataset,
) -> Result<std::result::Result<bool, String>> {
    let Pretraining {
        no_knn,
        evaluate_every,
        ..
    } = pretext.pretraining;
    if *no_knn && evaluate_every.is_none() {
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
        let what = "the nearest-neighbour evaluation";
        check_image_size(what, size, &pretext.encoder, 0)?;
        notice_absent(dataset);
        return Ok(Ok(!no_knn));
    };
    match evaluate_every {
        None => Ok(Err(missing)),
        Some(every) => Err(Error::usage(format!(
            "--evaluate-every {every} measures the accuracy of nearest neighbours, but {missing}; leave it out"
        ))),
    }
}

fn print(summary: &RunResult<PretrainingMetrics>) {
    console::json(summary);
    let metrics = &summary.metrics;
    print_loss(&metrics.training);
    if let (Some(accuracy), Some(images)) = (metrics.rotation_accuracy, metrics.rotation_images) {
        say!(
            "rotation accuracy on {images} test images: {:.1} %, 25 % by chance",
            100.0 * accuracy
        );
    }
    if let (Some(k), Some(trained), Some(untrained)) =
        (metrics.knn_k, metrics.knn_top1, metrics.knn_top1_untrained)
    {
        say!(
            "k-nearest-neighbour accuracy (k = {k}): {:.1} %, untrained encoder {:.1} %",
            100.0 * trained,
            100.0 * untrained
        );
    }
    print_speed(&metrics.training, summary.total_seconds);
}
