//! Nearest-neighbour classification on features (Wu et al. 2018, "Unsupervised Feature Learning via
//! Non-Parametric Instance Discrimination"). It trains no parameters, so it evaluates the features
//! alone.

use std::cmp::Ordering;

use super::features::unit_features;
use super::metrics::accuracy;
use super::partial::{Partial, as_classes, as_values};
use crate::data::Dataset;
use crate::device::{Device, Readback};
use crate::error::{Error, Result};
use crate::nn::ResNet;
use crate::ops::copy::Slice;
use crate::ops::gemm::{Gemm, transposed};
use crate::tensor::{DType, Tensor};

/// The temperature of a vote, whose weight is `exp(similarity / TEMPERATURE)`.
pub const TEMPERATURE: f64 = 0.5;

/// Maximum number of neighbours that vote.
const MAX_NEIGHBOURS: usize = 200;

/// Maximum number of similarities in memory: 64 MiB.
const BLOCK: usize = 1 << 24;

/// The number of neighbours that vote, for a bank of this many images: a tenth of the bank, at
/// least 1 and at most 200. With ten classes, a tenth is not more than the size of a class.
pub fn neighbours(bank: usize) -> usize {
    (bank / 10).clamp(1, MAX_NEIGHBOURS)
}

/// How neighbours vote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vote {
    /// How many vote; `None` is as [`neighbours`] has it.
    pub k: Option<usize>,
    pub temperature: f64,
}

impl Vote {
    /// Returns how many of the training images of `dataset` vote for a test image.
    ///
    /// # Errors
    /// `Error::Usage` if there are fewer.
    pub fn neighbours(&self, dataset: &Dataset) -> Result<usize> {
        let bank = dataset.train.len();
        let k = self.k.unwrap_or_else(|| neighbours(bank));
        if k <= bank {
            Ok(k)
        } else {
            Err(Error::usage(format!(
                "--k is {k}, and {} has {bank} training images; use {bank} or less",
                dataset.name
            )))
        }
    }
}

impl Default for Vote {
    fn default() -> Self {
        Vote {
            k: None,
            temperature: TEMPERATURE,
        }
    }
}

/// Predicts a class for each row of `queries [Q, D]` from the rows of `bank [B, D]` and their
/// labels. The k rows with the largest cosine similarity vote for their class with the weight
/// `exp(similarity / temperature)`. Of rows with equal similarity, the earlier ones vote. The lower
/// class wins a tie. Rows must have length 1, and labels must be below `classes`.
///
/// # Errors
/// `Error::Shape` if sizes do not match or k is not in `1..=B`; `Error::NonFinite` if a feature is
/// not finite.
pub fn classify(
    device: &Device,
    bank: &Tensor,
    labels: &[u32],
    classes: usize,
    queries: &Tensor,
    (k, temperature): (usize, f64),
) -> Result<Vec<u32>> {
    let [rows, columns] = bank.matrix("knn", "bank")?;
    let [query_rows, _] = queries.matrix("knn", "queries")?;
    queries.expect("knn", "queries", &[query_rows, columns], DType::F32)?;
    if labels.len() != rows || labels.iter().any(|&label| label as usize >= classes) {
        return Err(Error::shape(
            "knn",
            format!(
                "{} labels for a bank of {rows} rows; expected one per row, below {classes}",
                labels.len()
            ),
        ));
    }
    if k == 0 || k > rows {
        return Err(Error::shape(
            "knn",
            format!("k is {k}; expected 1 to {rows}, the number of rows of the bank"),
        ));
    }

    let mut predictions = Vec::with_capacity(query_rows);
    let mut candidates = Vec::with_capacity(2 * k);
    let mut vote = |similarities: Readback| -> Result<()> {
        for row in similarities.wait_as::<f32>()?.chunks_exact(rows) {
            nearest(row, k, &mut candidates)?;
            predictions.push(winner(&candidates, labels, classes, temperature));
        }
        Ok(())
    };
    // The device computes a block while the host counts the votes of the block before.
    let block = (BLOCK / rows).clamp(1, query_rows.max(1));
    let mut pending = None;
    for start in (0..query_rows).step_by(block) {
        let count = block.min(query_rows - start);
        let x = queries;
        let rows = &device.run(Slice { x, start, count })?;
        let similarities = device.run(Gemm::new(rows, transposed(bank)))?.read()?;
        device.submit()?;
        if let Some(last) = pending.replace(similarities) {
            vote(last)?;
        }
    }
    pending.map(vote).transpose()?;
    Ok(predictions)
}

/// The result of a nearest-neighbour evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NeighbourAccuracy {
    /// Number of neighbours that voted.
    pub k: usize,
    /// Fraction of the test images that are classified correctly.
    pub top1: f64,
}

/// Evaluates `encoder`: classifies the test images of `dataset` by the votes of the nearest
/// labelled training images. They are resized to `resolution` x `resolution` pixels if their height
/// differs. `partial` holds the values computed so far, under names that start with `name`.
///
/// # Errors
/// `Error::Usage` if training or test images have no labels; `Error::Stopped` as
/// [`complete_in_group`](super::partial::complete_in_group); otherwise as [`classify`].
pub fn neighbour_accuracy(
    device: &Device,
    encoder: &ResNet,
    (dataset, resolution): (&Dataset, usize),
    vote: Vote,
    (partial, name): (&mut Partial, &str),
) -> Result<NeighbourAccuracy> {
    let bank_labels = dataset.labels_of(&dataset.train, "training")?;
    let test_labels = dataset.labels_of(&dataset.test, "test")?;
    let k = vote.neighbours(dataset)?;
    let found = match partial.get(name) {
        Some(found) => as_classes(found),
        None => {
            let mut features = |part: &str, split| {
                let values = partial.entry(format!("{name} {part}")).or_default();
                unit_features(device, encoder, (split, resolution), values)
            };
            let bank = features("bank", &dataset.train)?;
            let queries = features("queries", &dataset.test)?;
            partial.retain(|key, _| !key.starts_with(&format!("{name} ")));
            let classes = dataset.classes.len();
            let found = classify(
                device,
                &bank,
                bank_labels,
                classes,
                &queries,
                (k, vote.temperature),
            )?;
            partial.insert(name.to_string(), as_values(&found));
            found
        }
    };
    Ok(NeighbourAccuracy {
        k,
        top1: accuracy(&found, test_labels),
    })
}

