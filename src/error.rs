//! The error type. A message contains what failed, the value, the expected value, and a remedy.

use std::path::{Path, PathBuf};

use crate::interrupt::Cause;

/// An error, by kind of cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument or setting that cannot be used. The command line exits with 2.
    #[error("{0}")]
    Usage(String),
    /// Tensors whose shapes or element types are not valid for an operation.
    #[error("{operation}: {message}")]
    Shape {
        operation: &'static str,
        message: String,
    },
    /// A data set or file of weights with missing or wrong content.
    #[error("{path}: {message}", path = path.display())]
    Data { path: PathBuf, message: String },
    /// A file or folder that cannot be read or written.
    #[error("{path}: {source}; {hint}", path = path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
        hint: &'static str,
    },
    /// An adapter that is missing, too small, lost or out of memory.
    #[error("device {device}: {message}")]
    Device { device: String, message: String },
    /// A loss or gradient that is not a finite number.
    #[error("{0}")]
    NonFinite(String),
    /// A failed self-check of an evaluation, whose result would not be valid.
    #[error("{0}")]
    Guard(String),
    /// A computation that was stopped early on request (see [`crate::interrupt`]). The exit code of
    /// the command line depends on the cause.
    #[error("stopped by {cause} {place}")]
    Stopped {
        cause: Cause,
        /// Progress of the computation, such as `after step 40 of 100`.
        place: String,
        /// The folder with the state from which the computation can be resumed, if it is stored.
        folder: Option<PathBuf>,
    },
}

/// The result of fallible functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A shape error of `operation`.
    pub fn shape(operation: &'static str, message: impl Into<String>) -> Self {
        Error::Shape {
            operation,
            message: message.into(),
        }
    }

    /// Sets the operation of a shape error, if it has none.
    pub(crate) fn of_operation(self, operation: &'static str) -> Self {
        match self {
            Error::Shape {
                operation: "",
                message,
            } => Error::Shape { operation, message },
            other => other,
        }
    }

    /// An argument or setting that cannot be used.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::Usage(message.into())
    }

    /// Wrong content of the file or folder at `path`.
    pub fn data(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::Data {
            path: path.as_ref().to_path_buf(),
            message: message.into(),
        }
    }

    /// A failed read of `path`.
    pub fn read(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io {
            path: path.as_ref().to_path_buf(),
            source,
            hint: "check that it exists and can be read",
        }
    }

    /// A failed write of `path`.
    pub fn write(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io {
            path: path.as_ref().to_path_buf(),
            source,
            hint: "check that the folder is writable and the disk has room",
        }
    }

    /// A failure of the device named `device`.
    pub fn device(device: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Device {
            device: device.into(),
            message: message.into(),
        }
    }

    /// Adds the name of a job of a grid to the message, unless the error names a file or device.
    pub fn of_job(self, job: &str) -> Self {
        match self {
            Error::Usage(message) => Error::Usage(format!("job {job}: {message}")),
            Error::Guard(message) => Error::Guard(format!("job {job}: {message}")),
            Error::NonFinite(message) => Error::NonFinite(format!("job {job}: {message}")),
            other => other,
        }
    }
}

/// Entries of a list that a message names.
const LISTED: usize = 10;
/// Bytes of a list in a message, at most, unless its first entry is longer.
const LISTED_BYTES: usize = 700;

/// Joins the first entries of a list, at most ten, and counts the others.
pub fn listed<T: AsRef<str>>(entries: impl IntoIterator<Item = T>, separator: &str) -> String {
    list_of(entries, LISTED, separator)
}

/// Joins the first entries of a list, at most `most`, and counts the others. If entries are long,
/// fewer are named.
pub fn list_of<T: AsRef<str>>(
    entries: impl IntoIterator<Item = T>,
    most: usize,
    separator: &str,
) -> String {
    let mut text = String::new();
    let (mut named, mut more) = (0, 0);
    for entry in entries {
        let entry = entry.as_ref();
        let fits = named == 0 || text.len() + entry.len() <= LISTED_BYTES;
        // No later entry is named after one that was left out.
        if more > 0 || named == most || !fits {
            more += 1;
            continue;
        }
        if named > 0 {
            text.push_str(separator);
        }
        text.push_str(entry);
        named += 1;
    }
    if more > 0 {
        text.push_str(&format!("{separator}and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn a_list_has_ten_entries_and_then_a_count() {
        let names: Vec<String> = (1..=12).map(|i| i.to_string()).collect();
        assert_eq!(listed(&names[..2], ", "), "1, 2");
        assert_eq!(listed(&names[..10], ", "), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10");
        let all = listed(&names, "; ");
        assert_eq!(all, "1; 2; 3; 4; 5; 6; 7; 8; 9; 10; and 2 more");
    }

    #[test]
    fn long_entries_make_a_list_shorter() {
        let names = vec!["x".repeat(300); 5];
        let text = listed(&names, ", ");
        assert!(text.ends_with("and 3 more") && text.len() < 800, "{text}");
    }
}
