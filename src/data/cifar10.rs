//! CIFAR-10 in its binary layout (Krizhevsky 2009): records of one label byte and 3,072 pixel bytes, the red, green
//! and blue plane of a 32 x 32 image in row-major order.

use std::path::{Path, PathBuf};

use super::files::{self, Expected, Source};
use super::{Dataset, Split};
use crate::error::{Error, Result};

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;
const RECORD: usize = 1 + PIXELS;
const CLASSES: usize = 10;
/// Records that are read together: 200 KB.
const RECORDS_AT_ONCE: usize = 64;

const TRAIN: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
const TEST: [&str; 1] = ["test_batch.bin"];
const NAMES: &str = "batches.meta.txt";

const fn batch(file: &'static str) -> Expected {
    Expected {
        file,
        bytes: Some(30_730_000),
    }
}

/// Where CIFAR-10 is published.
pub const SOURCE: Source = Source {
    title: "CIFAR-10 (binary version)",
    address: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    folder: "cifar-10-batches-bin",
    files: &[
        batch(TRAIN[0]),
        batch(TRAIN[1]),
        batch(TRAIN[2]),
        batch(TRAIN[3]),
        batch(TRAIN[4]),
        batch(TEST[0]),
        Expected {
            file: NAMES,
            bytes: None,
        },
    ],
};

/// Reads the six batches in `dir` or its child `cifar-10-batches-bin`. A batch may hold any whole number of records.
///
/// # Errors
/// [`Error::Data`] for missing files, sizes that are not whole records, and labels above 9.
pub fn load(dir: &Path) -> Result<Dataset> {
    let root = SOURCE.locate(dir)?;
    let classes = files::class_names(&root.join(NAMES), CLASSES)?;
    let train = read(&root, &TRAIN)?;
    let test = read(&root, &TEST)?;
    let name = files::dataset_name(&root, "CIFAR-10")?;
    Ok(Dataset::new(name, classes, train, test, None))
}

/// Reads each file by a thread of its own, into its part of the split: most of the time is the system's, for copies and
/// for fresh memory.
fn read(root: &Path, names: &[&str]) -> Result<Split> {
    let mut counts = Vec::with_capacity(names.len());
    for name in names {
        counts.push(SOURCE.records(root, name, RECORD)?);
    }
    let total: usize = counts.iter().sum();
    let mut images = files::zeroed(root, total * PIXELS)?;
    let mut labels = vec![0; total];
    let (mut images_left, mut labels_left) = (&mut images[..], &mut labels[..]);
    let mut batches = Vec::with_capacity(names.len());
    for (name, count) in names.iter().zip(counts) {
        let (images, labels);
        (images, images_left) = images_left.split_at_mut(count * PIXELS);
        (labels, labels_left) = labels_left.split_at_mut(count);
        batches.push((root.join(name), images, labels));
    }
    let read = |(path, images, labels): (PathBuf, _, _)| read_batch(&path, images, labels);
    if cfg!(feature = "threads") {
        std::thread::scope(|scope| {
            let batches = batches.into_iter();
            let readers: Vec<_> = batches
                .map(|batch| scope.spawn(move || read(batch)))
                .collect();
            // A reader gives its errors; if it panics, this thread goes down with it.
            let mut results = readers.into_iter().map(|reader| reader.join());
            results.try_for_each(|result| result.expect("a reader does not panic"))
        })?;
    } else {
        batches.into_iter().try_for_each(read)?;
    }
    Ok(Split {
        images,
        labels: Some(labels),
        height: SIDE,
        width: SIDE,
    })
}

/// Reads the records of one file, as many as there are labels.
fn read_batch(path: &Path, images: &mut [u8], labels: &mut [u32]) -> Result<()> {
    let bytes = labels.len() * RECORD;
    let mut targets = images.chunks_exact_mut(PIXELS).zip(labels).enumerate();
    files::read_in_parts(path, bytes, RECORDS_AT_ONCE * RECORD, |records| {
        for (record, (i, (image, target))) in records.chunks_exact(RECORD).zip(&mut targets) {
            let label = record[0];
            if usize::from(label) >= CLASSES {
                let message = format!(
                    "record {i} (counted from 0) has the label {label}; expected 0 to {}. The file is damaged or of another \
                     format",
                    CLASSES - 1
                );
                return Err(Error::data(path, message));
            }
            *target = u32::from(label);
            image.copy_from_slice(&record[1..]);
        }
        Ok(())
    })
}