/// The similarity and the index of a row of the bank.
type Candidate = (f32, u32);

/// Orders by descending similarity, then by row. The order is total, so the k nearest rows are
/// unique.
fn nearer(a: &Candidate, b: &Candidate) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Fills `out` with the k nearest rows, in order.
fn nearest(similarities: &[f32], k: usize, out: &mut Vec<Candidate>) -> Result<()> {
    out.clear();
    let mut least = f32::NEG_INFINITY;
    for (row, &similarity) in similarities.iter().enumerate() {
        if !similarity.is_finite() {
            return Err(Error::NonFinite(
                "knn: a similarity is not finite, so a feature of the encoder is not; train with a lower \
                 learning rate"
                    .to_string(),
            ));
        }
        // A row with the similarity `least` comes after the k earlier rows, so it cannot be among
        // the k nearest.
        if out.len() < k || similarity > least {
            out.push((similarity, row as u32));
            if out.len() == 2 * k {
                out.select_nth_unstable_by(k - 1, nearer);
                out.truncate(k);
                least = out[k - 1].0;
            }
        }
    }
    out.sort_unstable_by(nearer);
    out.truncate(k);
    Ok(())
}

/// The class with the largest sum of votes, or the lowest of several.
fn winner(neighbours: &[Candidate], labels: &[u32], classes: usize, temperature: f64) -> u32 {
    let mut votes = vec![0.0f64; classes];
    for &(similarity, row) in neighbours {
        votes[labels[row as usize] as usize] += (f64::from(similarity) / temperature).exp();
    }
    let mut best = 0;
    for (class, &count) in votes.iter().enumerate() {
        if count > votes[best] {
            best = class;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::Philox;

    #[test]
    fn k_is_a_tenth_of_a_small_bank() {
        let banks = [1, 9, 10, 640, 1_999, 2_000, 50_000];
        assert_eq!(banks.map(neighbours), [1, 1, 1, 64, 199, 200, 200]);
    }

    /// Compares with a full sort of many equal similarities.
    #[test]
    fn nearest_equals_a_full_sort() {
        let mut rng = Philox::new(5, [0; 3]);
        for k in [1, 2, 7, 40] {
            let row: Vec<f32> = (0..40).map(|_| rng.below(9) as f32 / 8.0 - 0.5).collect();
            let mut expected: Vec<Candidate> = row.iter().copied().zip(0..).collect();
            expected.sort_by(nearer);
            expected.truncate(k);
            let mut found = Vec::new();
            nearest(&row, k, &mut found).unwrap();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_feature_that_is_no_number_is_an_error() {
        let result = nearest(&[0.0, f32::NAN], 1, &mut Vec::new());
        assert!(matches!(result, Err(Error::NonFinite(_))));
    }

    #[test]
    fn votes_are_weighed_and_ties_go_to_the_lower_class() {
        let labels = [2, 1, 1, 0];
        // One near neighbour of class 2 outweighs two far ones: e^2 > 2 e^1.
        assert_eq!(
            winner(&[(1.0, 0), (0.5, 1), (0.5, 2)], &labels, 3, TEMPERATURE),
            2
        );
        // With similarities alike, two outvote one.
        assert_eq!(
            winner(&[(0.9, 0), (0.9, 1), (0.9, 2)], &labels, 3, TEMPERATURE),
            1
        );
        assert_eq!(winner(&[(0.9, 0), (0.9, 1)], &labels, 3, TEMPERATURE), 1);
        assert_eq!(winner(&[(0.9, 1), (0.9, 3)], &labels, 3, TEMPERATURE), 0);
    }

    #[test]
    fn each_point_of_a_cluster_finds_its_class() {
        let device = Device::cpu();
        let directions = [[1.0f32, 0.0], [0.0, 1.0], [-1.0, 0.0]];
        let labels = [0, 0, 1, 1, 2, 2];
        let bank: Vec<f32> = labels
            .iter()
            .flat_map(|&l| directions[l as usize])
            .collect();
        let bank = Tensor::from_slice(&bank, &[6, 2], &device).unwrap();
        let queries = [[0.8f32, 0.6], [0.6, 0.8], [-0.8, 0.6]].concat();
        let queries = Tensor::from_slice(&queries, &[3, 2], &device).unwrap();
        let found = classify(&device, &bank, &labels, 3, &queries, (2, TEMPERATURE)).unwrap();
        assert_eq!(found, [0, 1, 2]);
        assert_eq!(accuracy(&found, &[0, 1, 1]), 2.0 / 3.0);
        assert!(classify(&device, &bank, &labels, 3, &queries, (7, TEMPERATURE)).is_err());
        assert!(classify(&device, &bank, &labels, 2, &queries, (2, TEMPERATURE)).is_err());
    }
}
