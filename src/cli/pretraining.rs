//! What the pretraining commands have in common: where the encoder starts, and what is said in the end.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::experiment::summary::PretrainingSummary;
use crate::pretext::Protocol;

/// The file of `--init`; the paper's protocol wants the start to be named.
pub fn init(protocol: Protocol, word: Option<&str>) -> Result<Option<PathBuf>> {
    match (protocol, word) {
        (Protocol::Paper, None) => Err(Error::usage(
            "--protocol paper starts from ImageNet weights: give --init FILE.safetensors, or --init none to start \
             from random ones and have every result say so",
        )),
        (_, None | Some("none")) => Ok(None),
        (_, Some(file)) => Ok(Some(PathBuf::from(file))),
    }
}

pub fn print(summary: &PretrainingSummary) {
    println!(
        "loss    {:.4} at the end, {:.4} at the start, {:.4} by chance",
        summary.final_loss, summary.first_loss, summary.chance_loss
    );
    if let Some(accuracy) = summary.rotation_accuracy {
        println!(
            "rotation accuracy on the test images: {:.1} %, 25 % by chance",
            100.0 * accuracy
        );
    }
    println!(
        "k-nearest-neighbour accuracy (k = {}): {:.1} %, untrained encoder {:.1} %",
        summary.knn_k,
        100.0 * summary.knn_top1,
        100.0 * summary.knn_top1_untrained
    );
    println!(
        "speed   {:.1} images/s, {:.0} s of training, {:.0} s in all, peak {} MiB",
        summary.images_per_second,
        summary.seconds,
        summary.total_seconds,
        summary.peak_bytes >> 20
    );
}
