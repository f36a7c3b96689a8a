//! The file that stores the values of a stopped evaluation, from which it is resumed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};

use super::warn;
use super::whole_file::unfinished;
use crate::error::{Error, Result};
use crate::evaluate::partial::Partial;

/// The file's name in a run folder.
pub const UNFINISHED: &str = "unfinished.safetensors";
/// The metadata entry that holds the key.
const KEY: &str = "key";

/// Runs `evaluate`, starting from the values that a stopped evaluation stored in `folder/name`. The
/// file is used only if its `key` is the same: a digest of the network and of everything else that
/// no configuration file checks. If `evaluate` is stopped, its values are stored; if it succeeds,
/// the file is removed.
///
/// # Errors
/// Those of `evaluate`; `Error::Io` and `Error::Data` if the file cannot be used.
pub fn resumable<R>(
    (folder, name): (&Path, &str),
    key: &dyn Fn() -> Result<String>,
    evaluate: impl FnOnce(&mut Partial) -> Result<R>,
) -> Result<R> {
    let path = folder.join(name);
    let mut partial = read(&path, key)?;
    let mut result = evaluate(&mut partial);
    match &mut result {
        Ok(_) => match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::write(&path, e)),
            _ => {}
        },
        Err(Error::Stopped { folder: kept, .. }) => {
            write(&path, key()?, &partial)?;
            *kept = Some(folder.to_path_buf());
        }
        Err(_) => {}
    }
    result
}

/// Reads the values of the file at `path`. There are none if the file does not exist or has another
/// key.
fn read(path: &Path, key: &dyn Fn() -> Result<String>) -> Result<Partial> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Partial::new()),
        Err(e) => return Err(Error::read(path, e)),
    };
    let damaged = |error| {
        let what =
            "expected what a stopped evaluation stored; remove it to start the evaluation over";
        Error::data(path, format!("not a safetensors file: {error}; {what}"))
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
    let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
    if header
        .metadata()
        .as_ref()
        .and_then(|entries| entries.get(KEY))
        != Some(&key()?)
    {
        warn(&format!(
            "{} belongs to another encoder or to other images, so the evaluation starts over",
            path.display()
        ));
        return Ok(Partial::new());
    }
    let values =
        |(name, view): (String, TensorView<'_>)| (name, bytemuck::pod_collect_to_vec(view.data()));
    Ok(file.tensors().into_iter().map(values).collect())
}

/// Whether the file at `path` is one that a stopped evaluation stored.
pub fn is_stored(path: &Path) -> bool {
    let has_key = |bytes: Vec<u8>| {
        let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
        header.metadata().as_ref()?.get(KEY).map(drop)
    };
    fs::read(path).ok().and_then(has_key).is_some()
}

/// Writes the file under a temporary name and renames it. The file is not assembled in memory,
/// because the features of a large data set take hundreds of megabytes.
fn write(path: &Path, key: String, partial: &Partial) -> Result<()> {
    let failed = |error: safetensors::SafeTensorError| {
        Error::write(path, std::io::Error::other(error.to_string()))
    };
    let views = partial.iter().map(|(name, values)| {
        let bytes = bytemuck::cast_slice(values);
        TensorView::new(Dtype::F32, vec![values.len()], bytes).map(|view| (name, view))
    });
    let views: Vec<_> = views
        .collect::<std::result::Result<_, _>>()
        .map_err(failed)?;
    let entries = HashMap::from([(KEY.to_string(), key)]);
    // Removed when it is dropped, unless it was renamed.
    let temporary = unfinished(path).map_err(|e| Error::write(path, e))?;
    let temporary = temporary.into_temp_path();
    serialize_to_file(views, Some(entries), &temporary).map_err(failed)?;
    File::open(&temporary)
        .and_then(|file| file.sync_all())
        .and_then(|()| temporary.persist(path).map_err(|e| e.error))
        .map_err(|e| Error::write(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Cause;

    fn stopped() -> Error {
        Error::Stopped {
            cause: Cause::Signal(15),
            place: "here".to_string(),
            folder: None,
        }
    }

    #[test]
    fn values_are_stored_at_a_stop_and_removed_at_an_end() {
        let base = tempfile::tempdir().unwrap();
        let place = (base.path(), UNFINISHED);
        let key = |word: &'static str| move || Ok(word.to_string());
        let first = resumable(place, &key("a"), |partial| {
            assert!(partial.is_empty());
            partial.insert("x".to_string(), vec![1.5, f32::MIN_POSITIVE]);
            partial.insert("none".to_string(), Vec::new());
            Err::<(), _>(stopped())
        });
        let Err(Error::Stopped { folder, .. }) = first else {
            panic!("it was stopped");
        };
        assert_eq!(folder.as_deref(), Some(base.path()));
        let failed = resumable(place, &key("a"), |partial| {
            assert_eq!(partial["x"], [1.5, f32::MIN_POSITIVE]);
            assert!(partial["none"].is_empty());
            Err::<(), _>(Error::usage("something else"))
        });
        assert!(failed.is_err());
        // Another network's values are not used.
        let other = resumable(place, &key("b"), |partial| Ok(partial.len()));
        assert_eq!(other.unwrap(), 0);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join(UNFINISHED), "nothing").unwrap();
        let failed = resumable((base.path(), UNFINISHED), &|| Ok(String::new()), |_| Ok(()));
        let error = failed.unwrap_err().to_string();
        assert!(
            error.contains(UNFINISHED) && error.contains("remove it"),
            "{error}"
        );
    }
}
