//! The check of a streamed set, which decodes each of its files once. Its result is stored for later
//! runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::decoding::Found;
use super::stream::{Stamp, progress};
use super::{LoadOptions, parallel};
use crate::sha256::hex;

/// The files of a set, and the key of their stored check.
pub struct Check {
    /// The stamp of each file, in the order of the files.
    pub stamps: Vec<Stamp>,
    key: String,
    folder: Option<PathBuf>,
}

/// The result of a check. It is stored only if a run can start with it.
#[derive(Serialize, Deserialize)]
pub struct Checked {
    /// A digest of the files, their sizes, their times and the options.
    key: String,
    /// Width and height of the images.
    pub size: [usize; 2],
    /// The digest of the data set without the bad files.
    pub digest: String,
    pub found: Found,
}

impl Check {
    /// The check of the files at `paths`, of which the test set starts at `first_test`. Path, size
    /// and time of each file are part of its key.
    pub fn of(dir: &Path, paths: &[PathBuf], first_test: usize, options: &LoadOptions) -> Self {
        // A file without a stamp cannot be read, which decoding finds.
        let stamps = parallel::map(paths.iter(), |path| Stamp::of(path).unwrap_or_default());
        let mut hasher = Sha256::new();
        // Another version of the program may decode differently.
        hasher.update(env!("CARGO_PKG_VERSION"));
        let mut add = |part: &[u8]| {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
        add(dir.as_os_str().as_encoded_bytes());
        for number in [options.size.unwrap_or_default(), paths.len(), first_test] {
            add(&(number as u64).to_le_bytes());
        }
        for (path, stamp) in paths.iter().zip(&stamps) {
            add(path.as_os_str().as_encoded_bytes());
            add(&stamp.bytes.to_le_bytes());
            let time = stamp
                .modified
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            add(&time.unwrap_or_default().as_nanos().to_le_bytes());
        }
        Check {
            key: hex(&hasher.finalize()),
            folder: options.checks.clone(),
            stamps,
        }
    }

    fn path(&self) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        Some(folder.join(format!("images-{}.json", &self.key[..16])))
    }

    /// Returns the stored check of the same files.
    pub fn remembered(&self) -> Option<Checked> {
        let bytes = fs::read(self.path()?).ok()?;
        let checked: Checked = serde_json::from_slice(&bytes).ok()?;
        let all = self.stamps.len();
        let is_whole = checked.found.bad.iter().all(|(place, _)| *place < all);
        (checked.key == self.key && is_whole && checked.size.iter().all(|&side| side > 0))
            .then_some(checked)
    }

    /// Stores a check. If this fails, the next run repeats it.
    pub fn remember(&self, size: [usize; 2], digest: String, found: Found) -> Checked {
        let checked = Checked {
            key: self.key.clone(),
            size,
            digest,
            found,
        };
        if let Some(path) = self.path()
            && let Err(error) = write(&path, &checked)
        {
            progress(format_args!(
                "images  the check cannot be stored: {}: {error}",
                path.display()
            ));
        }
        checked
    }
}

/// Writes a file whole: under the name of this process, synced, then renamed.
fn write(path: &Path, checked: &Checked) -> io::Result<()> {
    let content = serde_json::to_vec(checked)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension(format!("{}.partial", std::process::id()));
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(&content)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    });
    if written.is_err() {
        // There is nothing more to do if this fails too.
        let _ = fs::remove_file(&unfinished);
    }
    written
}
