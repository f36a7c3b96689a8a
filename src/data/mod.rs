//! Image data sets as bytes in memory: where they come from, in which order they are visited, how labels are divided.
//!
//! Everything is host code. Pixels are bytes in planes (N x 3 x H x W, red, green, blue), which is how the devices take
//! them; labels are class indices from 0.

mod cifar10;
mod files;
mod folder;
mod sampling;
mod shapes;
mod split;
mod stl10;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

pub use sampling::{EpochSampler, batches};
pub use split::label_fraction;

/// Images of one size, with or without labels.
#[derive(Clone, Debug)]
pub struct Split {
    /// N x 3 x `height` x `width`, row-major planes in the order red, green, blue.
    pub images: Vec<u8>,
    /// One class index an image, each below the number of classes. `None` where the split is unlabelled.
    pub labels: Option<Vec<u32>>,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
}

impl Split {
    /// The number of images.
    pub fn len(&self) -> usize {
        self.images.len() / self.image_bytes()
    }

    /// True if there is no image.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Bytes of one image: 3 x `height` x `width`.
    pub fn image_bytes(&self) -> usize {
        3 * self.height * self.width
    }

    /// The images at `indices`, each below [`Split::len`], with their labels, in this order.
    pub fn subset(&self, indices: &[u32]) -> Split {
        Split {
            images: indices
                .iter()
                .flat_map(|&i| self.image(i as usize))
                .copied()
                .collect(),
            labels: self
                .labels
                .as_ref()
                .map(|labels| indices.iter().map(|&i| labels[i as usize]).collect()),
            height: self.height,
            width: self.width,
        }
    }

    /// The three planes of image `i`, which is below [`Split::len`].
    pub fn image(&self, i: usize) -> &[u8] {
        let bytes = self.image_bytes();
        &self.images[i * bytes..(i + 1) * bytes]
    }
}

/// A data set with its splits. What [`load`] returns is consistent: lengths fit sizes and labels fit classes.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The name that results carry: the content of `dataset-name.txt` beside the files where there is one.
    pub name: String,
    /// The name of each class, by label.
    pub classes: Vec<String>,
    /// The labelled training images.
    pub train: Split,
    /// The held-out images.
    pub test: Split,
    /// Images without labels for pretraining. Only STL-10 has them.
    pub unlabelled: Option<Split>,
    /// STL-10's ten predefined subsets of the training images, as indices into `train`.
    pub folds: Option<Vec<Vec<u32>>>,
    /// SHA-256 over sizes, pixels and labels of every split, in hexadecimal.
    pub digest: String,
}

impl Dataset {
    fn new(
        name: String,
        classes: Vec<String>,
        train: Split,
        test: Split,
        unlabelled: Option<Split>,
    ) -> Self {
        let digest = digest([Some(&train), Some(&test), unlabelled.as_ref()]);
        Dataset {
            name,
            classes,
            train,
            test,
            unlabelled,
            folds: None,
            digest,
        }
    }

    /// The split that pretraining reads: the unlabelled images where there are any, else the training images.
    pub fn pretraining(&self) -> &Split {
        self.unlabelled.as_ref().unwrap_or(&self.train)
    }

    /// The part `fraction` of the test images, the same of each class, drawn by `seed`.
    ///
    /// # Errors
    /// [`Error::Usage`] where the test images have no labels, or as [`label_fraction`].
    pub fn test_part(&self, fraction: f64, seed: u64) -> Result<Split> {
        let labels = self.labels_of(&self.test, "test")?;
        let members = label_fraction(labels, self.classes.len(), fraction, seed)?;
        Ok(self.test.subset(&members))
    }

    /// The labels of `split`, one of this set's own, which messages call `name`.
    ///
    /// # Errors
    /// [`Error::Usage`] where it has none.
    pub fn labels_of<'a>(&self, split: &'a Split, name: &str) -> Result<&'a [u32]> {
        split.labels.as_deref().ok_or_else(|| {
            Error::usage(format!(
                "the {name} images of {} have no labels; this needs a labelled set",
                self.name
            ))
        })
    }
}

/// Where the images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataKind {
    /// Images that the program draws.
    Shapes,
    /// The same shapes, dark on light, on smaller images: a second data set to transfer to.
    #[serde(rename = "shapes-inverted")]
    ShapesInverted,
    /// CIFAR-10, binary version (Krizhevsky 2009).
    Cifar10,
    /// STL-10, binary version (Coates, Lee, Ng 2011).
    Stl10,
    /// Image files in a folder for each class.
    Folder,
}

impl DataKind {
    /// Every kind, in the order that help texts list them.
    pub const ALL: [DataKind; 5] = [
        DataKind::Shapes,
        DataKind::ShapesInverted,
        DataKind::Cifar10,
        DataKind::Stl10,
        DataKind::Folder,
    ];

    /// The word that stands for the kind on the command line and in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            DataKind::Shapes => "shapes",
            DataKind::ShapesInverted => "shapes-inverted",
            DataKind::Cifar10 => "cifar10",
            DataKind::Stl10 => "stl10",
            DataKind::Folder => "folder",
        }
    }
}

