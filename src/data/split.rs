//! Fractions of the labels with the same share of every class.

use crate::error::{Error, Result, listed};
use crate::philox::Philox;

/// Keeps this stream of random numbers apart from those of other purposes.
const PURPOSE: u32 = u32::from_le_bytes(*b"frac");

/// The indices, in ascending order, of `fraction` (above 0, at most 1) of the images that have
/// `labels`.
///
/// Of a class with n images round(n * fraction) are drawn by `seed`. A smaller fraction of the same
/// seed is a subset of a larger one.
///
/// # Errors
/// [`Error::Usage`] for a fraction outside (0, 1], a label without a class, or classes that get no
/// image.
pub fn label_fraction(
    labels: &[u32],
    classes: &[String],
    fraction: f64,
    seed: u64,
) -> Result<Vec<u32>> {
    draw(labels, classes, fraction, seed, false)
}

/// As [`label_fraction`], but classes without any image are left out.
///
/// # Errors
/// As [`label_fraction`].
pub fn fraction_of_present(
    labels: &[u32],
    classes: &[String],
    fraction: f64,
    seed: u64,
) -> Result<Vec<u32>> {
    draw(labels, classes, fraction, seed, true)
}

fn draw(
    labels: &[u32],
    classes: &[String],
    fraction: f64,
    seed: u64,
    may_lack_classes: bool,
) -> Result<Vec<u32>> {
    if !(fraction > 0.0 && fraction <= 1.0) {
        return Err(Error::usage(format!(
            "the fraction of the images is {fraction}; use a number above 0 and at most 1"
        )));
    }
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); classes.len()];
    for (i, &label) in labels.iter().enumerate() {
        let index = u32::try_from(i).map_err(|_| {
            Error::usage(format!(
                "{} labels are more than indices of 32 bits can count",
                labels.len()
            ))
        })?;
        match members.get_mut(label as usize) {
            Some(class) => class.push(index),
            None => {
                return Err(Error::usage(format!(
                    "image {i} has the label {label}, but there are {} classes",
                    classes.len()
                )));
            }
        }
    }
    let mut chosen = Vec::new();
    let mut without = Vec::new();
    for (class, mut indices) in members.into_iter().enumerate() {
        let count = (indices.len() as f64 * fraction).round() as usize;
        if count == 0 && !(indices.is_empty() && may_lack_classes) {
            without.push(format!("{} (of {} images)", classes[class], indices.len()));
        }
        Philox::new(seed, [class as u32, 0, PURPOSE]).shuffle(&mut indices);
        chosen.extend_from_slice(&indices[..count]);
    }
    if !without.is_empty() {
        return Err(Error::usage(format!(
            "a fraction of {fraction} leaves no image of {}; use a larger fraction",
            listed(without, ", ")
        )));
    }
    chosen.sort_unstable();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("name{i}")).collect()
    }

    fn labels() -> Vec<u32> {
        (0..600u32)
            .map(|i| if i % 6 < 3 { 0 } else { i % 2 + 1 })
            .collect()
    }

    #[test]
    fn every_class_gets_its_share() {
        let labels = labels();
        let chosen = label_fraction(&labels, &names(3), 0.1, 5).unwrap();
        for class in 0..3 {
            let all = labels.iter().filter(|&&l| l == class).count();
            let got = chosen
                .iter()
                .filter(|&&i| labels[i as usize] == class)
                .count();
            assert_eq!(got, all / 10, "class {class}");
        }
        assert!(chosen.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn the_seed_decides_and_fractions_nest() {
        let labels = labels();
        let small = label_fraction(&labels, &names(3), 0.1, 5).unwrap();
        assert_eq!(small, label_fraction(&labels, &names(3), 0.1, 5).unwrap());
        assert_ne!(small, label_fraction(&labels, &names(3), 0.1, 6).unwrap());
        let large = label_fraction(&labels, &names(3), 0.5, 5).unwrap();
        assert!(small.iter().all(|i| large.contains(i)));
        assert_eq!(
            label_fraction(&labels, &names(3), 1.0, 5).unwrap().len(),
            600
        );
    }

    #[test]
    fn bad_fractions_and_empty_classes_are_errors() {
        for fraction in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(
                matches!(
                    label_fraction(&labels(), &names(3), fraction, 0),
                    Err(Error::Usage(_))
                ),
                "{fraction}"
            );
        }
        let error = label_fraction(&labels(), &names(3), 0.001, 0)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("0.001") && error.contains("name0 (of 300 images)"),
            "{error}"
        );
        assert!(
            label_fraction(&labels(), &names(4), 0.5, 0).is_err(),
            "class 3 has no image"
        );
        let present = fraction_of_present(&labels(), &names(4), 0.5, 0).unwrap();
        assert_eq!(
            present,
            label_fraction(&labels(), &names(3), 0.5, 0).unwrap()
        );
        assert!(
            label_fraction(&labels(), &names(2), 0.5, 0).is_err(),
            "label 2 is out of range"
        );
    }
}
