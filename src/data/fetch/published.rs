//! The archives that the authors of data sets published.

use crate::data::files::Source;
use crate::data::{DataKind, cifar, stl10};
use crate::error::{Error, Result};

/// An archive as its authors published it.
#[derive(Clone, Copy)]
pub struct Published {
    pub(super) source: &'static Source,
    pub(super) bytes: u64,
    pub(super) sha256: &'static str,
    /// More than its files have, unpacked.
    pub(super) most_unpacked: u64,
    pub(super) terms: &'static str,
}

const CIFAR_TERMS: &str = "no licence is published with it; its authors request this citation: A. Krizhevsky, \
                           Learning Multiple Layers of Features from Tiny Images, 2009 \
                           (https://www.cs.toronto.edu/~kriz/cifar.html)";
const STL10_TERMS: &str = "no licence is published with it, and the images are from ImageNet; its authors request this \
                           citation: A. Coates, H. Lee, A. Y. Ng, An Analysis of Single Layer Networks in Unsupervised \
                           Feature Learning, AISTATS 2011 (https://cs.stanford.edu/~acoates/stl10)";

impl Published {
    /// The binary version of the data set `kind`.
    ///
    /// # Errors
    /// `Error::Usage` if it is not published as an archive.
    pub fn of(kind: DataKind) -> Result<Self> {
        // Sizes and digests as in tensorflow_datasets, which has had them since 2019.
        match kind {
            DataKind::Cifar10 => Ok(Published {
                source: cifar::CIFAR10.binary_source(),
                bytes: 170_052_171,
                sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                most_unpacked: 200_000_000,
                terms: CIFAR_TERMS,
            }),
            DataKind::Cifar100 => Ok(Published {
                source: cifar::CIFAR100.binary_source(),
                bytes: 168_513_733,
                sha256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                most_unpacked: 200_000_000,
                terms: CIFAR_TERMS,
            }),
            DataKind::Stl10 => Ok(Published {
                source: &stl10::SOURCE,
                bytes: 2_640_397_119,
                sha256: "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
                most_unpacked: 3_300_000_000,
                terms: STL10_TERMS,
            }),
            DataKind::Shapes | DataKind::ShapesInverted | DataKind::Folder => {
                Err(Error::usage(format!(
                    "the data set '{kind}' cannot be fetched; expected cifar10, cifar100 or stl10"
                )))
            }
        }
    }

    /// The name of the data set and its version.
    pub fn title(&self) -> &'static str {
        self.source.title
    }

    /// The official address.
    pub fn address(&self) -> &'static str {
        self.source.address
    }

    /// Bytes of the archive.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The licence and the citation that the authors request.
    pub fn terms(&self) -> &'static str {
        self.terms
    }

    /// The name of the archive.
    pub(super) fn file(&self) -> &'static str {
        let parts = self.source.address.rsplit('/');
        parts.into_iter().next().unwrap_or_default()
    }
}
