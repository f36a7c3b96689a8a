//! Image data sets as bytes in memory: their sources, the order of samples, and fractions of labels.
//!
//! Everything is host code. Pixels are bytes in planes (N x 3 x H x W, red, green, blue), which is
//! how the devices take them; labels are class indices from 0.

mod archive;
mod cifar;
#[cfg(feature = "cli")]
pub mod fetch;
mod files;
mod findings;
mod folder;
mod image_file;
mod parallel;
mod pickle;
mod resize;
mod sampling;
pub mod shapes;
mod shared;
mod split;
mod stl10;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, listed};
use crate::sha256::hex;

pub use findings::{Findings, ShortFile};
pub use sampling::{EpochSampler, batches};
pub use shared::read_once;
pub use split::label_fraction;

/// Images of one size, with or without labels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Split {
    /// N x 3 x `height` x `width`, row-major planes in the order red, green, blue.
    // Ranks exchange the pixels beside the rest.
    #[serde(skip)]
    pub images: Vec<u8>,
    /// One class index an image, each below the number of classes. `None` where the split is
    /// unlabelled.
    pub labels: Option<Vec<u32>>,
    /// The file of each image, as a path below the data set's folder. Empty if images have no files
    /// of their own.
    pub files: Vec<String>,
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
            files: indices
                .iter()
                .filter_map(|&i| self.files.get(i as usize).cloned())
                .collect(),
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

/// How the files of a data set are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Side in pixels of the images: the shorter side is resized to it with antialiasing, and the
    /// centre is cropped. `None` leaves images as they are, and they must have one size.
    pub size: Option<usize>,
    pub on_bad_image: OnBadImage,
}

/// What happens if an image file cannot be decoded whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadImage {
    /// The data set is refused, and all such files are named.
    #[default]
    Error,
    /// The file is left out, counted and recorded.
    Skip,
}

impl FromStr for OnBadImage {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "error" => Ok(OnBadImage::Error),
            "skip" => Ok(OnBadImage::Skip),
            _ => Err(Error::usage(format!("'{word}' is neither error nor skip"))),
        }
    }
}

