//! The folder of one run. It is empty when a run starts, or contains the interrupted run that is
//! resumed. It is locked while a process writes it. A run that fails before its first step leaves
//! no files behind.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::checkpoint::{CHECKPOINT, PREVIOUS};
use super::lock::{FolderLock, LOCK};
use super::record::{self, Extension};
use super::unfinished::UNFINISHED;
use super::whole_file::{is_unfinished, write_file};
use crate::console::note;
use crate::distributed;
use crate::error::{Error, Result};

/// The run's configuration, which every run writes first.
pub const CONFIG: &str = "config.toml";
/// One line per training step.
pub const METRICS: &str = "metrics.jsonl";
/// The results, which every run writes last.
pub const SUMMARY: &str = "summary.json";

/// The files from which a run is resumed. Other ranks receive copies.
const STATE: [&str; 6] = [CONFIG, METRICS, CHECKPOINT, PREVIOUS, SUMMARY, UNFINISHED];

/// An open run folder with its file of metrics.
///
/// Unless [`RunFolder::keep`] was called or a result was written, dropping it removes what this
/// process made: the configuration, the folder, and the parents of the folder.
pub struct RunFolder {
    path: PathBuf,
    /// `None` on a rank that writes nothing.
    metrics: Option<BufWriter<File>>,
    /// The temporary folder of a rank that writes nothing.
    _copy: Option<TempDir>,
    /// Held until the folder is closed.
    lock: Option<FolderLock>,
    /// The folders that this process made, parents first.
    made: Vec<PathBuf>,
    /// Whether a run had begun here before this process.
    is_resumed: bool,
    is_kept: Cell<bool>,
}

/// The measurements of one training step, a line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Counted from 1.
    pub step: u64,
    /// The loss before the step's update.
    pub loss: f32,
    pub learning_rate: f32,
    /// The factor of the loss in the backward pass, if activations are f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f32>,
    /// The accuracy of nearest neighbours after the step's update, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online_knn_top1: Option<f64>,
    /// Seconds of training since the first step began, when the loss arrived.
    pub seconds: f64,
}

/// Whether the run in `path` has ended.
pub fn is_done(path: &Path) -> bool {
    path.join(SUMMARY).is_file()
}

/// Whether there is a run in `path`, so that it can be resumed if it has not ended.
pub fn is_begun(path: &Path) -> bool {
    path.join(CONFIG).is_file()
}

/// Writes a file of the folder `dir` as [`write_file`] does, so that it is never incomplete.
///
/// # Errors
/// `Error::Io` if it cannot be written.
pub fn write_whole(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    write_file(&dir.join(name), content)
}

/// Fails if no run can start in `path`, or with `resume`, if no run can start or be resumed there.
/// Writes nothing.
///
/// # Errors
/// `Error::Usage` if the folder has other files or is in use, or if a file is in its place.
pub fn check(path: &Path, resume: bool) -> Result<()> {
    check_place(path)?;
    if !path.exists() {
        return Ok(());
    }
    FolderLock::check(path)?;
    check_content(path, resume)
}

/// Fails if a file is where the folder `path` or one of its parents would be.
///
/// # Errors
/// `Error::Usage` that names the file.
pub fn check_place(path: &Path) -> Result<()> {
    let there = path.ancestors().find(|part| part.exists());
    let what = match there.filter(|part| !part.is_dir()) {
        None => return Ok(()),
        Some(file) if file == path => "is a file".to_string(),
        Some(file) => format!("is below {}, which is a file", file.display()),
    };
    Err(Error::usage(format!(
        "the folder {} {what}; name another folder with --out",
        path.display()
    )))
}

