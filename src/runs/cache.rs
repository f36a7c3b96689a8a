//! What is kept between runs for a graphics adapter: the table that a tuning found, and the driver's compiled
//! pipelines. Neither is needed: a file that is missing or damaged costs time and nothing else. The folder also has
//! the checks of streamed images, which [`crate::data`] writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::folder::write_whole;
use super::warn;
use crate::device::Gpu;
use crate::device::gpu::variants::{Operation, TableKey, Variant, VariantTable};
use crate::error::{Error, Result};
use crate::sha256::hex;

/// The environment variable that names the folder.
const FOLDER: &str = "PARALLAX_CACHE_DIR";

/// The folder: that of the environment variable, else a folder of the user's caches as the platform has them; none
/// where neither is known.
pub(super) fn folder() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = named(FOLDER) {
        return Some(folder.into());
    }
    let home = || named("HOME").map(PathBuf::from);
    let caches = if cfg!(windows) {
        named("LOCALAPPDATA").map(PathBuf::from)
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Caches"))
    } else {
        // The specification has a relative one ignored.
        let given = named("XDG_CACHE_HOME").map(PathBuf::from);
        given
            .filter(|path| path.is_absolute())
            .or_else(|| home().map(|home| home.join(".cache")))
    };
    caches.map(|caches| caches.join("parallax"))
}

/// Eight bytes of what a file is for, as part of its name.
fn digest(key: &TableKey) -> String {
    let mut hasher = Sha256::new();
    for part in [&key.adapter, &key.driver, &key.shaders] {
        hasher.update(part);
        hasher.update([0]);
    }
    hex(&hasher.finalize()[..8])
}

/// The file of the table for `key`; none where no folder is known.
pub fn table_path(key: &TableKey) -> Option<PathBuf> {
    Some(folder()?.join(format!("tuning-{}.toml", digest(key))))
}

/// The table that was stored for `key`. One that cannot be used is named in a warning.
pub fn read_table(key: &TableKey) -> Option<VariantTable> {
    let path = table_path(key)?;
    let bytes = read(&path)?;
    let table = VariantTable::from_toml(&bytes).and_then(|table| match table.key.difference(key) {
        None => Ok(table),
        Some(difference) => Err(format!("it is of another adapter ({difference})")),
    });
    table
        .inspect_err(|why| {
            warn(&format!(
                "{}: the tuning cannot be used, and is left out: {why}",
                path.display()
            ));
        })
        .ok()
}

/// The variants that a self-test rejected on the adapter of `key`. A file that cannot be used rejects
/// none; [`read_table`] warns of it.
pub fn rejected(key: &TableKey) -> BTreeMap<Operation, BTreeSet<Variant>> {
    let bytes = table_path(key).and_then(|path| fs::read(path).ok());
    let table = bytes.and_then(|bytes| VariantTable::from_toml(&bytes).ok());
    let own = table.filter(|table| table.key == *key);
    own.map_or(BTreeMap::new(), |table| table.rejected)
}

/// Stores `table` and says where.
///
/// # Errors
/// `Error::Io` where it cannot be written; `Error::Usage` where no folder is known.
pub fn write_table(table: &VariantTable) -> Result<PathBuf> {
    let path = table_path(&table.key).ok_or_else(|| {
        Error::usage(format!(
            "no folder for caches is known; name one with {FOLDER}"
        ))
    })?;
    write(&path, table.to_toml().map_err(Error::usage)?.as_bytes())?;
    Ok(path)
}

/// The content of a file, if it is there. One that cannot be read is named in a warning.
fn read(path: &Path) -> Option<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => {
            warn(&format!("{}; it is left out", Error::read(path, e)));
            None
        }
    }
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let parts = path
        .parent()
        .zip(path.file_name().and_then(|name| name.to_str()));
    let (dir, name) = parts.expect("the path is a file's in a folder");
    fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    write_whole(dir, name, content)
}

/// The driver's compiled pipelines: read when a device is opened, written when this is dropped.
pub struct KeptPipelines {
    gpu: Gpu,
    path: PathBuf,
    /// Bytes that were read.
    before: usize,
}

impl KeptPipelines {
    /// Gives `gpu`, which has run no kernel yet, what is stored for it; none where the adapter keeps no such data or no
    /// folder is known.
    pub fn load(gpu: &Gpu) -> Option<Self> {
        let key = gpu.variants().key;
        let name = format!("{}-{}.bin", gpu.pipeline_key()?, digest(&key));
        let path = folder()?.join(name);
        let bytes = read(&path);
        if let Err(why) = gpu.load_pipelines(bytes.as_deref()) {
            warn(&format!(
                "{}: the pipelines cannot be used, and are left out: {why}",
                path.display()
            ));
        }
        Some(KeptPipelines {
            gpu: gpu.clone(),
            path,
            before: bytes.map_or(0, |bytes| bytes.len()),
        })
    }
}

impl Drop for KeptPipelines {
    fn drop(&mut self) {
        let Some(bytes) = self.gpu.pipeline_data() else {
            return;
        };
        if bytes.len() != self.before
            && let Err(error) = write(&self.path, &bytes)
        {
            warn(&error.to_string());
        }
    }
}
