//! An evaluation of an encoder during its training, on a sample of the images: by its nearest
//! neighbours, and by the features themselves, for pictures of them.

use super::features::unit_features;
use super::knn::{TEMPERATURE, classify, neighbours};
use super::metrics::accuracy;
use crate::data::{Dataset, EpochSampler, Split};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::ResNet;
use crate::tensor::Tensor;

/// Maximum number of training images of a sample.
const BANK: usize = 5000;
/// Maximum number of test images of a sample.
const QUERIES: usize = 1000;
/// Minimum number of both, if there are as many.
const FEW: usize = 100;
/// Pixels of an image above which a sample has fewer images.
const PIXELS: usize = 96 * 96;

/// Images on which a training is followed. Another seed draws other ones.
pub struct Sample {
    /// Training images.
    pub bank: Split,
    /// Test images; of a data set without any, training images that are not in `bank`.
    pub queries: Split,
    pub classes: Vec<String>,
    /// Side in pixels of the encoder's input images.
    pub resolution: usize,
    /// Temperature T of the vote: a neighbour of cosine similarity s has the weight exp(s / T).
    pub temperature: f64,
}

impl Sample {
    /// Draws at most 5000 training images and 1000 test images, fewer if images are large. Square
    /// images that are larger than `side` pixels, the size in the training, are resized to it for
    /// the encoder.
    ///
    /// # Errors
    /// `Error::Usage` if there is no image.
    pub fn new(dataset: &Dataset, seed: u64, side: usize) -> Result<Self> {
        let train = match dataset.train.labels {
            Some(_) => &dataset.train,
            None => dataset.pretraining(),
        };
        let (height, width) = (train.height, train.width);
        let most = |images: usize| (images * PIXELS / (height * width).max(PIXELS)).max(FEW);
        let order = |split: &Split| -> Result<Vec<u32>> {
            Ok(EpochSampler::new(split.len(), split.len(), seed)?.batch(0))
        };
        let part = |split: &Split, indices: &[u32]| {
            let mut indices = indices.to_vec();
            indices.sort_unstable();
            split.subset(&indices)
        };
        let mut bank = order(train)?;
        let queries = if dataset.test.is_empty() {
            let count = (bank.len() / 6).clamp(1, most(QUERIES));
            let queries = part(train, &bank[..count]);
            // The only image is its own neighbour.
            bank.drain(..count.min(bank.len() - 1));
            queries
        } else {
            let all = order(&dataset.test)?;
            part(&dataset.test, &all[..all.len().min(most(QUERIES))])
        };
        bank.truncate(most(BANK));
        Ok(Sample {
            bank: part(train, &bank),
            queries,
            classes: dataset.classes.clone(),
            resolution: if height == width {
                height.min(side)
            } else {
                height
            },
            temperature: TEMPERATURE,
        })
    }

    /// Number of neighbours that vote.
    pub fn k(&self) -> usize {
        neighbours(self.bank.len())
    }

    /// Computes the features of the sample in evaluation mode. A request to stop does not end it,
    /// so that the training can be resumed from the step after it.
    ///
    /// # Errors
    /// As [`unit_features`], but for `Error::Stopped`.
    pub fn embed(&self, device: &Device, encoder: &ResNet) -> Result<Embedding> {
        let features = |split: &Split| {
            let mut values = Vec::new();
            loop {
                // Each call computes one batch or more.
                match unit_features(device, encoder, (split, self.resolution), &mut values) {
                    Err(Error::Stopped { .. }) => {}
                    result => return result.map(drop).map(|()| values),
                }
            }
        };
        Ok(Embedding {
            width: encoder.feature_width(),
            bank: features(&self.bank)?,
            queries: features(&self.queries)?,
        })
    }
}

/// The features of a sample, each of length 1.
pub struct Embedding {
    /// Elements of a row.
    pub width: usize,
    /// Row-major.
    pub bank: Vec<f32>,
    pub queries: Vec<f32>,
}

impl Embedding {
    /// The fraction of the test images whose class the votes of their neighbours predict, or `None`
    /// if images have no labels.
    ///
    /// # Errors
    /// As [`classify`].
    pub fn top1(&self, device: &Device, sample: &Sample) -> Result<Option<f64>> {
        let (Some(labels), Some(expected)) = (&sample.bank.labels, &sample.queries.labels) else {
            return Ok(None);
        };
        let rows = |values: &[f32]| {
            Tensor::from_slice(values, &[values.len() / self.width, self.width], device)
        };
        let (bank, queries) = (rows(&self.bank)?, rows(&self.queries)?);
        let vote = (sample.k(), sample.temperature);
        let classes = sample.classes.len();
        let found = classify(device, &bank, labels, classes, &queries, vote)?;
        Ok(Some(accuracy(&found, expected)))
    }

    /// The similarity and the index of the `count` training images that are the most similar to the
    /// test image `query`, in order.
    pub fn neighbours(&self, query: usize, count: usize) -> Vec<(f32, usize)> {
        let row = &self.queries[query * self.width..][..self.width];
        let similarity = |other: &[f32]| row.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let rows = self.bank.chunks_exact(self.width).map(similarity);
        let mut all: Vec<(f32, usize)> = rows.zip(0..).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all.truncate(count);
        all
    }
}
