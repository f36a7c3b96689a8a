//! `parallax knn`: nearest-neighbour evaluation of an encoder.

use serde_json::json;

use super::arguments::{Place, check_classes, notice_absent, open_folder};
use super::device_choice::open;
use crate::console::{self, say};
use crate::error::{Error, Result};
use crate::evaluate::knn::{Vote, neighbour_accuracy};
use crate::evaluate::partial::Partial;
use crate::runs::folder::RunFolder;
use crate::runs::image_size::check_image_size;
use crate::runs::knn::{KnnRequest, run as run_experiment};
use crate::runs::settings::Knn;
use crate::runs::spec::RunSpec;
use crate::runs::weights_file::WeightsFile;

pub fn run(spec: &RunSpec, run: &Knn, place: &Place) -> Result<()> {
    let file = WeightsFile::read(&run.pretrained.init)?;
    let file = file.with_normalization(spec.normalization())?;
    let mut dataset = spec.common.data.load(spec.common.seed)?;
    check_classes(&dataset, "knn")?;
    if let Some(pixels) = run.resolution {
        dataset = dataset.at_resolution(pixels)?;
    }
    let vote = Vote::from(run.knn);
    vote.neighbours(&dataset)?;
    let chosen = open(&place.device)?;
    let device = &chosen.device;
    let loaded = file.load(device)?;
    let size = match run.resolution {
        Some(pixels) => [pixels; 2],
        None => [dataset.train.width, dataset.train.height],
    };
    check_image_size("knn", size, &loaded.origin.encoder, 0)?;
    notice_absent(&dataset);
    let name = dataset.name.clone();
    let (k, top1) = match &place.out {
        Some(out) => {
            let folder = RunFolder::of_group(|| open_folder(out, place.resume, &chosen))?;
            let request = KnnRequest {
                spec,
                settings: run,
                loaded,
                dataset,
            };
            let summary = run_experiment(device, &request, &folder)?;
            console::json(&summary);
            (summary.metrics.knn_k, summary.metrics.knn_top1)
        }
        None => {
            let resolution = run.resolution.unwrap_or(dataset.train.height);
            let partial = &mut Partial::new();
            let (data, partial) = ((&dataset, resolution), (partial, "knn"));
            let found = neighbour_accuracy(device, &loaded.encoder, data, vote, partial);
            let found = found.map_err(unstored)?;
            console::json(&json!({
                "command": "knn",
                "encoder": &run.pretrained.init,
                "data": &name,
                "knn_k": found.k,
                "knn_temperature": vote.temperature,
                "knn_top1": found.top1,
            }));
            (found.k, found.top1)
        }
    };
    say!(
        "k-nearest-neighbour accuracy on {name} (k = {k}): {:.1} %",
        100.0 * top1
    );
    Ok(())
}

/// Adds to a stop's message that the state is not stored.
fn unstored(error: Error) -> Error {
    match error {
        Error::Stopped {
            cause,
            place,
            folder,
        } => Error::Stopped {
            cause,
            place: format!("{place}; the state is not stored, since there is no --out"),
            folder,
        },
        other => other,
    }
}
