//! Files that later runs reuse for an adapter: the table of a tuning, and the driver's compiled
//! pipelines. If one is missing or damaged, it is computed again. The folder also has the checks of
//! streamed images, which [`crate::data`] writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::warn;
use super::whole_file::{folder_of, write_file};
use crate::device::Gpu;
use crate::device::gpu::variants::{Operation, TableKey, Variant, VariantTable};
use crate::error::{Error, Result};
use crate::sha256::hex;

/// The environment variable that names the folder.
const FOLDER: &str = "PARALLAX_CACHE_DIR";

/// The cache folder: that of the environment variable, otherwise the platform's cache folder of the
/// user, or `None` if neither is known.
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
        // The XDG specification ignores relative paths.
        let given = named("XDG_CACHE_HOME").map(PathBuf::from);
        given
            .filter(|path| path.is_absolute())
            .or_else(|| home().map(|home| home.join(".cache")))
    };
    caches.map(|caches| caches.join("parallax"))
}

/// Eight bytes of the digest of `key`, for the file's name.
fn digest(key: &TableKey) -> String {
    let mut hasher = Sha256::new();
    for part in [&key.adapter, &key.driver, &key.shaders] {
        hasher.update(part);
        hasher.update([0]);
    }
    hex(&hasher.finalize()[..8])
}

/// The file of the table for `key`, or `None` if there is no cache folder.
pub fn table_path(key: &TableKey) -> Option<PathBuf> {
    Some(folder()?.join(format!("tuning-{}.toml", digest(key))))
}

/// The table that was stored for `key`. Prints a warning if it cannot be used.
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

/// The variants that a self-test rejected on the adapter of `key`. If the file cannot be used, the
/// result is empty; [`read_table`] prints the warning.
pub fn rejected(key: &TableKey) -> BTreeMap<Operation, BTreeSet<Variant>> {
    let bytes = table_path(key).and_then(|path| fs::read(path).ok());
    let table = bytes.and_then(|bytes| VariantTable::from_toml(&bytes).ok());
    let own = table.filter(|table| table.key == *key);
    own.map_or(BTreeMap::new(), |table| table.rejected)
}

/// Stores `table` and returns the path.
///
/// # Errors
/// `Error::Io` if it cannot be written; `Error::Usage` if there is no cache folder.
pub fn write_table(table: &VariantTable) -> Result<PathBuf> {
    let path = table_path(&table.key).ok_or_else(|| {
        Error::usage(format!(
            "no folder for caches is known; name one with {FOLDER}"
        ))
    })?;
    write(&path, table.to_toml().map_err(Error::usage)?.as_bytes())?;
    Ok(path)
}

/// The content of a file, or `None` if it does not exist. Prints a warning if it cannot be read.
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
    let dir = folder_of(path);
    fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    write_file(path, content)
}

/// The driver's compiled pipelines. They are read when a device is opened, and written when this is
/// dropped.
pub struct KeptPipelines {
    gpu: Gpu,
    path: PathBuf,
    /// Number of bytes that were read.
    before: usize,
}

impl KeptPipelines {
    /// Loads the stored pipelines into `gpu`, before its first kernel. Returns `None` if the
    /// adapter has no pipeline cache or there is no cache folder.
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
