//! The lock of a folder that one process at a time may write.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::warn;
use crate::error::{Error, Result};

/// The file that is locked. It holds the number of the process.
pub const LOCK: &str = ".lock";

/// A locked folder. The system releases the lock when the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    path: PathBuf,
    _file: File,
}

impl FolderLock {
    /// Locks the folder `dir`, which exists.
    ///
    /// # Errors
    /// `Error::Usage` if another process has locked it, `Error::Io` if it cannot be written.
    pub fn acquire(dir: &Path) -> Result<Self> {
        Self::open(dir, false)
    }

    /// As [`FolderLock::acquire`], but waits for a process that has locked the folder.
    ///
    /// # Errors
    /// `Error::Io` if the folder cannot be written.
    pub fn wait(dir: &Path) -> Result<Self> {
        Self::open(dir, true)
    }

    fn open(dir: &Path, waits: bool) -> Result<Self> {
        let path = dir.join(LOCK);
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(|e| Error::write(&path, e))?;
            let locked = if waits {
                file.lock().map_err(TryLockError::Error)
            } else {
                file.try_lock()
            };
            match locked {
                Ok(()) if !is_at(&file, &path) => continue,
                Ok(()) => {
                    let process = format!("{}\n", std::process::id());
                    file.set_len(0)
                        .and_then(|()| file.rewind())
                        .and_then(|()| file.write_all(process.as_bytes()))
                        .map_err(|e| Error::write(&path, e))?;
                }
                Err(TryLockError::WouldBlock) => return Err(in_use(dir, &mut file)),
                Err(TryLockError::Error(e)) => warn(&format!(
                    "{}: this file system has no locks ({e}); start no second process in this folder",
                    dir.display()
                )),
            }
            return Ok(FolderLock { path, _file: file });
        }
    }

    /// Fails if another process has locked the folder `dir`. Writes nothing.
    ///
    /// # Errors
    /// `Error::Usage` that names the folder.
    pub fn check(dir: &Path) -> Result<()> {
        let Ok(mut file) = File::open(dir.join(LOCK)) else {
            return Ok(());
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(in_use(dir, &mut file)),
            _ => Ok(()),
        }
    }
}

impl Drop for FolderLock {
    /// Removes the file while it is locked, so that it is never that of another process.
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// Whether `file` is still the file at `path`: the process that held the lock has removed it as
/// it ended.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use super::whole_file::Identity;
    let identity = file.metadata().ok().map(|about| Identity::from(&about));
    identity.is_some() && identity == Identity::of(path)
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

fn in_use(dir: &Path, file: &mut File) -> Error {
    let mut words = String::new();
    drop(file.read_to_string(&mut words));
    let holder = match words.trim().parse::<u32>() {
        Ok(number) => format!("process {number}"),
        Err(_) => "another process".to_string(),
    };
    Error::usage(format!(
        "the folder {} is in use by {holder}; wait until it has ended, or name another folder with --out",
        dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let base = tempfile::tempdir().unwrap();
        FolderLock::check(base.path()).unwrap();
        let first = FolderLock::acquire(base.path()).unwrap();
        for refused in [
            FolderLock::acquire(base.path()).map(drop),
            FolderLock::check(base.path()),
        ] {
            let message = refused.unwrap_err().to_string();
            let holder = format!("in use by process {}", std::process::id());
            assert!(message.contains(&holder), "{message}");
        }
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| FolderLock::wait(base.path()).map(drop));
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!waiting.is_finished(), "the folder is locked");
            drop(first);
            waiting.join().unwrap().unwrap();
        });
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
        // The file of a killed process is not locked.
        fs::write(base.path().join(LOCK), "1\n").unwrap();
        FolderLock::check(base.path()).unwrap();
        drop(FolderLock::acquire(base.path()).unwrap());
    }
}
