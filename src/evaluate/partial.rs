//! Values that an evaluation has computed so far. An evaluation that was stopped between two
//! batches is resumed from them, with bitwise identical results.

use std::collections::BTreeMap;

use crate::data::batches;
use crate::distributed;
use crate::error::Result;
use crate::interrupt;

/// Computed values by name. Empty when an evaluation starts.
pub type Partial = BTreeMap<String, Vec<f32>>;

/// As [`complete_in_group`], on one rank.
fn complete(
    values: &mut Vec<f32>,
    (images, size): (usize, u32),
    width: usize,
    mut compute: impl FnMut(usize, &[u32]) -> Result<Vec<f32>>,
) -> Result<()> {
    if values.len() > images * width {
        // The values belong to another set of images.
        values.clear();
    }
    if values.len() == images * width {
        return Ok(());
    }
    let finished = values.len() / (width * size as usize).max(1);
    values.truncate(finished * width * size as usize);
    for (number, indices) in batches(images as u32, size).enumerate().skip(finished) {
        values.extend(compute(number, &indices)?);
        let done = values.len() / width;
        if done < images {
            interrupt::check(|| format!("after {done} of {images} images of an evaluation"))?;
        }
    }
    Ok(())
}

/// Appends the results of `compute` for the batches that `values` lacks. `images` images are
/// processed in order in batches of `size`, and each has `width` values. `compute` takes the number
/// of the batch and the indices of its images, and must depend on nothing else. The batches are
/// divided among the ranks of the run, which exchange the values.
///
/// # Errors
/// Those of `compute` and of the exchange; `Error::Stopped` between two batches if a stop is
/// requested. `values` then contains all finished batches.
pub fn complete_in_group(
    values: &mut Vec<f32>,
    (images, size): (usize, u32),
    width: usize,
    mut compute: impl FnMut(usize, &[u32]) -> Result<Vec<f32>>,
) -> Result<()> {
    let group = distributed::current();
    let together = size.saturating_mul(group.size() as u32);
    complete(values, (images, together), width, |number, indices| {
        let own = indices.chunks(size as usize).nth(group.rank());
        let first = number * group.size() + group.rank();
        let mut found = own.map_or(Ok(Vec::new()), |own| compute(first, own))?;
        // All ranks give as many values, those of missing images at the end.
        found.resize(size as usize * width, 0.0);
        let mut all = group.gather(&found)?;
        all.truncate(indices.len() * width);
        Ok(all)
    })
}

/// Converts predicted classes to values.
pub fn as_values(classes: &[u32]) -> Vec<f32> {
    classes.iter().map(|&class| class as f32).collect()
}

/// Converts values back to classes: the inverse of [`as_values`].
pub fn as_classes(values: &[f32]) -> Vec<u32> {
    values.iter().map(|&value| value as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::complete;
    use crate::error::Error;

    #[test]
    fn only_missing_batches_are_computed() {
        let numbers = |number: usize, indices: &[u32]| {
            let row = |&image: &u32| [number as f32, image as f32];
            Ok(indices.iter().flat_map(row).collect::<Vec<f32>>())
        };
        let mut whole = Vec::new();
        complete(&mut whole, (7, 3), 2, numbers).unwrap();
        assert_eq!(whole.len(), 14);
        assert_eq!(whole[12..], [2.0, 6.0]);
        for (kept, first) in [(0, 0), (6, 1), (11, 1), (12, 2), (13, 2), (14, 3)] {
            let mut parts = whole[..kept].to_vec();
            let mut visited = Vec::new();
            complete(&mut parts, (7, 3), 2, |number, indices| {
                visited.push(number);
                numbers(number, indices)
            })
            .unwrap();
            assert_eq!(parts, whole);
            assert_eq!(visited, Vec::from_iter(first..3), "{kept} were kept");
        }
    }

    #[test]
    fn a_failed_batch_leaves_those_before() {
        let mut values = Vec::new();
        let failed = complete(&mut values, (4, 2), 1, |number, _| match number {
            0 => Ok(vec![1.0, 2.0]),
            _ => Err(Error::usage("no")),
        });
        assert!(failed.is_err());
        assert_eq!(values, [1.0, 2.0]);
    }
}
