//! The runs below a folder, and the values that tables and figures take from them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::statistics::Measured;
use crate::error::{Error, Result};
use crate::evaluate::metrics::Metrics;
use crate::paper::grid::Grid;
use crate::paper::numbers::TENTHS;
use crate::runs::result::{
    AttackMetrics, ClassificationMetrics, LinearMetrics, PretrainingMetrics, RunResult,
};
use crate::runs::weights_file::UNTRAINED;

/// The metrics of a run.
pub enum Found {
    Pretraining(Box<PretrainingMetrics>),
    Classification(Box<ClassificationMetrics>),
    Linear(Box<LinearMetrics>),
    Attack(Box<AttackMetrics>),
}

/// One run folder.
pub struct Run {
    /// The folder, relative to the report's folder.
    pub folder: String,
    pub result: RunResult<Found>,
    /// The digest of the data set, from config.toml.
    pub digest: String,
    /// The origin of the initial weights, from config.toml.
    pub init: String,
    pub pretraining_images: usize,
}

/// All runs, with the grid that they belong to if there is one.
pub struct Runs {
    pub all: Vec<Run>,
    pub grid: Option<Grid>,
}

/// Folders that are not searched.
const DEEPEST: usize = 8;

impl Runs {
    /// Reads every folder below `dir` that has `summary.json` and `config.toml`.
    ///
    /// # Errors
    /// `Error::Io` if a file cannot be read, `Error::Data` if one is damaged, `Error::Usage` if
    /// there is no run.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut folders = Vec::new();
        collect(dir, DEEPEST, &mut folders)?;
        let mut all = Vec::new();
        for folder in &folders {
            all.extend(read_run(dir, folder)?);
        }
        if all.is_empty() {
            return Err(Error::usage(format!(
                "{} has no run that has ended (a folder with summary.json and config.toml); name the folder of \
                 reproduce or of your runs",
                dir.display()
            )));
        }
        Ok(Runs {
            all,
            grid: Grid::read(dir)?,
        })
    }
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if dir.join("summary.json").is_file() && dir.join("config.toml").is_file() {
        found.push(dir.to_path_buf());
    }
    if depth == 0 {
        return Ok(());
    }
    let mut below = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::read(dir, e))? {
        let entry = entry.map_err(|e| Error::read(dir, e))?;
        // A link may lead back up.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below.push(entry.path());
        }
    }
    below.sort();
    below
        .iter()
        .try_for_each(|dir| collect(dir, depth - 1, found))
}

/// Returns the result in a `summary.json`, or `None` if the report does not use its command.
///
/// # Errors
/// The parser's message about a key that is missing or of another type.
pub fn result(summary: Value) -> serde_json::Result<Option<RunResult<Found>>> {
    fn of<M: DeserializeOwned>(
        summary: Value,
        found: impl FnOnce(Box<M>) -> Found,
    ) -> serde_json::Result<Option<RunResult<Found>>> {
        let result: RunResult<M> = serde_json::from_value(summary)?;
        Ok(Some(result.map(|metrics| found(Box::new(metrics)))))
    }
    match summary["command"].as_str().unwrap_or_default() {
        "simclr" | "rotnet" => of(summary, Found::Pretraining),
        "supervised" | "finetune" => of(summary, Found::Classification),
        "linear" | "transfer" => of(summary, Found::Linear),
        "attack" => of(summary, Found::Attack),
        _ => Ok(None),
    }
}

fn damaged(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::data(
        path,
        format!(
            "{error}; expected what this version of the program writes; move the folder away to leave it out"
        ),
    )
}

impl Run {
    /// Whether the run is a linear evaluation of an untrained encoder, which is not evidence of a
    /// training.
    fn of_untrained(&self) -> bool {
        matches!(&self.result.metrics, Found::Linear(s) if s.start.command == UNTRAINED)
    }
}

/// Reads the run in `folder`, or returns `None` if the report does not use its command.
fn read_run(dir: &Path, folder: &Path) -> Result<Option<Run>> {
    let path = folder.join("summary.json");
    let bytes = fs::read(&path).map_err(|e| Error::read(&path, e))?;
    let summary = serde_json::from_slice(&bytes).map_err(|e| damaged(&path, e))?;
    let Some(result) = result(summary).map_err(|e| damaged(&path, e))? else {
        return Ok(None);
    };
    let path = folder.join("config.toml");
    let config = fs::read_to_string(&path).map_err(|e| Error::read(&path, e))?;
    let config: toml::Table = config.parse().map_err(|e| damaged(&path, e))?;
    let of_data = |key: &str| config.get("data").and_then(|data| data.get(key));
    let word = |value: Option<&toml::Value>| {
        value
            .and_then(toml::Value::as_str)
            .unwrap_or("unknown")
            .to_string()
    };
    let images = of_data("pretraining_images").and_then(toml::Value::as_integer);
    Ok(Some(Run {
        folder: folder
            .strip_prefix(dir)
            .unwrap_or(folder)
            .display()
            .to_string(),
        result,
        digest: word(of_data("digest")),
        init: word(config.get("init")),
        pretraining_images: images.map_or(0, |n| n.max(0) as usize),
    }))
}

