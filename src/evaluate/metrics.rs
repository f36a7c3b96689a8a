//! Metrics of a classifier, as in scikit-learn: top-k accuracy, confusion matrix, cross-entropy,
//! and the area under the ROC curve (AUC) for several classes.

use std::cmp::Ordering;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};

/// The metrics of a classifier on a set of labelled images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The fraction of images whose label has the highest score. `top2` and `top3` count the two
    /// and three highest scores. Of equal scores, the higher class comes first, as in
    /// scikit-learn's `top_k_accuracy_score`.
    pub top1: f64,
    pub top2: f64,
    pub top3: f64,
    /// One-vs-one AUC (Hand and Till 2001): the mean over pairs of classes, each computed on the
    /// images of the pair. Both AUCs leave out classes without images. They are not a number if
    /// only one class has images; JSON then has null.
    #[serde(deserialize_with = "or_not_a_number")]
    pub auc_ovo: f64,
    /// One-vs-rest AUC: the mean over classes.
    #[serde(deserialize_with = "or_not_a_number")]
    pub auc_ovr: f64,
    /// The mean cross-entropy.
    pub loss: f64,
    /// Number of images by label, then by predicted class.
    pub confusion: Vec<Vec<u64>>,
    /// The names of the classes, in the order of `confusion`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Those of them that no measured image belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_classes: Vec<String>,
}

fn or_not_a_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Metrics {
    /// Computes the metrics of `logits`, row-major `[N, classes]`, for `labels [N]`, each below
    /// `classes`.
    ///
    /// # Errors
    /// `Error::Shape` if sizes do not match or a label is too large; `Error::NonFinite` if a logit
    /// is not finite.
    pub fn from_logits(logits: &[f32], labels: &[u32], classes: usize) -> Result<Self> {
        let operation = "metrics";
        if classes < 2
            || labels.is_empty()
            || Some(logits.len()) != labels.len().checked_mul(classes)
        {
            return Err(Error::shape(
                operation,
                format!(
                    "{} logits for {} images and {classes} classes; expected one per image and class, and 2 classes or more",
                    logits.len(),
                    labels.len()
                ),
            ));
        }
        if let Some(i) = logits.iter().position(|x| !x.is_finite()) {
            return Err(Error::NonFinite(format!(
                "a logit of image {} is {}; expected finite logits: train with a lower learning rate",
                i / classes,
                logits[i]
            )));
        }
        let members = members(labels, classes)?;
        let mut confusion = vec![vec![0; classes]; classes];
        for (&label, predicted) in labels.iter().zip(predictions(logits, classes)) {
            confusion[label as usize][predicted as usize] += 1;
        }
        let mut scores = Vec::with_capacity(logits.len());
        let mut hits = [0usize; 3];
        let mut loss = 0.0;
        for (row, &label) in logits.chunks_exact(classes).zip(labels) {
            let label = label as usize;
            let rank = rank(row, label);
            for (k, hit) in hits.iter_mut().enumerate() {
                *hit += usize::from(rank <= k);
            }
            let total = log_sum_exp(row);
            loss += total - f64::from(row[label]);
            // Rounding to f32 makes scores equal if they differ only in the rounding of the sum.
            scores.extend(row.iter().map(|&x| (f64::from(x) - total).exp() as f32));
        }
        let count = labels.len() as f64;
        let [top1, top2, top3] = hits.map(|hit| hit as f64 / count);
        Ok(Metrics {
            top1,
            top2,
            top3,
            auc_ovo: one_vs_one(&scores, &members),
            auc_ovr: one_vs_rest(&scores, labels, &members),
            loss: loss / count,
            confusion,
            classes: Vec::new(),
            absent_classes: Vec::new(),
        })
    }

    /// The same metrics with the names of the classes.
    pub fn named(mut self, classes: &[String]) -> Self {
        let rows = classes.iter().zip(&self.confusion);
        let absent = rows.filter(|(_, row)| row.iter().all(|&images| images == 0));
        self.absent_classes = absent.map(|(class, _)| class.clone()).collect();
        self.classes = classes.to_vec();
        self
    }
}