/// A data set with its splits. What [`load`] returns is consistent: lengths fit sizes and labels
/// fit classes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dataset {
    /// The name in results. A file `dataset-name.txt` beside the images replaces the usual name.
    pub name: String,
    /// The name of each class, by label. There are none if the images have no labels.
    pub classes: Vec<String>,
    /// The training images, which have labels unless they are a folder without class folders.
    pub train: Split,
    /// The held-out images. There are none if a folder of images has no test set.
    pub test: Split,
    /// Images without labels for pretraining. Only STL-10 has them.
    pub unlabelled: Option<Split>,
    /// The file of the unlabelled images if the data set has them and the folder does not.
    pub missing_unlabelled: Option<PathBuf>,
    /// STL-10's ten predefined subsets of the training images, as indices into `train`.
    pub folds: Option<Vec<Vec<u32>>>,
    pub findings: Findings,
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
            missing_unlabelled: None,
            folds: None,
            findings: Findings::default(),
            digest,
        }
    }

    /// The split that pretraining reads: the unlabelled images, or the training images if there are
    /// none.
    pub fn pretraining(&self) -> &Split {
        self.unlabelled.as_ref().unwrap_or(&self.train)
    }

    /// Fails if the images that pretraining reads are missing.
    ///
    /// # Errors
    /// [`Error::Data`] naming their file.
    pub fn check_pretraining(&self) -> Result<()> {
        match &self.missing_unlabelled {
            None => Ok(()),
            Some(path) => Err(Error::data(
                path,
                format!("does not exist; {}", stl10::SOURCE.describe()),
            )),
        }
    }

    /// The classes of which the test set has no image. None if it has no labels.
    pub fn absent_classes(&self) -> Vec<String> {
        let Some(labels) = &self.test.labels else {
            return Vec::new();
        };
        let mut is_there = vec![false; self.classes.len()];
        for &label in labels {
            is_there[label as usize] = true;
        }
        let all = self.classes.iter().zip(is_there);
        all.filter(|(_, is_there)| !is_there)
            .map(|(class, _)| class.clone())
            .collect()
    }

    /// The same images with the labels of `classes`, which has all classes of this set.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the classes that are not in `classes`, and those of `classes` that
    /// this set does not have. `whose` is the owner of `classes`.
    pub fn relabelled(mut self, classes: &[String], whose: &str) -> Result<Dataset> {
        let place = |class: &String| classes.iter().position(|known| known == class);
        let unknown: Vec<&String> = self.classes.iter().filter(|c| place(c).is_none()).collect();
        if !unknown.is_empty() {
            let missing = classes.iter().filter(|class| !self.classes.contains(class));
            let missing: Vec<&String> = missing.collect();
            let other = match missing.is_empty() {
                true => String::new(),
                false => format!(
                    "; {} does not have these of the file: {}",
                    self.name,
                    listed(missing, ", ")
                ),
            };
            return Err(Error::usage(format!(
                "{whose} does not have these classes of {1}: {0}{other}",
                listed(unknown, ", "),
                self.name
            )));
        }
        for labels in [&mut self.train.labels, &mut self.test.labels]
            .into_iter()
            .flatten()
        {
            for label in labels {
                *label = place(&self.classes[*label as usize]).unwrap_or_default() as u32;
            }
        }
        self.classes = classes.to_vec();
        Ok(self)
    }

    fn new_digest(&self) -> String {
        digest([
            Some(&self.train),
            Some(&self.test),
            self.unlabelled.as_ref(),
        ])
    }

    /// The same data set with square images of `size` pixels.
    fn with_size(mut self, size: usize) -> Self {
        self.train = self.train.centre_squares(size);
        self.test = self.test.centre_squares(size);
        self.unlabelled = self.unlabelled.map(|split| split.centre_squares(size));
        self.digest = self.new_digest();
        self.findings.size = Some(size);
        self
    }

    /// The same data set for an evaluation at `resolution`: images that are not square become
    /// squares of this size. Square ones are left to the device, which resizes them.
    pub fn at_resolution(mut self, resolution: usize) -> Self {
        if self.train.height != self.train.width {
            self.train = self.train.centre_squares(resolution);
            self.test = self.test.centre_squares(resolution);
            self.unlabelled = self
                .unlabelled
                .map(|split| split.centre_squares(resolution));
            self.digest = self.new_digest();
        }
        self
    }

    /// The part `fraction` of the test images, the same of each class that has any, drawn by
    /// `seed`.
    ///
    /// # Errors
    /// [`Error::Usage`] where the test images have no labels, or as [`label_fraction`].
    pub fn test_part(&self, fraction: f64, seed: u64) -> Result<Split> {
        Ok(self.test.subset(&self.test_members(fraction, seed)?))
    }

    /// The images of [`Dataset::test_part`], as indices into the test images.
    ///
    /// # Errors
    /// As [`Dataset::test_part`].
    pub fn test_members(&self, fraction: f64, seed: u64) -> Result<Vec<u32>> {
        let labels = self.labels_of(&self.test, "test")?;
        split::fraction_of_present(labels, &self.classes, fraction, seed)
    }

    /// The labels of `split`, one of this set's own, which messages call `name`.
    ///
    /// # Errors
    /// [`Error::Usage`] where it has none.
    pub fn labels_of<'a>(&self, split: &'a Split, name: &str) -> Result<&'a [u32]> {
        split.labels.as_deref().ok_or_else(|| {
            let missing = match split.is_empty() {
                true => format!("{} has no {name} images", self.name),
                false => format!("the {name} images of {} have no labels", self.name),
            };
            let expected = match name {
                "test" => {
                    "expected DIR/test/CLASS/... or DIR/val/CLASS/... beside DIR/train/CLASS/..."
                }
                _ => "expected class folders: DIR/train/CLASS/... or DIR/CLASS/...",
            };
            Error::usage(format!("{missing}; this command needs them, {expected}"))
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
    /// CIFAR-10 (Krizhevsky 2009).
    Cifar10,
    /// CIFAR-100 with its fine labels (Krizhevsky 2009).
    Cifar100,
    /// STL-10, binary version (Coates, Lee, Ng 2011).
    Stl10,
    /// Image files, in a folder for each class or without labels.
    Folder,
}

impl DataKind {
    /// Every kind, in the order that help texts list them.
    pub const ALL: [DataKind; 6] = [
        DataKind::Shapes,
        DataKind::ShapesInverted,
        DataKind::Cifar10,
        DataKind::Cifar100,
        DataKind::Stl10,
        DataKind::Folder,
    ];

    /// The word that stands for the kind on the command line and in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            DataKind::Shapes => "shapes",
            DataKind::ShapesInverted => "shapes-inverted",
            DataKind::Cifar10 => "cifar10",
            DataKind::Cifar100 => "cifar100",
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

/// Loads the data set of `kind` with default options. Otherwise as [`load_with`].
///
/// # Errors
/// As [`load_with`].
pub fn load(kind: DataKind, dir: Option<&Path>, seed: u64) -> Result<Dataset> {
    load_with(kind, dir, seed, &LoadOptions::default())
}

/// Loads the data set of `kind`.
///
/// `dir` is the folder of its files (for [`DataKind::Shapes`] there are none, and it must be
/// `None`). `seed` only matters to [`DataKind::Shapes`]: another seed draws other images.
///
/// # Errors
/// [`Error::Usage`] if `dir` is missing or not wanted, [`Error::Data`] for files that are missing
/// or wrong, naming the official address and the expected files and sizes, and [`Error::Io`] for
/// files that cannot be read.
pub fn load_with(
    kind: DataKind,
    dir: Option<&Path>,
    seed: u64,
    options: &LoadOptions,
) -> Result<Dataset> {
    let described = || match kind {
        DataKind::Cifar10 => cifar::CIFAR10.describe(),
        DataKind::Cifar100 => cifar::CIFAR100.describe(),
        DataKind::Stl10 => stl10::SOURCE.describe(),
        _ => folder::LAYOUT.to_string(),
    };
    let dataset = match (kind, dir) {
        (DataKind::Shapes, None) => shapes::generate(seed),
        (DataKind::ShapesInverted, None) => shapes::generate_inverted(seed),
        (DataKind::Shapes | DataKind::ShapesInverted, Some(dir)) => {
            return Err(Error::usage(format!(
                "the data set '{kind}' is drawn by the program and reads no files, but a data folder is given ({}); \
                 leave the folder out or choose another data set",
                dir.display()
            )));
        }
        (_, None) => {
            return Err(Error::usage(format!(
                "the data set '{kind}' needs the folder of its files (--data-dir): {}",
                described()
            )));
        }
        (_, Some(dir)) if !dir.exists() => {
            let message = format!("the folder does not exist; {}", described());
            return Err(Error::data(dir, message));
        }
        (_, Some(dir)) if !dir.is_dir() => {
            return Err(Error::data(
                dir,
                "is a file: unpack it, and name the folder that holds the files",
            ));
        }
        (DataKind::Cifar10, Some(dir)) => cifar::load(dir, &cifar::CIFAR10)?,
        (DataKind::Cifar100, Some(dir)) => cifar::load(dir, &cifar::CIFAR100)?,
        (DataKind::Stl10, Some(dir)) => stl10::load(dir)?,
        (DataKind::Folder, Some(dir)) => return folder::load(dir, options),
    };
    Ok(match options.size {
        Some(size) => dataset.with_size(size),
        None => dataset,
    })
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
    hex(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pixels: &[u8], labels: Option<Vec<u32>>) -> Split {
        Split {
            images: pixels.to_vec(),
            labels,
            files: Vec::new(),
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
            files: vec!["a".to_string(), "b".to_string()],
            ..split
        };
        let turned = labelled.subset(&[1, 0]);
        assert_eq!(turned.images, [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
        assert_eq!(turned.labels, Some(vec![7, 4]));
        assert_eq!(turned.files, ["b", "a"]);
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
