//! The names of data sets, and how they are read.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The source of the images.
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

    /// The name of the kind on the command line and in configurations.
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

/// How the files of a data set are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Side in pixels of the images: the shorter side is resized to it with antialiasing, and the
    /// centre is cropped. `None` leaves images as they are, and they must have one size.
    pub size: Option<usize>,
    pub on_bad_image: OnBadImage,
    /// Bytes of the decoded images of a folder, both splits together, above which they are streamed
    /// and not held. With `u64::MAX`, the default, they are always held.
    pub held_bytes: u64,
    /// The folder that remembers which files of a streamed set were found to decode whole, so that
    /// they are not decoded again before the next run.
    pub checks: Option<PathBuf>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            size: None,
            on_bad_image: OnBadImage::default(),
            held_bytes: u64::MAX,
            checks: None,
        }
    }
}

/// Whether the decoded images of a folder are held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldImages {
    /// Unless they take more than a part of the free memory.
    Auto,
    Always,
    /// They are decoded again for each batch.
    Never,
}

impl FromStr for HoldImages {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "auto" => Ok(HoldImages::Auto),
            "always" => Ok(HoldImages::Always),
            "never" => Ok(HoldImages::Never),
            _ => Err(Error::usage(format!(
                "'{word}' is none of auto, always and never"
            ))),
        }
    }
}

/// The reaction to an image file that cannot be decoded whole.
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
