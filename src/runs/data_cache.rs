//! Keeps loaded data sets in memory, for commands that run many jobs.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::data::{self, DataKind, Dataset, LoadOptions};
use crate::distributed;
use crate::error::Result;

type Key = (DataKind, Option<PathBuf>, u64, LoadOptions);

thread_local! {
    /// `None` while data sets are not kept.
    static KEPT: RefCell<Option<Vec<(Key, Dataset)>>> = const { RefCell::new(None) };
}

/// Keeps all data sets that are loaded from now on.
pub fn keep() {
    KEPT.with_borrow_mut(|kept| {
        kept.get_or_insert_default();
    });
}

/// Like [`data::load_with`], but reuses a data set that is already in memory. Files are read by one
/// rank of each machine.
pub fn load(
    kind: DataKind,
    dir: Option<&Path>,
    seed: u64,
    options: &LoadOptions,
) -> Result<Dataset> {
    // Only drawn images depend on the seed.
    let key_seed = match kind {
        DataKind::Shapes | DataKind::ShapesInverted => seed,
        _ => 0,
    };
    let key = (kind, dir.map(Path::to_path_buf), key_seed, options.clone());
    let found = KEPT.with_borrow(|kept| {
        let kept = kept.as_ref()?;
        let (_, dataset) = kept.iter().find(|(k, _)| *k == key)?;
        Some(dataset.clone())
    });
    if let Some(dataset) = found {
        return Ok(dataset);
    }
    let read = || data::load_with(kind, dir, seed, options);
    let dataset = match dir {
        Some(_) => data::read_once(distributed::current(), read)?,
        None => read()?,
    };
    KEPT.with_borrow_mut(|kept| {
        if let Some(kept) = kept {
            kept.push((key, dataset.clone()));
        }
    });
    Ok(dataset)
}
