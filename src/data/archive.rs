//! Files inside a tar archive, with gzip or without.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use flate2::read::GzDecoder;
use tar::Archive;

use super::files::thousands;
use crate::error::{Error, Result};

/// Bytes of the largest file that is read from an archive; those of CIFAR-100 have 155 MB.
const MOST_BYTES: u64 = 1 << 28;

/// Bytes of the longest archive without compression that is read; that of CIFAR-100 has 184 MB. A
/// small file can unpack to any length.
const LONGEST: u64 = 1 << 30;

/// The files of an archive by name, without their folders.
pub type Members = HashMap<String, Vec<u8>>;

/// Reads the files called one of `names` from the archive at `path`.
///
/// # Errors
/// [`Error::Data`] if the archive is damaged, and [`Error::Io`] if it cannot be read.
pub fn read(path: &Path, names: &[&str]) -> Result<Members> {
    let mut file = File::open(path).map_err(|e| Error::read(path, e))?;
    let mut start = [0; 2];
    let is_gzip = file.read_exact(&mut start).is_ok() && start == [0x1f, 0x8b];
    file.rewind().map_err(|e| Error::read(path, e))?;
    let file = BufReader::new(file);
    let members = if is_gzip {
        unpack(GzDecoder::new(file), names)
    } else {
        unpack(file, names)
    };
    members.map_err(|error| {
        let advice = "expected a whole .tar.gz or .tar archive; download it again";
        Error::data(
            path,
            format!("the archive cannot be unpacked ({error}); {advice}"),
        )
    })
}

fn unpack(content: impl Read, names: &[&str]) -> std::io::Result<Members> {
    let mut members = Members::new();
    for entry in Archive::new(content.take(LONGEST)).entries()? {
        let entry = entry?;
        let path = entry.path()?;
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if !names.contains(&name) || !entry.header().entry_type().is_file() {
            continue;
        }
        let name = name.to_string();
        if entry.size() > MOST_BYTES {
            return Err(std::io::Error::other(format!(
                "{name} has {} bytes, more than the {} that are read",
                thousands(entry.size()),
                thousands(MOST_BYTES)
            )));
        }
        let mut bytes = Vec::new();
        let expected = entry.size();
        entry.take(expected).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != expected {
            return Err(std::io::Error::other(format!("{name} ends early")));
        }
        members.insert(name, bytes);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small archive may unpack to any length; reading ends all the same.
    #[test]
    fn an_endless_archive_is_an_error() {
        let mut header = tar::Header::new_gnu();
        header.set_path("other.bin").unwrap();
        header.set_size(1 << 40);
        header.set_cksum();
        let content = header.as_bytes().chain(std::io::repeat(1));
        assert!(unpack(content, &["train.bin"]).is_err());
    }
}
