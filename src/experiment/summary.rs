//! What a run found, as `summary.json`.

use serde::{Deserialize, Serialize};

/// The result of a SimCLR pretraining run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimClrSummary {
    pub command: String,
    /// The protocol, and under `paper` where the encoder started.
    pub protocol: String,
    /// The data set's own name.
    pub data: String,
    pub device: String,
    pub arch: String,
    pub width: f64,
    pub seed: u64,
    pub batch_size: usize,
    pub steps: u64,
    /// ln(2N - 1): the loss of embeddings that say nothing.
    pub chance_loss: f64,
    pub first_loss: f32,
    /// The last step's.
    pub final_loss: f32,
    /// The mean of the last ten steps, or of all where there are fewer.
    pub final_loss_mean: f64,
    /// The k of the nearest neighbours.
    pub knn_k: usize,
    /// Fractions of the held-out images that are classified right; none where the data has no held-out labels.
    pub knn_top1: f64,
    /// The same for the encoder before training.
    pub knn_top1_untrained: f64,
    /// Seconds of training alone, from the first step to the last loss.
    pub seconds: f64,
    /// Seconds of the whole run: loading, training and both evaluations.
    pub total_seconds: f64,
    /// Training images (not views) a second, over all steps.
    pub images_per_second: f64,
    /// Bytes that the device held for tensors, at most, while training.
    pub peak_bytes: u64,
    /// The same over the whole run, evaluation included.
    pub peak_bytes_total: u64,
    pub parallax_version: String,
}

/// NT-Xent's loss where all similarities are equal: ln(2N - 1) for N = `batch_size` images.
pub fn chance_loss(batch_size: usize) -> f64 {
    ((2 * batch_size - 1) as f64).ln()
}

/// The mean of the last ten losses, or of all where there are fewer; `None` without any.
pub fn final_mean(losses: &[f32]) -> Option<f64> {
    let last = &losses[losses.len().saturating_sub(10)..];
    (!last.is_empty()).then(|| last.iter().map(|&l| f64::from(l)).sum::<f64>() / last.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chance levels that the paper's batch sizes have.
    #[test]
    fn chance_is_as_published() {
        for (batch, chance) in [
            (32, 4.14),
            (64, 4.84),
            (128, 5.54),
            (256, 6.24),
            (512, 6.93),
        ] {
            assert!((chance_loss(batch) - chance).abs() < 0.005, "{batch}");
        }
    }

    #[test]
    fn the_final_mean_is_of_the_last_ten() {
        assert_eq!(final_mean(&[]), None);
        assert_eq!(final_mean(&[1.0, 3.0]), Some(2.0));
        let losses: Vec<f32> = (0..100).map(|i| i as f32).collect();
        assert_eq!(final_mean(&losses), Some(94.5));
    }
}