/// The class with the highest score in each row of `logits [N, classes]`. Of equal scores, the
/// highest class is taken.
pub fn predictions(logits: &[f32], classes: usize) -> Vec<u32> {
    let best = |row: &[f32]| (1..classes).fold(0, |b, c| if row[c] >= row[b] { c } else { b });
    let rows = logits.chunks_exact(classes);
    rows.map(|row| best(row) as u32).collect()
}

/// The fraction of `predictions` that equal their label.
pub fn accuracy(predictions: &[u32], labels: &[u32]) -> f64 {
    let right = predictions.iter().zip(labels).filter(|(p, l)| p == l);
    right.count() as f64 / labels.len().max(1) as f64
}

/// Checks that [`Metrics::from_logits`] is defined for these labels. A training calls it first, to
/// fail early.
///
/// # Errors
/// `Error::Shape` if a label is not below `classes`.
pub fn check_labels(labels: &[u32], classes: usize) -> Result<()> {
    members(labels, classes).map(|_| ())
}

/// The indices of the images of each class.
fn members(labels: &[u32], classes: usize) -> Result<Vec<Vec<usize>>> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (i, &label) in labels.iter().enumerate() {
        match members.get_mut(label as usize) {
            Some(class) => class.push(i),
            None => {
                return Err(Error::shape(
                    "metrics",
                    format!("image {i} has the label {label}; expected less than {classes}"),
                ));
            }
        }
    }
    Ok(members)
}

/// The number of classes before `label`: those with a higher score, and higher classes with the
/// same score.
fn rank(row: &[f32], label: usize) -> usize {
    let before = |c: usize| row[c] > row[label] || (row[c] == row[label] && c > label);
    (0..row.len()).filter(|&c| before(c)).count()
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(max) + sum.ln()
}

/// The probability that a random positive has a higher score than a random negative, where equal
/// scores count half. Computed as the Mann-Whitney statistic with mid-ranks.
fn auc(scored: &mut [(f32, bool)]) -> f64 {
    scored.sort_unstable_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal));
    let positives = scored.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = scored.len() as f64 - positives;
    let mut rank_sum = 0.0;
    let mut start = 0;
    while start < scored.len() {
        let equal = scored[start..]
            .iter()
            .take_while(|s| s.0 == scored[start].0);
        let end = start + equal.count();
        let tied = scored[start..end].iter().filter(|(_, positive)| *positive);
        // Tied scores have the ranks `start + 1` to `end`, and each gets their mean.
        rank_sum += tied.count() as f64 * (start + 1 + end) as f64 / 2.0;
        start = end;
    }
    (rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)
}

fn one_vs_one(scores: &[f32], members: &[Vec<usize>]) -> f64 {
    let classes = members.len();
    let mut sum = 0.0;
    let mut pairs = 0;
    // The probability that an image of `a` has a higher score for `a` than an image of `b`.
    let separated = |a: usize, b: usize| {
        let of = |class: usize| {
            members[class]
                .iter()
                .map(move |&i| (scores[i * classes + a], class == a))
        };
        let mut scored: Vec<_> = of(a).chain(of(b)).collect();
        auc(&mut scored)
    };
    for a in 0..classes {
        for b in a + 1..classes {
            if !members[a].is_empty() && !members[b].is_empty() {
                sum += (separated(a, b) + separated(b, a)) / 2.0;
                pairs += 1;
            }
        }
    }
    sum / f64::from(pairs)
}