impl fmt::Display for DataKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DataKind {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        DataKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| {
                let known = DataKind::ALL.map(DataKind::as_str).join(", ");
                Error::usage(format!("unknown data set '{word}'; use one of {known}"))
            })
    }
}

/// Loads the data set of `kind`.
///
/// `dir` is the folder of its files (for [`DataKind::Shapes`] there are none, and it must be `None`). `seed` only
/// matters to [`DataKind::Shapes`]: another seed draws other images.
///
/// # Errors
/// [`Error::Usage`] if `dir` is missing or not wanted, [`Error::Data`] for files that are missing or wrong, naming
/// the official address and the expected files and sizes, and [`Error::Io`] for files that cannot be read.
pub fn load(kind: DataKind, dir: Option<&Path>, seed: u64) -> Result<Dataset> {
    match (kind, dir) {
        (DataKind::Shapes, None) => Ok(shapes::generate(seed)),
        (DataKind::ShapesInverted, None) => Ok(shapes::generate_inverted(seed)),
        (DataKind::Shapes | DataKind::ShapesInverted, Some(dir)) => Err(Error::usage(format!(
            "the data set '{kind}' is drawn by the program and reads no files, but a data folder is given ({}); \
             leave the folder out or choose another data set",
            dir.display()
        ))),
        (DataKind::Cifar10, Some(dir)) => cifar10::load(dir),
        (DataKind::Stl10, Some(dir)) => stl10::load(dir),
        (DataKind::Folder, Some(dir)) => folder::load(dir),
        (kind, None) => {
            let expected = match kind {
                DataKind::Cifar10 => cifar10::SOURCE.describe(),
                DataKind::Stl10 => stl10::SOURCE.describe(),
                _ => folder::LAYOUT.to_string(),
            };
            Err(Error::usage(format!(
                "the data set '{kind}' needs the folder of its files (--data-dir): {expected}"
            )))
        }
    }
}

fn digest(splits: [Option<&Split>; 3]) -> String {
    let mut hasher = Sha256::new();
    // Lengths go first, so that no two data sets are the same string of bytes.
    for split in splits {
        let Some(split) = split else {
            hasher.update([0]);
            continue;
        };
        hasher.update([1]);
        for size in [split.len(), split.height, split.width] {
            hasher.update((size as u64).to_le_bytes());
        }
        hasher.update(&split.images);
        match &split.labels {
            None => hasher.update([0]),
            Some(labels) => {
                hasher.update([1]);
                for label in labels {
                    hasher.update(label.to_le_bytes());
                }
            }
        }
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pixels: &[u8], labels: Option<Vec<u32>>) -> Split {
        Split {
            images: pixels.to_vec(),
            labels,
            height: 1,
            width: 2,
        }
    }

    #[test]
    fn an_image_is_its_three_planes() {
        let split = split(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], None);
        assert_eq!((split.len(), split.image_bytes()), (2, 6));
        assert_eq!(split.image(1), [6, 7, 8, 9, 10, 11]);
        let labelled = Split {
            labels: Some(vec![4, 7]),
            ..split
        };
        let turned = labelled.subset(&[1, 0]);
        assert_eq!(turned.images, [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
        assert_eq!(turned.labels, Some(vec![7, 4]));
    }

    #[test]
    fn the_digest_sees_pixels_labels_and_sizes() {
        let base = split(&[0; 6], Some(vec![1]));
        let mut pixel = base.clone();
        pixel.images[3] = 1;
        let label = split(&[0; 6], Some(vec![2]));
        let mut shape = base.clone();
        (shape.height, shape.width) = (2, 1);
        let all: Vec<String> = [&base, &pixel, &label, &shape]
            .iter()
            .map(|s| digest([Some(s), None, None]))
            .chain([digest([None, Some(&base), None])])
            .collect();
        for (i, a) in all.iter().enumerate() {
            assert_eq!(a.len(), 64);
            assert!(all[i + 1..].iter().all(|b| a != b), "{all:?}");
        }
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in DataKind::ALL {
            assert_eq!(kind.to_string().parse::<DataKind>().unwrap(), kind);
        }
        let message = "mnist".parse::<DataKind>().unwrap_err().to_string();
        assert!(
            message.contains("'mnist'") && message.contains("cifar10"),
            "{message}"
        );
    }

    #[test]
    fn a_folder_is_asked_for_where_it_is_needed_and_refused_where_it_is_not() {
        let refused = load(DataKind::Shapes, Some(Path::new("somewhere")), 0).unwrap_err();
        assert!(
            matches!(&refused, Error::Usage(m) if m.contains("somewhere")),
            "{refused}"
        );
        for (kind, word) in [
            (DataKind::Cifar10, "cifar-10-binary.tar.gz"),
            (DataKind::Stl10, "stl10_binary.tar.gz"),
            (DataKind::Folder, "train/"),
        ] {
            let missing = load(kind, None, 0).unwrap_err();
            assert!(
                matches!(&missing, Error::Usage(m) if m.contains(word)),
                "{missing}"
            );
        }
    }
}