/// Runs that may be compared: of one protocol and one width, on one pair of data sets.
pub struct Scope<'a> {
    pub runs: &'a Runs,
    /// `sound` or `paper`.
    pub protocol: String,
    pub width: f64,
    /// The data set in the place of CIFAR-10.
    pub first: String,
    /// The data set in the place of STL-10, or `None` if nothing was transferred.
    pub second: Option<String>,
}

/// The protocol without the initial weights.
fn base(protocol: &str) -> &str {
    protocol.split(' ').next().unwrap_or(protocol)
}

impl Runs {
    /// Returns one scope for each protocol and width of an evaluated training.
    pub fn scopes(&self) -> Vec<Scope<'_>> {
        let mut keys: Vec<(String, f64)> = Vec::new();
        for run in &self.all {
            let key = (base(&run.result.protocol).to_string(), run.result.width);
            let evaluated =
                !matches!(run.result.metrics, Found::Pretraining(_)) && !run.of_untrained();
            if evaluated && !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            keys.extend(
                self.all
                    .first()
                    .map(|run| (base(&run.result.protocol).to_string(), run.result.width)),
            );
        }
        // sound before paper, wide before narrow.
        keys.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
        keys.into_iter()
            .map(|(protocol, width)| self.scope(protocol, width))
            .collect()
    }

    fn scope(&self, protocol: String, width: f64) -> Scope<'_> {
        let here = |run: &&Run| base(&run.result.protocol) == protocol && run.result.width == width;
        // Without a grid, the first set is one on which encoders are both trained and evaluated.
        let first = self
            .grid
            .as_ref()
            .map(|g| g.data.first.clone())
            .or_else(|| {
                let own = |run: &&Run| match &run.result.metrics {
                    Found::Linear(_) => run.result.command == "linear",
                    Found::Classification(_) => true,
                    _ => false,
                };
                let trained = || {
                    self.all
                        .iter()
                        .filter(here)
                        .filter(|run| !run.of_untrained())
                };
                let run = trained().find(own).or_else(|| trained().next());
                let run = run.or_else(|| self.all.iter().find(here));
                run.map(|run| run.result.data.clone())
            });
        let first = first.unwrap_or_default();
        let second = self
            .grid
            .as_ref()
            .map(|g| g.data.second.clone())
            .or_else(|| {
                let other = self.all.iter().filter(here).map(|run| &run.result.data);
                other.filter(|data| **data != first).min().cloned()
            });
        Scope {
            runs: self,
            protocol,
            width,
            first,
            second,
        }
    }
}

/// The key of a linear evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'a> {
    /// The command that trained the encoder.
    pub method: &'a str,
    pub arch: &'a str,
    /// `None` matches any batch size.
    pub batch_size: Option<usize>,
    /// The set that the encoder was trained on, and the set that it is evaluated on.
    pub from: &'a str,
    pub on: &'a str,
    pub steps: u64,
}

impl<'a> Evaluation<'a> {
    /// Returns the key for an encoder with its initial weights.
    pub fn untrained(arch: &'a str, on: &'a str) -> Self {
        Evaluation {
            method: UNTRAINED,
            arch,
            batch_size: None,
            from: on,
            on,
            steps: 0,
        }
    }
}

impl<'a> Scope<'a> {
    fn runs(&self) -> impl Iterator<Item = (usize, &'a Run)> {
        let (protocol, width) = (self.protocol.clone(), self.width);
        let here =
            move |run: &Run| base(&run.result.protocol) == protocol && run.result.width == width;
        let all = self.runs.all.iter().enumerate();
        all.filter(move |(_, run)| here(run))
    }