fn one_vs_rest(scores: &[f32], labels: &[u32], members: &[Vec<usize>]) -> f64 {
    let classes = members.len();
    let of_class = |class: usize| {
        let mut scored: Vec<_> = labels
            .iter()
            .enumerate()
            .map(|(i, &label)| (scores[i * classes + class], label as usize == class))
            .collect();
        auc(&mut scored)
    };
    let present: Vec<usize> = (0..classes).filter(|&c| !members[c].is_empty()).collect();
    let count = present.len();
    present.into_iter().map(of_class).sum::<f64>() / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(positives: &[f32], negatives: &[f32]) -> f64 {
        let scored =
            |scores: &[f32], positive| scores.iter().map(|&s| (s, positive)).collect::<Vec<_>>();
        auc(&mut [scored(positives, true), scored(negatives, false)].concat())
    }

    #[test]
    fn the_area_counts_pairs_in_order_and_ties_half() {
        assert_eq!(area(&[0.9, 0.8], &[0.1, 0.2]), 1.0);
        assert_eq!(area(&[0.1], &[0.9, 0.8]), 0.0);
        assert_eq!(area(&[0.5, 0.5], &[0.5]), 0.5);
        // Of six pairs, four are in order (0.4 > 0.1, 0.4 > 0.3, 0.3 > 0.1, 0.2 > 0.1) and one is a
        // tie.
        assert_eq!(area(&[0.4, 0.3, 0.2], &[0.1, 0.3]), 4.5 / 6.0);
    }

    #[test]
    fn small_values_worked_out_by_hand() {
        // Three images, whose labels have the first, the second and the third rank.
        let logits = [3.0, 1.0, 2.0, 1.0, 0.5, 0.0, 0.0, 2.0, -1.0];
        let found = Metrics::from_logits(&logits, &[0, 1, 2], 3).unwrap();
        assert_eq!(
            [found.top1, found.top2, found.top3],
            [1.0 / 3.0, 2.0 / 3.0, 1.0]
        );
        assert_eq!(found.confusion, [[1, 0, 0], [1, 0, 0], [0, 1, 0]]);
        let equal = Metrics::from_logits(&[0.0; 4], &[0, 1], 2).unwrap();
        assert_eq!((equal.top1, equal.top2, equal.top3), (0.5, 1.0, 1.0));
        assert_eq!((equal.auc_ovo, equal.auc_ovr), (0.5, 0.5));
        assert!((equal.loss - 2f64.ln()).abs() < 1e-12);
    }

    /// Classes b and d have no image. The three images of a and c are measured as if there were no
    /// other class.
    #[test]
    fn classes_without_images_are_left_out_of_the_area() {
        let names = ["a", "b", "c", "d"].map(String::from);
        let logits = [
            2.0, 9.0, 1.0, -9.0, //
            1.0, 9.0, 3.0, -9.0, //
            3.0, -9.0, 0.0, -9.0,
        ];
        let found = Metrics::from_logits(&logits, &[0, 2, 2], 4)
            .unwrap()
            .named(&names);
        assert_eq!(found.absent_classes, ["b", "d"]);
        assert_eq!(found.classes, names);
        assert_eq!((found.top1, found.top2), (0.0, 1.0));
        // Softmax scores of class a: 0.0009, 0.0003, 0.95; of class c: 0.0003, 0.0025, 0.05. The
        // only image of a scores above one of the two others, and both images of c score above it.
        assert_eq!(found.auc_ovr, (0.5 + 1.0) / 2.0);
        assert_eq!(found.auc_ovo, (0.5 + 1.0) / 2.0);

        let one = Metrics::from_logits(&logits[..4], &[0], 4).unwrap();
        assert!(one.auc_ovo.is_nan() && one.auc_ovr.is_nan());
        let text = serde_json::to_string(&one).unwrap();
        assert!(text.contains("\"auc_ovo\":null"), "{text}");
        let read: Metrics = serde_json::from_str(&text).unwrap();
        assert!(read.auc_ovo.is_nan() && read.top1 == 0.0);
    }

    #[test]
    fn what_cannot_be_measured_is_an_error() {
        assert!(Metrics::from_logits(&[0.0; 3], &[0, 1], 2).is_err());
        assert!(Metrics::from_logits(&[0.0; 4], &[0, 2], 2).is_err());
        assert!(Metrics::from_logits(&[], &[], 2).is_err());
        let nan = Metrics::from_logits(&[0.0, f32::NAN, 0.0, 0.0], &[0, 1], 2);
        assert!(matches!(nan, Err(Error::NonFinite(_))));
    }
}
