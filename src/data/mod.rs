//! Image data sets: their sources, the order of samples, and fractions of labels. The images of a
//! folder may be streamed: they are decoded again for each batch, and not held in memory.
//!
//! Everything is host code. Pixels are bytes in planes (N x 3 x H x W, red, green, blue), which is
//! how the devices take them; labels are class indices from 0.

mod archive;
mod check;
mod cifar;
mod decoding;
#[cfg(feature = "cli")]
pub mod fetch;
mod files;
mod findings;
mod folder;
mod image_file;
mod options;
mod parallel;
mod pickle;
mod read_ahead;
mod resize;
mod sampling;
pub mod shapes;
mod shared;
mod split;
mod stl10;
mod stream;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, listed};
use crate::sha256::hex;
use decoding::Outcome;

pub use findings::{Findings, ShortFile};
pub use options::{DataKind, HoldImages, LoadOptions, OnBadImage};
pub use read_ahead::ReadAhead;
pub use sampling::{EpochSampler, batches};
pub use shared::read_once;
pub use split::label_fraction;
pub use stream::Stream;

/// Images of one size, with or without labels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Split {
    // Ranks exchange the pixels beside the rest.
    #[serde(skip)]
    pub images: Images,
    /// One class index per image, below the number of classes. `None` if the split is unlabelled.
    pub labels: Option<Vec<u32>>,
    /// The file of each image, as a path below the data set's folder. Empty if images have no files
    /// of their own.
    pub files: Vec<String>,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
}

/// The pixels of a split: N x 3 x height x width bytes, row-major planes in the order red, green,
/// blue.
#[derive(Clone, Debug)]
pub enum Images {
    Held(Vec<u8>),
    /// Image files that are decoded each time that their pixels are needed.
    Streamed(Stream),
}

impl Default for Images {
    fn default() -> Self {
        Images::Held(Vec::new())
    }
}

impl From<Vec<u8>> for Images {
    fn from(pixels: Vec<u8>) -> Self {
        Images::Held(pixels)
    }
}

impl Split {
    /// The number of images.
    pub fn len(&self) -> usize {
        match &self.images {
            Images::Held(pixels) => pixels.len() / self.image_bytes(),
            Images::Streamed(stream) => stream.len(),
        }
    }

    /// True if there is no image.
    pub fn is_empty(&self) -> bool {
        match &self.images {
            Images::Held(pixels) => pixels.is_empty(),
            Images::Streamed(stream) => stream.len() == 0,
        }
    }

    /// Bytes of one image: 3 x `height` x `width`.
    pub fn image_bytes(&self) -> usize {
        3 * self.height * self.width
    }