    /// One value per seed. If a seed has several runs, the last one in the order of folders counts.
    fn gather(
        &self,
        images: bool,
        ask: impl Fn(&'a Run) -> Option<(f64, usize)>,
    ) -> Option<Measured> {
        let mut by_seed: Vec<(u64, usize, f64, usize)> = Vec::new();
        for (number, run) in self.runs() {
            if let Some((value, count)) = ask(run) {
                by_seed.retain(|(seed, ..)| *seed != run.result.seed);
                by_seed.push((run.result.seed, number, value, count));
            }
        }
        by_seed.sort_by_key(|(seed, ..)| *seed);
        let smallest = by_seed.iter().map(|(.., count)| *count).min()?;
        Some(Measured {
            values: by_seed.iter().map(|(_, _, value, _)| *value).collect(),
            images: images.then_some(smallest),
            runs: by_seed.iter().map(|(_, number, ..)| *number).collect(),
        })
    }

    /// Returns the name of the second set, or a placeholder if there is none.
    pub fn second(&self) -> &str {
        self.second.as_deref().unwrap_or("a second set")
    }

    /// Returns the key of a linear evaluation on the first set, of an encoder that was trained on
    /// this set for `tenths` tenths of the full steps.
    pub fn own<'b>(
        &'b self,
        method: &'b str,
        arch: &'b str,
        batch: usize,
        tenths: u64,
    ) -> Evaluation<'b> {
        Evaluation {
            method,
            arch,
            batch_size: Some(batch),
            from: &self.first,
            on: &self.first,
            steps: self.steps(tenths),
        }
    }

    /// Returns the number of pretraining steps of the encoders that were fine-tuned, or the paper's
    /// fraction (1,000 of 5,000) if none was.
    pub fn finetuned_steps(&self, method: &str) -> u64 {
        let of = |(_, run): (usize, &Run)| match &run.result.metrics {
            Found::Classification(s) => {
                let start = s.start.as_ref().filter(|start| start.command == method)?;
                Some(start.steps)
            }
            _ => None,
        };
        let steps = self.runs().filter_map(of).max();
        steps.unwrap_or_else(|| self.steps(2))
    }

    /// Returns the number of classes of a data set, from the confusion matrix of any run on it.
    pub fn classes(&self, data: &str) -> Option<usize> {
        let of = |(_, run): (usize, &Run)| match &run.result.metrics {
            Found::Linear(s) => Some(s.test.confusion.len()),
            Found::Classification(s) => Some(s.test.confusion.len()),
            _ => None,
        };
        let mut on_data = self.runs().filter(|(_, run)| run.result.data == data);
        on_data.find_map(of).filter(|classes| *classes > 0)
    }

    /// Returns the steps that correspond to the paper's 5,000: those of the grid, or of the longest
    /// pretraining if there is no grid.
    pub fn full_steps(&self) -> u64 {
        if let Some(grid) = &self.runs.grid {
            return grid.full_steps;
        }
        let steps = self
            .runs()
            .filter_map(|(_, run)| match &run.result.metrics {
                Found::Pretraining(s) => Some(s.training.steps),
                // The length of a supervised training is not a part of these steps.
                Found::Linear(s) => (s.start.command != "supervised").then_some(s.start.steps),
                _ => None,
            });
        steps.max().unwrap_or_default()
    }

    /// Converts tenths of the full training to steps.
    pub fn steps(&self, tenths: u64) -> u64 {
        (self.full_steps() * tenths + TENTHS / 2) / TENTHS
    }

    /// A metric of a linear evaluation.
    pub fn linear(&self, asked: Evaluation<'_>, metric: Metric) -> Option<Measured> {
        self.gather(metric.is_part(), |run| match &run.result.metrics {
            Found::Linear(s)
                if s.start.command == asked.method
                    && run.result.arch == asked.arch
                    && asked
                        .batch_size
                        .is_none_or(|batch| s.start.batch_size == batch)
                    && s.start.data == asked.from
                    && run.result.data == asked.on
                    && s.start.steps == asked.steps =>
            {
                Some(metric.of(&s.test))
            }
            _ => None,
        })
    }

    /// Returns a metric of a classifier. `method` is `supervised`, or the pretraining method of the
    /// encoder that was fine-tuned.
    pub fn classifier(&self, method: &str, fraction: f64, metric: Metric) -> Option<Measured> {
        self.gather(metric.is_part(), |run| match &run.result.metrics {
            Found::Classification(s)
                if s.label_fraction == fraction
                    && run.result.arch == "resnet50"
                    && run.result.data == self.first
                    && s.start
                        .as_ref()
                        .map_or("supervised", |start| &start.command)
                        == method =>
            {
                Some(metric.of(&s.test))
            }
            _ => None,
        })
    }

    /// The accuracies of an attacked model over the strengths of a grid that ends at `last`.
    pub fn attack(&self, method: &str, model: Attacked, last: f64) -> Option<Vec<(f64, Measured)>> {
        let fits = |run: &'a Run| match &run.result.metrics {
            Found::Attack(s)
                if s.method == method
                    && run.result.data == self.first
                    && s.start.label_fraction == Some(model.fraction())
                    && s.start.pretrained_by.as_deref() == model.pretrained_by()
                    && s.curve
                        .last()
                        .is_some_and(|p| (p.eps - last).abs() < 1e-4 * last) =>
            {
                Some(s)
            }
            _ => None,
        };
        let points = self.runs().find_map(|(_, run)| fits(run))?.curve.len();
        (0..points)
            .map(|i| {
                let eps = self
                    .runs()
                    .find_map(|(_, run)| fits(run))?
                    .curve
                    .get(i)?
                    .eps;
                let values = self.gather(true, |run| {
                    let summary = fits(run)?;
                    Some((summary.curve.get(i)?.top1, summary.images))
                })?;
                Some((eps, values))
            })
            .collect()
    }

    /// Returns the combinations of device and precision of the pretraining runs, sorted. Costs are
    /// compared within one of them.
    pub fn places(&self) -> Vec<String> {
        let places = self
            .runs
            .all
            .iter()
            .filter_map(|run| match &run.result.metrics {
                Found::Pretraining(s) => Some(place(run, s)),
                _ => None,
            });
        let mut places: Vec<String> = places.collect();
        places.sort();
        places.dedup();
        if places.is_empty() {
            places.push(String::new());
        }
        places
    }

    /// Returns a quantity of the pretraining runs with this batch size, on one of
    /// [`Scope::places`]. Runs of any protocol count, because the authors' stem belongs to their
    /// protocol.
    pub fn cost(
        &self,
        method: &str,
        authors_stem: bool,
        batch_size: usize,
        at: &str,
        of: impl Fn(&PretrainingMetrics) -> f64,
    ) -> Option<Measured> {
        let mut measured = Measured::default();
        for (number, run) in self.runs.all.iter().enumerate() {
            if let Found::Pretraining(s) = &run.result.metrics
                && run.result.command == method
                && run.result.width == self.width
                && run.result.arch == "resnet50"
                && run.result.data == self.first
                && s.training.batch_size == batch_size
                && s.stem.starts_with("cifar") != authors_stem
                && place(run, s) == at
            {
                measured.values.push(of(s));
                measured.runs.push(number);
            }
        }
        (!measured.values.is_empty()).then_some(measured)
    }

    /// Number of images of a set for pretraining.
    pub fn pretraining_images(&self, data: &str) -> Option<usize> {
        let run = self.runs.all.iter().find(|run| run.result.data == data);
        run.map(|run| run.pretraining_images)
    }
}

