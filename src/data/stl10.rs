//! STL-10 in its binary layout (Coates, Lee, Ng 2011): 96 x 96 images, the red, green and blue
//! plane one after another, each in column-major order; labels 1 to 10 in files of their own.

use std::path::Path;

use super::files::{self, Expected, Source};
use super::{Dataset, Split};
use crate::error::{Error, Result};

const SIDE: usize = 96;
const PLANE: usize = SIDE * SIDE;
const IMAGE: usize = 3 * PLANE;
const CLASSES: usize = 10;
const FOLDS: usize = 10;

const fn file(file: &'static str, bytes: Option<u64>) -> Expected {
    Expected { file, bytes }
}

/// Where STL-10 is published.
pub const SOURCE: Source = Source {
    title: "STL-10 (binary version)",
    address: "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    folder: "stl10_binary",
    files: &[
        file("train_X.bin", Some(5_000 * IMAGE as u64)),
        file("train_y.bin", Some(5_000)),
        file("test_X.bin", Some(8_000 * IMAGE as u64)),
        file("test_y.bin", Some(8_000)),
        file(UNLABELLED, Some(100_000 * IMAGE as u64)),
        file("class_names.txt", None),
        file(FOLDS_FILE, None),
    ],
};

/// Needed by pretraining alone.
const UNLABELLED: &str = "unlabeled_X.bin";
/// Needed by no command.
const FOLDS_FILE: &str = "fold_indices.txt";

/// Reads the files in `dir` or its child `stl10_binary`. Each split may hold any whole number of
/// images. The unlabelled images and the folds may be missing.
///
/// # Errors
/// [`Error::Data`] for missing files, sizes that are not whole images, labels outside 1 to 10, a
/// number of labels that is not that of the images, and folds that do not fit the training images.
pub fn load(dir: &Path) -> Result<Dataset> {
    let root = SOURCE.locate_without(dir, &[UNLABELLED, FOLDS_FILE])?;
    let classes = files::class_names(&root.join("class_names.txt"), CLASSES)?;
    let train = labelled(&root, "train_X.bin", "train_y.bin")?;
    let test = labelled(&root, "test_X.bin", "test_y.bin")?;
    let (folds_path, unlabelled_path) = (root.join(FOLDS_FILE), root.join(UNLABELLED));
    let folds = if folds_path.is_file() {
        Some(folds(&folds_path, train.len())?)
    } else {
        None
    };
    let unlabelled = if unlabelled_path.is_file() {
        Some(images(&root, UNLABELLED)?)
    } else {
        None
    };
    let short = [
        ("train_X.bin", train.len(), 5_000),
        ("test_X.bin", test.len(), 8_000),
        (
            UNLABELLED,
            unlabelled.as_ref().map_or(usize::MAX, Split::len),
            100_000,
        ),
    ];
    let short = short.map(|(file, records, published)| files::short_file(file, records, published));
    let missing = unlabelled.is_none().then_some(unlabelled_path);
    let name = files::dataset_name(&root, "STL-10")?;
    let mut dataset = Dataset::new(name, classes, train, test, unlabelled)?;
    dataset.missing_unlabelled = missing;
    dataset.folds = folds;
    dataset.findings.short_files = short.into_iter().flatten().collect();
    Ok(dataset)
}

fn labelled(root: &Path, pixels: &str, labels: &str) -> Result<Split> {
    let count = SOURCE.records(&root.join(pixels), IMAGE)?;
    let path = root.join(labels);
    let label_count = SOURCE.records(&path, 1)?;
    if label_count != count {
        let message = format!(
            "{label_count} labels for the {count} images of {pixels}; expected one label an image"
        );
        return Err(Error::data(&path, message));
    }
    let mut indices = Vec::with_capacity(count);
    for (i, label) in files::read_exactly(&path, count)?.into_iter().enumerate() {
        if !(1..=CLASSES).contains(&usize::from(label)) {
            let message = format!(
                "record {i} (counted from 0) has the label {label}; expected 1 to {CLASSES}. The file is damaged or \
                 of another format"
            );
            return Err(Error::data(&path, message));
        }
        indices.push(u32::from(label) - 1);
    }
    let mut split = images(root, pixels)?;
    split.labels = Some(indices);
    Ok(split)
}

fn images(root: &Path, name: &str) -> Result<Split> {
    let count = SOURCE.records(&root.join(name), IMAGE)?;
    // In place, because the unlabelled split alone takes 2.8 GB.
    let mut images = files::read_exactly(&root.join(name), count * IMAGE)?;
    for plane in images.chunks_exact_mut(PLANE) {
        transpose(plane);
    }
    Ok(Split {
        images: images.into(),
        labels: None,
        files: Vec::new(),
        height: SIDE,
        width: SIDE,
    })
}

/// Turns a square plane from column-major into row-major order.
fn transpose(plane: &mut [u8]) {
    for row in 1..SIDE {
        for column in 0..row {
            plane.swap(row * SIDE + column, column * SIDE + row);
        }
    }
}

fn folds(path: &Path, images: usize) -> Result<Vec<Vec<u32>>> {
    let lines = files::lines(path)?;
    if lines.len() != FOLDS {
        let message = format!("{} lines, expected {FOLDS} folds, one a line", lines.len());
        return Err(Error::data(path, message));
    }
    let mut folds = Vec::with_capacity(FOLDS);
    for (i, line) in lines.iter().enumerate() {
        let mut fold = Vec::new();
        for word in line.split_whitespace() {
            match word.parse::<u32>() {
                Ok(index) if (index as usize) < images => fold.push(index),
                _ => {
                    let message = format!(
                        "line {} holds '{word}'; expected indices of training images, 0 to {}",
                        i + 1,
                        images - 1
                    );
                    return Err(Error::data(path, message));
                }
            }
        }
        folds.push(fold);
    }
    Ok(folds)
}