/// Fails if the folder `path` has files that [`check`] does not allow.
fn check_content(path: &Path, resume: bool) -> Result<()> {
    if resume && is_begun(path) {
        return Ok(());
    }
    // A process that was killed before it wrote a configuration leaves at most these files.
    let is_ours = |name: &str| name == LOCK || is_unfinished(name) || (resume && name == METRICS);
    for entry in fs::read_dir(path).map_err(|e| Error::read(path, e))? {
        let name = entry.map_err(|e| Error::read(path, e))?.file_name();
        if !is_ours(&name.to_string_lossy()) {
            let what = if resume {
                format!(
                    "{} is not empty and holds no run ({CONFIG})",
                    path.display()
                )
            } else {
                format!("the run folder {} is not empty", path.display())
            };
            return Err(Error::usage(format!(
                "{what}; name another folder with --out, or remove it"
            )));
        }
    }
    Ok(())
}

/// Creates the folder `path` with its parents, and returns those that did not exist, parents first.
///
/// # Errors
/// `Error::Io` if one cannot be made. Then none remains.
pub fn make(path: &Path) -> Result<Vec<PathBuf>> {
    let missing = path.ancestors().take_while(|part| !part.exists());
    let mut made: Vec<PathBuf> = missing
        .filter(|part| !part.as_os_str().is_empty())
        .map(Path::to_path_buf)
        .collect();
    made.reverse();
    fs::create_dir_all(path).map_err(|e| {
        remove_folders(&made);
        Error::write(path, e)
    })?;
    Ok(made)
}

/// Removes those of these folders that are empty. Parents come first in the list.
pub fn remove_folders(made: &[PathBuf]) {
    for folder in made.iter().rev() {
        drop(fs::remove_dir(folder));
    }
}

impl RunFolder {
    /// Makes `path`, or takes it if it exists and is empty.
    ///
    /// # Errors
    /// `Error::Usage` as [`check`], `Error::Io` if it cannot be made or written.
    pub fn create(path: &Path) -> Result<Self> {
        check(path, false)?;
        Self::open(path.to_path_buf(), make(path)?, false)
    }

