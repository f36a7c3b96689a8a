//! A run folder as it is read, of a run that has ended or has not.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Table;

use super::config_file::expand;
use super::folder::{CONFIG, METRICS, SUMMARY, StepMetrics};
use super::result::{AccuracyProtocol, Evaluations, ONLINE_TOP1, final_mean};
use super::spec::{RunSpec, flat, shown};
use crate::error::{Error, Result};

/// The accuracies of summaries: their keys and names.
const ACCURACIES: [(&str, &str); 6] = [
    (ONLINE_TOP1, "nearest neighbours during the training"),
    ("knn_top1", "nearest neighbours"),
    (
        "knn_top1_untrained",
        "nearest neighbours, untrained encoder",
    ),
    ("rotation_accuracy", "rotations"),
    ("metrics.top1", "top-1"),
    ("clean_top1", "top-1 without an attack"),
];

/// The networks that trainings write at their end.
pub const WEIGHTS: [&str; 2] = ["encoder.safetensors", "model.safetensors"];

/// The files of a run.
pub struct RunRecord {
    pub path: PathBuf,
    /// The values of `config.toml` by their full keys.
    pub config: Table,
    pub metrics: Vec<StepMetrics>,
    /// `None` if the run has not ended.
    pub summary: Option<Value>,
    online: Option<AccuracyProtocol>,
}

/// An accuracy of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Accuracy {
    /// The key in the summary.
    pub key: &'static str,
    pub name: &'static str,
    /// From 0 to 1.
    pub value: f64,
    /// `None` if an earlier version measured it.
    pub protocol: Option<AccuracyProtocol>,
}

impl RunRecord {
    /// Reads the run in the folder `path`.
    ///
    /// # Errors
    /// `Error::Usage` if no run has begun there; `Error::Io` if a file cannot be read;
    /// `Error::Data` if one is damaged.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.join(CONFIG).is_file() {
            return Err(Error::usage(format!(
                "{} holds no run (a folder with {CONFIG}); name a run folder",
                path.display()
            )));
        }
        let text = |name: &str| -> Result<Option<String>> {
            let file = path.join(name);
            if file.is_file() {
                fs::read_to_string(&file)
                    .map(Some)
                    .map_err(|e| Error::read(&file, e))
            } else {
                Ok(None)
            }
        };
        let damaged = |name: &str, error: &dyn std::fmt::Display| {
            let what = format!("it is damaged: {error}; restore it, or name another run");
            Error::data(path.join(name), what)
        };
        let config = text(CONFIG)?.unwrap_or_default();
        let config: Table = config.parse().map_err(|e| damaged(CONFIG, &e))?;
        let metrics = text(METRICS)?.unwrap_or_default();
        // The last line may be incomplete.
        let lines = metrics
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let metrics = lines.map(serde_json::from_str::<StepMetrics>);
        let metrics = metrics.collect::<std::result::Result<Vec<_>, _>>();
        let summary = text(SUMMARY)?;
        let summary = summary.map(|text| serde_json::from_str(&text)).transpose();
        let evaluations = config.get("evaluations").cloned();
        let online = evaluations.and_then(|table| table.try_into::<Evaluations>().ok());
        Ok(RunRecord {
            path: path.to_path_buf(),
            config: flat(&config),
            metrics: metrics.map_err(|e| damaged(METRICS, &e))?,
            summary: summary.map_err(|e| damaged(SUMMARY, &e))?,
            online: online.and_then(|mut all| all.remove(ONLINE_TOP1)),
        })
    }

    /// The run with its settings, as `config.toml` has them.
    ///
    /// # Errors
    /// As [`expand`]; `Error::Data` if a setting has a value that this version does not take.
    pub fn spec(&self) -> Result<RunSpec> {
        let file = self.path.join(CONFIG);
        let command = self.setting("command");
        let words = ["parallax", command.as_str(), "--config"].map(OsString::from);
        let words = words.into_iter().chain([file.clone().into_os_string()]);
        let expanded = expand(words.collect())?;
        // Without the program, and without --config.
        let settings = &expanded.words[1..expanded.words.len() - 2];
        let settings = settings
            .iter()
            .map(|word| word.to_string_lossy().into_owned());
        let settings: Vec<String> = settings.collect();
        RunSpec::parse(&settings).map_err(|error| {
            let message = error.to_string();
            let line = message.lines().next().unwrap_or_default();
            Error::data(file, line.trim_start_matches("error: "))
        })
    }

    /// The file of the network after the last step at which it was saved.
    ///
    /// # Errors
    /// `Error::Usage` if no network was saved.
    pub fn weights(&self) -> Result<PathBuf> {
        let last = WEIGHTS.map(|name| self.path.join(name));
        let steps = self.metrics.iter().rev();
        let saved = steps.map(|m| {
            self.path
                .join(format!("encoder-step{}.safetensors", m.step))
        });
        let mut all = last.into_iter().chain(saved);
        all.find(|file| file.is_file()).ok_or_else(|| {
            Error::usage(format!(
                "{} has no network yet; --save-every saves it during a training",
                self.path.display()
            ))
        })
    }

    /// The value of `config.toml` with this key as text, or nothing.
    pub fn setting(&self, key: &str) -> String {
        self.config.get(key).map_or(String::new(), shown)
    }

    /// The value of `summary.json` with this key, such as `metrics.top1`.
    pub fn result(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.summary.as_ref()?.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }

    /// The steps and the accuracies of nearest neighbours during the training.
    pub fn online(&self) -> Vec<(f64, f64)> {
        let point = |m: &StepMetrics| Some((m.step as f64, m.online_knn_top1?));
        self.metrics.iter().filter_map(point).collect()
    }

    /// The number of steps that were taken.
    pub fn steps(&self) -> u64 {
        let taken = self.metrics.last().map(|metrics| metrics.step);
        // The metrics of an old run may be gone.
        let taken = taken.or_else(|| self.result("steps")?.as_u64());
        taken.unwrap_or(0)
    }

    /// The mean of the last ten losses.
    pub fn final_loss(&self) -> Option<f64> {
        let losses: Vec<f32> = self.metrics.iter().map(|m| m.loss).collect();
        let own = final_mean(&losses);
        own.or_else(|| self.result("final_loss")?.as_f64())
    }

    /// The accuracies, in the order of their importance.
    pub fn accuracies(&self) -> Vec<Accuracy> {
        let accuracy = |(key, name): (&'static str, &'static str)| {
            let (value, protocol) = match self.result(key) {
                Some(value) => {
                    let protocol = self.summary.as_ref()?.get("evaluations");
                    // The protocol of several metrics is that of their table.
                    let protocol = protocol
                        .and_then(|all| all.get(key).or_else(|| all.get(key.split('.').next()?)));
                    let protocol = protocol.cloned().map(serde_json::from_value);
                    (value.as_f64()?, protocol.and_then(std::result::Result::ok))
                }
                None if key == ONLINE_TOP1 => (self.online().last()?.1, self.online.clone()),
                None => return None,
            };
            Some(Accuracy {
                key,
                name,
                value,
                protocol,
            })
        };
        ACCURACIES.into_iter().filter_map(accuracy).collect()
    }
}
