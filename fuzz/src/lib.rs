//! What the targets share: a folder in memory, and safetensors files.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tempfile::TempDir;

/// A folder for the files that a target gives the program.
pub struct Folder(TempDir);

impl Folder {
    /// Creates one in memory if the system has such a file system.
    pub fn new() -> Self {
        let shared = Path::new("/dev/shm");
        let made = match shared.is_dir() {
            true => TempDir::new_in(shared),
            false => TempDir::new(),
        };
        Folder(made.expect("a temporary folder can be made"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).expect("a temporary file can be written");
        path
    }

    /// Writes the same content under several names.
    pub fn write_all(&self, names: &[&str], content: &[u8]) {
        for name in names {
            self.write(name, content);
        }
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

/// Splits a safetensors file into its header and its values.
pub fn parts(file: &[u8]) -> (Map<String, Value>, Vec<u8>) {
    let (len, rest) = file.split_first_chunk().expect("it starts with a length");
    let (header, values) = rest.split_at(u64::from_le_bytes(*len) as usize);
    (
        serde_json::from_slice(header).expect("the header is JSON"),
        values.to_vec(),
    )
}

/// Joins a header and values to a safetensors file.
pub fn joined(header: &[u8], values: &[u8]) -> Vec<u8> {
    let len = (header.len() as u64).to_le_bytes();
    [&len, header, values].concat()
}
