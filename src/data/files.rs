//! Helpers of the readers of data files: finding the files, checking their sizes, reading them
//! whole.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::findings::ShortFile;
use crate::error::{Error, Result};

/// A file that a published data set is made of.
pub struct Expected {
    pub file: &'static str,
    /// Bytes of the published file; `None` if any size is valid.
    pub bytes: Option<u64>,
}

/// The source of a data set, and its files.
pub struct Source {
    pub title: &'static str,
    pub address: &'static str,
    /// The folder that the published archive unpacks to.
    pub folder: &'static str,
    pub files: &'static [Expected],
}

impl Source {
    /// One line with the address, the files and their sizes.
    pub fn describe(&self) -> String {
        let files: Vec<String> = self
            .files
            .iter()
            .map(|expected| match expected.bytes {
                Some(bytes) => format!("{} ({} bytes)", expected.file, thousands(bytes)),
                None => expected.file.to_string(),
            })
            .collect();
        format!(
            "{} is published at {}; its folder {} holds {}",
            self.title,
            self.address,
            self.folder,
            files.join(", ")
        )
    }

    /// The folder that holds the files: `dir` or its child of the archive's name.
    ///
    /// # Errors
    /// [`Error::Data`] naming every missing file if neither has all of them, and the command that
    /// unpacks the archive if that is there.
    pub fn locate(&self, dir: &Path) -> Result<PathBuf> {
        self.locate_without(dir, &[])
    }

    /// As [`Source::locate`], but the `optional` files may be missing.
    ///
    /// # Errors
    /// As [`Source::locate`].
    pub fn locate_without(&self, dir: &Path, optional: &[&str]) -> Result<PathBuf> {
        let child = dir.join(self.folder);
        let root = if child.is_dir() {
            child
        } else {
            dir.to_path_buf()
        };
        let missing: Vec<&str> = self
            .files
            .iter()
            .map(|expected| expected.file)
            .filter(|file| !optional.contains(file) && !root.join(file).is_file())
            .collect();
        if missing.is_empty() {
            return Ok(root);
        }
        let archive = self.address.rsplit('/').next().unwrap_or_default();
        let stem = archive.trim_end_matches(".tar.gz");
        let archives = ["tar.gz", "tgz", "tar"].map(|end| dir.join(format!("{stem}.{end}")));
        if let Some(archive) = archives.iter().find(|path| path.is_file()) {
            let message = format!(
                "is an archive; unpack it: tar -xf {} -C {}",
                archive.display(),
                dir.display()
            );
            return Err(Error::data(archive, message));
        }
        let message = format!("missing {}. {}", missing.join(", "), self.describe());
        Err(Error::data(root, message))
    }

    /// The number of records of `record` bytes in the file at `path`, which is at least 1.
    ///
    /// # Errors
    /// [`Error::Data`] for an empty file, or one whose size is not a whole number of records.
    pub fn records(&self, path: &Path, record: usize) -> Result<usize> {
        let about = fs::metadata(path).map_err(|e| Error::read(path, e))?;
        self.whole_records(path, about.len(), record)
    }

    /// As [`Source::records`], for a file of `bytes` bytes.
    ///
    /// # Errors
    /// As [`Source::records`].
    pub fn whole_records(&self, path: &Path, bytes: u64, record: usize) -> Result<usize> {
        if bytes > 0 && bytes.is_multiple_of(record as u64) {
            return usize::try_from(bytes / record as u64)
                .map_err(|_| Error::data(path, format!("{bytes} bytes do not fit into memory")));
        }
        let found = if bytes == 0 {
            "the file is empty".to_string()
        } else {
            format!(
                "{} bytes are not a whole number of records, the file is truncated or of another format",
                thousands(bytes)
            )
        };
        Err(Error::data(
            path,
            format!(
                "{found}; expected records of {} bytes. Download it again: {}",
                thousands(record as u64),
                self.describe()
            ),
        ))
    }
}

/// The whole of the file at `path`, which should have `bytes` bytes.
pub fn read_exactly(path: &Path, bytes: usize) -> Result<Vec<u8>> {
    let content = fs::read(path).map_err(|e| Error::read(path, e))?;
    if content.len() != bytes {
        let message = format!(
            "the file changed while it was read: {} bytes, then {bytes}",
            content.len()
        );
        return Err(Error::data(path, message));
    }
    Ok(content)
}

/// Gives `take` the file at `path`, which should have `bytes` bytes, in parts of `part` bytes, the
/// last one shorter.
pub fn read_in_parts(
    path: &Path,
    bytes: usize,
    part: usize,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut file = File::open(path).map_err(|e| Error::read(path, e))?;
    // The same memory for each part, which stays in the cache.
    let mut buffer = vec![0; part.min(bytes)];
    for start in (0..bytes).step_by(part) {
        let part = &mut buffer[..part.min(bytes - start)];
        match file.read_exact(part) {
            Ok(()) => take(part)?,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                let message = format!("the file changed while it was read; it had {bytes} bytes");
                return Err(Error::data(path, message));
            }
            Err(e) => return Err(Error::read(path, e)),
        }
    }
    Ok(())
}

/// The lines of a text file, trimmed, without empty ones.
pub fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
    Ok(lines_of(&text))
}

/// The lines of `text`, trimmed, without empty ones.
pub fn lines_of(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(String::from).collect()
}

/// The names of the `count` classes, one a line.
pub fn class_names(path: &Path, count: usize) -> Result<Vec<String>> {
    let names = lines(path)?;
    check_class_count(path, names.len(), count)?;
    Ok(names)
}

/// Fails if the file at `path` has another number of class names than `expected`.
pub fn check_class_count(path: &Path, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let message = format!("{found} class names, expected {expected}, one a line");
    Err(Error::data(path, message))
}

/// A file of `records` records if it has fewer than the published one.
pub fn short_file(file: &str, records: usize, published: usize) -> Option<ShortFile> {
    (records < published).then(|| ShortFile {
        file: file.to_string(),
        records,
        published,
    })
}

/// The first line of `dataset-name.txt` in `root`, or `default` if there is no such file or nothing
/// in it.
pub fn dataset_name(root: &Path, default: &str) -> Result<String> {
    let path = root.join("dataset-name.txt");
    if !path.is_file() {
        return Ok(default.to_string());
    }
    let first = lines(&path)?.into_iter().next();
    Ok(first.unwrap_or_else(|| default.to_string()))
}

/// An empty buffer with room for `bytes`, which the files at `path` need.
pub fn buffer(path: &Path, bytes: usize) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes).map_err(|_| {
        let message = format!(
            "its pixels take {} bytes, more than this machine can give",
            thousands(bytes as u64)
        );
        Error::data(path, message)
    })?;
    Ok(buffer)
}

/// `bytes` zeros, which the files at `path` need. No page of them is touched, which is left to
/// whoever fills them.
pub fn zeroed(path: &Path, bytes: usize) -> Result<Vec<u8>> {
    // Only asked for: filling it would touch it.
    buffer(path, bytes)?;
    Ok(vec![0; bytes])
}

/// `number` in decimal with commas.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (30_730_000, "30,730,000"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