    /// The images at `indices`, each below [`Split::len`], with their labels, in this order.
    pub fn subset(&self, indices: &[u32]) -> Split {
        let bytes = self.image_bytes();
        Split {
            images: match &self.images {
                Images::Held(pixels) => {
                    let image = |&i: &u32| &pixels[i as usize * bytes..][..bytes];
                    Images::Held(indices.iter().flat_map(image).copied().collect())
                }
                Images::Streamed(stream) => Images::Streamed(stream.subset(indices)),
            },
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
    ///
    /// # Errors
    /// [`Error::Data`] if a streamed image can no longer be decoded.
    pub fn image(&self, i: usize) -> Result<Cow<'_, [u8]>> {
        let bytes = self.image_bytes();
        match &self.images {
            Images::Held(pixels) => Ok(Cow::Borrowed(&pixels[i * bytes..][..bytes])),
            Images::Streamed(stream) => stream.decode(i).map(Cow::Owned),
        }
    }

    /// The pixels of all images.
    ///
    /// # Errors
    /// As [`Split::image`].
    pub fn pixels(&self) -> Result<Cow<'_, [u8]>> {
        match &self.images {
            Images::Held(pixels) => Ok(Cow::Borrowed(pixels)),
            Images::Streamed(stream) => {
                let mut pixels = Vec::with_capacity(self.len() * self.image_bytes());
                stream.read(|part| pixels.extend_from_slice(part))?;
                Ok(Cow::Owned(pixels))
            }
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
    /// # Errors
    /// As [`Split::image`].
    fn new(
        name: String,
        classes: Vec<String>,
        train: Split,
        test: Split,
        unlabelled: Option<Split>,
    ) -> Result<Self> {
        let digest = digest([Some(&train), Some(&test), unlabelled.as_ref()], None)?;
        let splits = (train, test, unlabelled);
        Ok(Dataset::with_digest(name, classes, splits, digest))
    }

    fn with_digest(
        name: String,
        classes: Vec<String>,
        (train, test, unlabelled): (Split, Split, Option<Split>),
        digest: String,
    ) -> Self {
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

    /// The classes without test images. Empty if the test set has no labels.
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
            let other = if missing.is_empty() {
                String::new()
            } else {
                format!(
                    "; {} does not have these of the file: {}",
                    self.name,
                    listed(missing, ", ")
                )
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

    /// The same data set with square images of `size` pixels.
    fn with_squares(mut self, size: usize) -> Result<Self> {
        self.train = self.train.centre_squares(size);
        self.test = self.test.centre_squares(size);
        self.unlabelled = self.unlabelled.map(|split| split.centre_squares(size));
        let splits = [
            Some(&self.train),
            Some(&self.test),
            self.unlabelled.as_ref(),
        ];
        self.digest = digest(splits, None)?;
        Ok(self)
    }

    /// The same data set for an evaluation at `resolution`: images that are not square become
    /// squares of this size. Square ones are left to the device, which resizes them.
    ///
    /// # Errors
    /// As [`Split::image`]: the digest of streamed images needs all of them.
    pub fn at_resolution(self, resolution: usize) -> Result<Self> {
        if self.train.height == self.train.width {
            Ok(self)
        } else {
            self.with_squares(resolution)
        }
    }

    /// The part `fraction` of the test images, the same of each class that has any, drawn by
    /// `seed`.
    ///
    /// # Errors
    /// [`Error::Usage`] if the test images have no labels, or as [`label_fraction`].
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
    /// [`Error::Usage`] if it has none.
    pub fn labels_of<'a>(&self, split: &'a Split, name: &str) -> Result<&'a [u32]> {
        split.labels.as_deref().ok_or_else(|| {
            let missing = if split.is_empty() {
                format!("{} has no {name} images", self.name)
            } else {
                format!("the {name} images of {} have no labels", self.name)
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
        (DataKind::Shapes, None) => shapes::generate(seed)?,
        (DataKind::ShapesInverted, None) => shapes::generate_inverted(seed)?,
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
    let Some(size) = options.size else {
        return Ok(dataset);
    };
    let mut dataset = dataset.with_squares(size)?;
    dataset.findings.size = Some(size);
    Ok(dataset)
}

/// SHA-256 over sizes, pixels and labels, in hexadecimal. If `outcomes` is given, it receives what
/// became of the file of each streamed image, and an image that cannot be decoded is no error. The
/// digest then has no meaning.
fn digest(splits: [Option<&Split>; 3], mut outcomes: Option<&mut Vec<Outcome>>) -> Result<String> {
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
        match (&split.images, &mut outcomes) {
            (Images::Held(pixels), _) => hasher.update(pixels),
            (Images::Streamed(stream), None) => stream.read(|part| hasher.update(part))?,
            (Images::Streamed(stream), Some(outcomes)) => {
                outcomes.extend(stream.check(|part| hasher.update(part))?);
            }
        }
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
    Ok(hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pixels: &[u8], labels: Option<Vec<u32>>) -> Split {
        Split {
            images: pixels.to_vec().into(),
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
        assert_eq!(split.image(1).unwrap()[..], [6, 7, 8, 9, 10, 11]);
        let labelled = Split {
            labels: Some(vec![4, 7]),
            files: vec!["a".to_string(), "b".to_string()],
            ..split
        };
        let turned = labelled.subset(&[1, 0]);
        let pixels = turned.pixels().unwrap();
        assert_eq!(pixels[..], [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
        assert_eq!(turned.labels, Some(vec![7, 4]));
        assert_eq!(turned.files, ["b", "a"]);
    }

    #[test]
    fn the_digest_sees_pixels_labels_and_sizes() {
        let base = split(&[0; 6], Some(vec![1]));
        let mut pixel = base.clone();
        pixel.images = vec![0, 0, 0, 1, 0, 0].into();
        let label = split(&[0; 6], Some(vec![2]));
        let mut shape = base.clone();
        (shape.height, shape.width) = (2, 1);
        let all: Vec<String> = [&base, &pixel, &label, &shape]
            .iter()
            .map(|s| digest([Some(s), None, None], None).unwrap())
            .chain([digest([None, Some(&base), None], None).unwrap()])
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