    /// Makes `parent/name`, or the first of `parent/name-2`, `parent/name-3`, ... that does not
    /// exist.
    pub fn create_next(parent: &Path, name: &str) -> Result<Self> {
        let mut made = make(parent)?;
        for ordinal in 1u64.. {
            let path = match ordinal {
                1 => parent.join(name),
                n => parent.join(format!("{name}-{n}")),
            };
            match fs::create_dir(&path) {
                Ok(()) => {
                    made.push(path.clone());
                    return Self::open(path, made, false);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => {
                    remove_folders(&made);
                    return Err(Error::write(&path, e));
                }
            }
        }
        unreachable!("a folder with a new number can always be tried")
    }

    /// Opens the folder of a run to resume it, or creates the folder if no run has begun there.
    ///
    /// # Errors
    /// `Error::Usage` as [`check`]; `Error::Io` if it cannot be written.
    pub fn resume(path: &Path) -> Result<Self> {
        check(path, true)?;
        Self::open(path.to_path_buf(), make(path)?, true)
    }

    fn open(path: PathBuf, made: Vec<PathBuf>, resume: bool) -> Result<Self> {
        let opened = FolderLock::acquire(&path).and_then(|lock| {
            // Another process may have begun a run since the folder was checked.
            check_content(&path, resume)?;
            let file = path.join(METRICS);
            // This also shows, before any work, that files can be written.
            let metrics = OpenOptions::new().create(true).append(true).open(&file);
            Ok((lock, metrics.map_err(|e| Error::write(&file, e))?))
        });
        let (lock, metrics) = opened.inspect_err(|_| remove_folders(&made))?;
        let is_resumed = is_begun(&path);
        let folder = RunFolder {
            metrics: Some(BufWriter::new(metrics)),
            _copy: None,
            lock: Some(lock),
            made,
            is_resumed,
            is_kept: Cell::new(is_resumed),
            path,
        };
        folder.remove_unfinished();
        Ok(folder)
    }

    /// On the first rank, the folder that `open` returns. Other ranks get a copy of the state of
    /// its run in a temporary folder, and write only the state of an interrupted evaluation.
    ///
    /// # Errors
    /// Those of `open`; `Error::Io` if the copy cannot be written.
    pub fn of_group(open: impl FnOnce() -> Result<Self>) -> Result<Self> {
        let group = distributed::current();
        if group.size() == 1 {
            return open();
        }
        if group.is_first() {
            let folder = open()?;
            for name in STATE {
                // An empty message means that there is no file. None of the files is empty.
                let content = folder.read(name)?.unwrap_or_default();
                group.broadcast(content)?;
            }
            return Ok(folder);
        }
        let temporary = std::env::temp_dir();
        let copy = tempfile::tempdir().map_err(|e| Error::write(&temporary, e))?;
        for name in STATE {
            let content = group.broadcast(Vec::new())?;
            if !content.is_empty() {
                write_whole(copy.path(), name, &content)?;
            }
        }
        Ok(RunFolder {
            path: copy.path().to_path_buf(),
            metrics: None,
            lock: None,
            made: Vec::new(),
            is_resumed: is_begun(copy.path()),
            is_kept: Cell::new(true),
            _copy: Some(copy),
        })
    }

    /// Whether this rank writes the results of the run.
    pub fn writes(&self) -> bool {
        self.metrics.is_some()
    }

    /// Removes what killed processes left unfinished.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if is_unfinished(&entry.file_name().to_string_lossy()) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// Whether a run had begun here before this process.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Keeps the folder on the disk from now on. Called after the first step.
    pub fn keep(&self) {
        self.is_kept.set(true);
    }

    /// Writes `config`. If the folder already has a configuration, checks that the results of both are
    /// the same, and records the settings that may change when a run is resumed. If `config` has more
    /// steps than before, the run is extended and counts as unfinished.
    ///
    /// # Errors
    /// `Error::Usage` naming what differs, or why the run cannot be extended.
    pub fn write_config(&self, config: &str) -> Result<()> {
        let Some(before) = self.read(CONFIG)? else {
            return self.write(CONFIG, config.as_bytes());
        };
        let path = self.path.join(CONFIG);
        let damaged = |error: String| {
            let what = "restore it, or start a run in another folder";
            Error::data(&path, format!("it is damaged: {error}; {what}"))
        };
        let before = String::from_utf8_lossy(&before);
        let extension = record::extension(&before, config).map_err(damaged)?;
        if !self.writes() {
            // The first rank compares the configurations.
            return match extension {
                Some(_) => self.remove(SUMMARY),
                None => Ok(()),
            };
        }
        let run = self.path.display();
        let differences = match &extension {
            Some(extension) => extension.differences.clone(),
            None => record::differences(&before, config).map_err(damaged)?,
        };
        let described = record::described(&differences);
        let resumed = record::resumed(&before, config).map_err(damaged)?;
        match extension {
            None if differences.is_empty() => match resumed {
                Some(config) if !is_done(&self.path) => self.write(CONFIG, config.as_bytes()),
                _ => Ok(()),
            },
            Some(extension) if differences.is_empty() => {
                self.extend(resumed.as_deref().unwrap_or(config), &extension)
            }
            Some(extension) if extension.schedule_differs => Err(Error::usage(format!(
                "the run in {run} has {} steps and cannot be extended to {}, because its learning rate depends on \
                 the number of steps ({described}); start a run of {} steps in another folder",
                extension.from, extension.to, extension.to
            ))),
            _ => Err(Error::usage(format!(
                "the run in {run} was started with other settings ({described}); resume it with those it has"
            ))),
        }
    }

    /// Replaces the configuration by that of a longer run.
    fn extend(&self, config: &str, extension: &Extension) -> Result<()> {
        let Extension { from, to, .. } = extension;
        let is_done = is_done(&self.path);
        if is_done && !self.path.join(CHECKPOINT).is_file() {
            return Err(Error::usage(format!(
                "the run in {} has ended after {from} steps and has no {CHECKPOINT}, so it cannot be extended to {to}; \
                 start a run of {to} steps in another folder",
                self.path.display()
            )));
        }
        note!("the run of {from} steps is extended to {to}");
        // In this order, because a run with a summary has ended.
        self.remove(SUMMARY)?;
        self.write(CONFIG, config.as_bytes())
    }

    /// Reads the results of the run, or returns `None` if it has not ended.
    ///
    /// # Errors
    /// `Error::Data` if the summary is not one of such a run.
    pub fn summary<S: DeserializeOwned>(&self) -> Result<Option<S>> {
        let Some(bytes) = self.read(SUMMARY)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let what = "expected a summary that this version of the program writes; move the folder away to run again";
            Error::data(self.path.join(SUMMARY), format!("{error}; {what}"))
        })
    }

    /// The content of a file of the folder, or `None` if it does not exist.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::read(&path, e)),
        }
    }

    /// Drops what `metrics.jsonl` has beyond the first `steps` steps, and returns the rest.
    ///
    /// # Errors
    /// `Error::Data` if one of these steps is missing or its line is damaged.
    pub fn keep_metrics(&mut self, steps: u64) -> Result<Vec<StepMetrics>> {
        let path = self.path.join(METRICS);
        let text = self.read(METRICS)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut kept = Vec::new();
        let mut length = 0;
        for (number, line) in (1..=steps).zip(text.split_inclusive('\n')) {
            match serde_json::from_str::<StepMetrics>(line) {
                Ok(metrics) if metrics.step == number => kept.push(metrics),
                _ => break,
            }
            length += line.len();
        }
        if kept.len() as u64 != steps {
            return Err(Error::data(
                &path,
                format!(
                    "it ends at step {} and the checkpoint is of step {steps}; remove the checkpoint to start over",
                    kept.len()
                ),
            ));
        }
        if self.writes() && length < text.len() {
            self.write(METRICS, &text.as_bytes()[..length])?;
            let file = OpenOptions::new().append(true).open(&path);
            self.metrics = Some(BufWriter::new(file.map_err(|e| Error::write(&path, e))?));
        }
        Ok(kept)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file as [`write_whole`] does. Every file but the configuration is a result, which
    /// keeps the folder.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        write_whole(&self.path, name, content)?;
        if name != CONFIG {
            self.keep();
        }
        Ok(())
    }

    /// Writes the results, the last file of a run.
    pub fn write_summary(&self, summary: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(summary)
            .map_err(|e| Error::usage(format!("the summary cannot be written as JSON: {e}")))?;
        self.write(SUMMARY, text.as_bytes())
    }

    /// Removes a file of the folder, if it is there.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::write(&path, e)),
            _ => Ok(()),
        }
    }

    /// Renames a file of the folder, if it is there. A file that has the new name is replaced.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        let path = self.path.join(from);
        match fs::rename(&path, self.path.join(to)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::write(&path, e)),
            _ => Ok(()),
        }
    }

    /// Gives a file of the folder a second name, if it is there. A file that has this name is
    /// replaced.
    pub fn link(&self, from: &str, to: &str) -> Result<()> {
        self.remove(to)?;
        let (from, to) = (self.path.join(from), self.path.join(to));
        // Some file systems have no links.
        match fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::write(&to, e)),
            _ => Ok(()),
        }
    }

    /// Makes the lines of `metrics.jsonl` durable, so that no checkpoint is newer than they are.
    pub fn sync_metrics(&self) -> Result<()> {
        let Some(metrics) = &self.metrics else {
            return Ok(());
        };
        let synced = metrics.get_ref().sync_data();
        synced.map_err(|e| Error::write(self.path.join(METRICS), e))
    }

    /// Appends a line to `metrics.jsonl` and flushes it.
    pub fn append(&mut self, metrics: &StepMetrics) -> Result<()> {
        let path = self.path.join(METRICS);
        let Some(file) = &mut self.metrics else {
            return Ok(());
        };
        serde_json::to_writer(&mut *file, metrics)
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.flush())
            .map_err(|e| Error::write(&path, e))
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if !self.is_kept.get() {
            for name in [CONFIG, METRICS] {
                drop(fs::remove_file(self.path.join(name)));
            }
        }
        // The lock's file is the last one in the folder.
        drop(self.lock.take());
        if !self.is_kept.get() {
            remove_folders(&self.made);
        }
    }
}
