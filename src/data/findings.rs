//! Facts about data files that affect results: the notices of a command and the same facts for its
//! records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::files::thousands;
use crate::error::listed;

/// Facts about the files of a data set. What does not apply is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Findings {
    /// Side in pixels to which the images were resized and cropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// The folder that serves as the test set, if it is not called `test`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_folder: Option<String>,
    /// Image files that could not be decoded whole and were left out, if that is allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_images: Option<usize>,
    /// Their paths below the folder of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_files: Option<Vec<String>>,
    /// Images that their EXIF orientation turned or mirrored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turned_images: Option<usize>,
    /// Images whose transparency was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transparent_images: Option<usize>,
    /// Bytes of the decoded images, if they are not held in memory but decoded for each batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streamed_bytes: Option<u64>,
    /// Image files that belong to no split or class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused_images: Option<usize>,
    /// Their paths below the folder of the data.
    #[serde(skip)]
    pub unused_files: Vec<String>,
    /// Files with fewer records than the published ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub short_files: Vec<ShortFile>,
    /// Number of image files of kinds that are not read, by suffix.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unread_files: BTreeMap<String, usize>,
}

/// A file with fewer records than the published one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShortFile {
    pub file: String,
    pub records: usize,
    pub published: usize,
}

impl Findings {
    /// Counts the image files of kinds that are not read, if there are any.
    pub fn unread_notice(&self) -> Option<String> {
        if self.unread_files.is_empty() {
            return None;
        }
        let total: usize = self.unread_files.values().sum();
        let kinds = self.unread_files.iter();
        let kinds = kinds.map(|(suffix, count)| format!("{count} {suffix}"));
        Some(format!(
            "{total} image files of kinds that are not read are passed over: {}",
            listed(kinds, ", ")
        ))
    }

    /// One line for each fact, without those that the user asked for.
    pub fn notices(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(folder) = &self.test_folder {
            lines.push(format!("the test set is the folder {folder}"));
        }
        if let (Some(count @ 1..), Some(files)) = (self.skipped_images, &self.skipped_files) {
            lines.push(format!(
                "{count} image files that cannot be decoded whole are left out: {}",
                listed(files, ", ")
            ));
        }
        lines.extend(self.unread_notice());
        if !self.unused_files.is_empty() {
            lines.push(format!(
                "{} image files lie outside the classes and splits that are read, and are passed over: {}",
                self.unused_files.len(),
                listed(&self.unused_files, ", ")
            ));
        }
        if let Some(count) = self.turned_images {
            lines.push(format!("EXIF orientation was applied to {count} images"));
        }
        if let Some(count) = self.transparent_images {
            lines.push(format!("transparency was dropped from {count} images"));
        }
        if let Some(bytes) = self.streamed_bytes {
            lines.push(format!(
                "the decoded images would take {} MiB, so they are not held in memory but decoded for each batch",
                thousands(bytes >> 20)
            ));
        }
        if !self.short_files.is_empty() {
            let files = self.short_files.iter().map(|short| {
                format!(
                    "{} has {} of {}",
                    short.file,
                    thousands(short.records as u64),
                    thousands(short.published as u64)
                )
            });
            lines.push(format!(
                "files with fewer records than the published ones: {}",
                listed(files, ", ")
            ));
        }
        lines
    }
}
