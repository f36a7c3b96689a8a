//! Files that are written whole: under a temporary name beside their place, synced, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Start and end of the names of unfinished files.
const PREFIX: &str = ".parallax-";
const SUFFIX: &str = ".partial";

/// Whether this is the name of an unfinished file, which a killed process leaves behind.
pub fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(SUFFIX)
}

/// Identity of a file. It is the same for every path and every link that leads to the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity(#[cfg(unix)] [u64; 2], #[cfg(not(unix))] PathBuf);

#[cfg(unix)]
impl Identity {
    /// Returns the identity of the file at `path`, or `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|about| Self::from(&about))
    }

    /// Returns the identity of this process's stdout, or `None` if it is unknown.
    fn of_stdout() -> Option<Self> {
        use std::os::fd::AsFd;
        let file = File::from(io::stdout().as_fd().try_clone_to_owned().ok()?);
        file.metadata().ok().map(|about| Self::from(&about))
    }
}

#[cfg(not(unix))]
impl Identity {
    /// Returns the identity of the file at `path`, or `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        fs::canonicalize(path).ok().map(Identity)
    }

    fn of_stdout() -> Option<Self> {
        None
    }
}

#[cfg(unix)]
impl From<&fs::Metadata> for Identity {
    fn from(about: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Identity([about.dev(), about.ino()])
    }
}

/// How a path is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A regular file, which exists or does not. Links are followed.
    Regular(PathBuf),
    /// This process's stdout.
    Stdout,
    /// A device or a FIFO, which a rename would replace by a regular file.
    Special,
}

impl Place {
    /// Returns how `path` is written to.
    pub fn of(path: &Path) -> Self {
        let Ok(about) = fs::metadata(path) else {
            return Place::Regular(followed(path));
        };
        let is_stdout = || {
            let stdout = Identity::of_stdout();
            stdout.is_some() && stdout == Identity::of(path)
        };
        if !is_null(path) && is_stdout() {
            Place::Stdout
        } else if about.is_file() || about.is_dir() {
            Place::Regular(followed(path))
        } else {
            Place::Special
        }
    }
}

/// Whether `path` is the device that drops everything. Stdout may lead there too.
fn is_null(path: &Path) -> bool {
    Identity::of(path) == Identity::of(Path::new("/dev/null"))
}

/// Follows the links of `path`, the last of which may lead to no file.
fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    // As many as Linux follows.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => break,
        }
    }
    path
}

/// Returns the folder that holds `path`.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Writes `content` to `path`. A regular file is replaced only when all of it is on the disk; if
/// writing fails, it is unchanged and nothing else is left.
///
/// # Errors
/// `Error::Io` if it cannot be written.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let written = match Place::of(path) {
        Place::Regular(target) => replace(&target, content),
        Place::Special => OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(content)),
        Place::Stdout => {
            let mut stdout = io::stdout().lock();
            match stdout.write_all(content).and_then(|()| stdout.flush()) {
                // The reader has what it needs.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
                written => written,
            }
        }
    };
    written.map_err(|e| Error::write(path, e))
}

fn replace(target: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = unfinished(target)?;
    file.as_file_mut().write_all(content)?;
    finish(file, target)
}

/// Creates an empty file beside `target`, which is removed unless it is finished.
///
/// # Errors
/// Those of the system.
pub fn unfinished(target: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    #[cfg(unix)]
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(permissions);
    builder.tempfile_in(folder_of(target))
}

/// Syncs `file` and renames it to `target`, whose permissions are kept.
///
/// # Errors
/// Those of the system.
pub fn finish(file: NamedTempFile, target: &Path) -> io::Result<()> {
    if let Ok(about) = fs::metadata(target) {
        file.as_file().set_permissions(about.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(target).map_err(|e| e.error)?;
    // The rename itself. Some systems cannot open a folder.
    if let Ok(folder) = File::open(folder_of(target)) {
        drop(folder.sync_all());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("x");
        for content in ["first", "second"] {
            write_file(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        // A folder cannot be replaced.
        let folder = base.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let error = write_file(&folder, b"content").unwrap_err();
        assert!(error.to_string().contains("folder"), "{error}");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let base = tempfile::tempdir().unwrap();
        let [real, link, loose] = ["real", "link", "loose"].map(|name| base.path().join(name));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real", &link).unwrap();
        write_file(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");
        let mode = fs::metadata(&real).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(Identity::of(&link), Identity::of(&real));
        symlink("absent", &loose).unwrap();
        write_file(&loose, b"made").unwrap();
        assert_eq!(fs::read(base.path().join("absent")).unwrap(), b"made");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_into() {
        use std::os::unix::fs::FileTypeExt;
        let null = Path::new("/dev/null");
        assert_eq!(Place::of(null), Place::Special);
        write_file(null, b"nothing").unwrap();
        assert!(fs::metadata(null).unwrap().file_type().is_char_device());
    }
}