fn place(run: &Run, metrics: &PretrainingMetrics) -> String {
    format!("{}, {}", run.result.device, metrics.training.precision)
}

/// A model of Figure 3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attacked {
    /// Trained on all labels from scratch.
    Supervised,
    /// SimCLR, fine-tuned on a fraction of the labels.
    FineTuned(f64),
}

impl Attacked {
    fn fraction(self) -> f64 {
        match self {
            Attacked::Supervised => 1.0,
            Attacked::FineTuned(fraction) => fraction,
        }
    }

    fn pretrained_by(self) -> Option<&'static str> {
        match self {
            Attacked::Supervised => None,
            Attacked::FineTuned(_) => Some("simclr"),
        }
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Top1,
    Top2,
    Top3,
    /// The one-vs-one AUC, as in the paper.
    Auc,
}

impl Metric {
    pub fn name(self) -> &'static str {
        match self {
            Metric::Top1 => "top-1",
            Metric::Top2 => "top-2",
            Metric::Top3 => "top-3",
            Metric::Auc => "AUC",
        }
    }

    /// Whether the metric is a fraction of the test images.
    pub fn is_part(self) -> bool {
        self != Metric::Auc
    }

    /// The value, and the number of images that it is computed from.
    fn of(self, metrics: &Metrics) -> (f64, usize) {
        let images = metrics
            .confusion
            .iter()
            .flatten()
            .map(|&n| n as usize)
            .sum();
        let value = match self {
            Metric::Top1 => metrics.top1,
            Metric::Top2 => metrics.top2,
            Metric::Top3 => metrics.top3,
            Metric::Auc => metrics.auc_ovo,
        };
        (value, images)
    }
}
