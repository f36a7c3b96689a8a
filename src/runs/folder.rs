//! The folder of one run: made before anything is computed, never one that holds something already, unless that is the
//! same run, interrupted.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::spec;
use crate::error::{Error, Result};

/// The run's configuration, which every run writes first.
pub(super) const CONFIG: &str = "config.toml";
/// A line a training step.
const METRICS: &str = "metrics.jsonl";
/// What was found, which every run writes last.
pub const SUMMARY: &str = "summary.json";

/// An open run folder with its file of metrics.
pub struct RunFolder {
    path: PathBuf,
    metrics: BufWriter<File>,
}

/// The measurements of one training step, a line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Counted from 1.
    pub step: u64,
    /// The loss before the step's update.
    pub loss: f32,
    pub learning_rate: f32,
    /// What the loss was multiplied by before its gradient was taken, where activations are f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f32>,
    /// Since the first step began, when the loss arrived.
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

/// Writes a file of the folder `dir` under a temporary name and renames it, so that a file that is there is whole.
pub fn write_whole(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = dir.join(name);
    let temporary = dir.join(format!(".{name}.partial"));
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|e| Error::write(&path, e))
}

impl RunFolder {
    /// Makes `path`, or takes it where it exists and is empty.
    ///
    /// # Errors
    /// `Error::Usage` where it holds something, `Error::Io` where it cannot be made or written.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|e| Error::write(path, e))?;
        let mut entries = fs::read_dir(path).map_err(|e| Error::read(path, e))?;
        if entries.next().is_some() {
            return Err(Error::usage(format!(
                "the run folder {} is not empty; name another one with --out, or remove it",
                path.display()
            )));
        }
        Self::open(path.to_path_buf())
    }

    /// Makes `parent/name`, or the first of `parent/name-2`, `parent/name-3`, ... that does not exist.
    pub fn create_next(parent: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(parent).map_err(|e| Error::write(parent, e))?;
        for ordinal in 1u64.. {
            let path = match ordinal {
                1 => parent.join(name),
                n => parent.join(format!("{name}-{n}")),
            };
            match fs::create_dir(&path) {
                Ok(()) => return Self::open(path),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::write(&path, e)),
            }
        }
        unreachable!("a folder with a new number can always be tried")
    }

    /// Opens the folder of a run to resume it, or creates the folder if no run has begun there.
    ///
    /// # Errors
    /// `Error::Usage` if the folder is not empty and holds no run; `Error::Io` if it cannot be
    /// written.
    pub fn resume(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|e| Error::write(path, e))?;
        if !is_begun(path) {
            // A process that was killed before it wrote a configuration leaves at most these files.
            let is_ours = |name: &str| name == METRICS || name.ends_with(".partial");
            for entry in fs::read_dir(path).map_err(|e| Error::read(path, e))? {
                let name = entry.map_err(|e| Error::read(path, e))?.file_name();
                if !is_ours(&name.to_string_lossy()) {
                    return Err(Error::usage(format!(
                        "{} is not empty and holds no run ({CONFIG}); name another folder with --out, or remove it",
                        path.display()
                    )));
                }
            }
        }
        let file = path.join(METRICS);
        let metrics = OpenOptions::new().create(true).append(true).open(&file);
        Ok(RunFolder {
            path: path.to_path_buf(),
            metrics: BufWriter::new(metrics.map_err(|e| Error::write(&file, e))?),
        })
    }

    /// Writes `config`; in a folder that has one already, checks that it is the same but for versions.
    ///
    /// # Errors
    /// `Error::Usage` naming what differs.
    pub fn write_config(&self, config: &str) -> Result<()> {
        let Some(before) = self.read(CONFIG)? else {
            return self.write(CONFIG, config.as_bytes());
        };
        match spec::difference(&String::from_utf8_lossy(&before), config) {
            None => Ok(()),
            Some(difference) => Err(Error::usage(format!(
                "the run in {} was started with other settings ({difference}); resume it with those it has",
                self.path.display()
            ))),
        }
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

    /// The content of a file of the folder; none where it does not exist.
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
    /// `Error::Data` where one of these steps is missing or its line is damaged.
    pub fn keep_metrics(&mut self, steps: u64) -> Result<Vec<StepMetrics>> {
        let path = self.path.join(METRICS);
        let text = fs::read_to_string(&path).map_err(|e| Error::read(&path, e))?;
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
        if length < text.len() {
            self.write(METRICS, &text.as_bytes()[..length])?;
            let file = OpenOptions::new().append(true).open(&path);
            self.metrics = BufWriter::new(file.map_err(|e| Error::write(&path, e))?);
        }
        Ok(kept)
    }

    fn open(path: PathBuf) -> Result<Self> {
        let file = path.join(METRICS);
        // create_new also shows here, before any work, that files can be written.
        let metrics = File::create_new(&file).map_err(|e| Error::write(&file, e))?;
        Ok(RunFolder {
            path,
            metrics: BufWriter::new(metrics),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file as [`write_whole`] does.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        write_whole(&self.path, name, content)
    }

    /// Writes what the run found: the last file of a run.
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

    /// Makes the lines of `metrics.jsonl` durable, so that no checkpoint is newer than they are.
    pub fn sync_metrics(&self) -> Result<()> {
        let synced = self.metrics.get_ref().sync_data();
        synced.map_err(|e| Error::write(self.path.join(METRICS), e))
    }

    /// Appends a line to `metrics.jsonl` and hands it to the operating system.
    pub fn append(&mut self, metrics: &StepMetrics) -> Result<()> {
        let path = self.path.join(METRICS);
        serde_json::to_writer(&mut self.metrics, metrics)
            .map_err(std::io::Error::from)
            .and_then(|()| self.metrics.write_all(b"\n"))
            .and_then(|()| self.metrics.flush())
            .map_err(|e| Error::write(&path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_holds_something_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b");
        let folder = RunFolder::create(&path).unwrap();
        folder.write("x.txt", b"kept").unwrap();
        let refused = RunFolder::create(&path).err().expect("it is not empty");
        assert!(
            matches!(&refused, Error::Usage(m) if m.contains("a/b")),
            "{refused}"
        );
        assert_eq!(fs::read(path.join("x.txt")).unwrap(), b"kept");
        assert!(!path.join(".x.txt.partial").exists());
    }

    #[test]
    fn default_names_are_numbered() {
        let base = tempfile::tempdir().unwrap();
        let names: Vec<PathBuf> = (0..3)
            .map(|_| RunFolder::create_next(base.path(), "run").unwrap().path)
            .collect();
        let expected = ["run", "run-2", "run-3"].map(|name| base.path().join(name));
        assert_eq!(names, expected);
    }

    #[test]
    fn a_folder_under_a_file_is_named() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        let error = RunFolder::create(&file.join("run"))
            .err()
            .expect("a file is no folder");
        assert!(
            matches!(&error, Error::Io { path, .. } if path.ends_with("file/run")),
            "{error}"
        );
    }

    #[test]
    fn metrics_are_lines_of_json_with_the_exact_loss() {
        let base = tempfile::tempdir().unwrap();
        let mut folder = RunFolder::create(base.path()).unwrap();
        let loss = 4.836_282_f32;
        for step in 1..=2 {
            let metrics = StepMetrics {
                step,
                loss,
                learning_rate: 1e-3,
                loss_scale: None,
                seconds: 0.5,
            };
            folder.append(&metrics).unwrap();
        }
        let text = fs::read_to_string(base.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 2);
        let line: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
        assert_eq!(line["step"], 2);
        assert_eq!(line["loss"].to_string().parse::<f32>().unwrap(), loss);
    }
}
