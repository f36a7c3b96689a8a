//! All experiments of the paper as a list of jobs. A job is a run with its settings, in a run
//! folder of its own. The list has its command line, so that it can also be run by hand.

mod cost;
mod jobs;
mod scale;
mod shard;

use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::objectives::Protocol;
use crate::runs::settings::DataSettings;
use crate::runs::spec::RunSpec;

pub use cost::{Estimate, Network, Rates, Work};
pub use jobs::jobs;
pub use scale::{Overrides, Scale, Sizes, SupervisedSteps};
pub use shard::Shard;

/// The file that describes a folder of jobs.
pub const GRID: &str = "grid.json";
/// The folder of the jobs' run folders.
const JOBS: &str = "jobs";

/// The tables, figures and claims for which jobs run: the values of `--only`.
pub const FIGURES: [&str; 8] = [
    "fig2", "table1", "fig3", "fig4", "table2a", "table2b", "resnet18", "claim7",
];

/// One run of the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The name of the job and of its run folder.
    pub id: String,
    /// The file has the command line, without `--out` and `--device`.
    #[serde(
        rename = "command",
        serialize_with = "words",
        deserialize_with = "of_words"
    )]
    pub spec: RunSpec,
    /// The jobs whose files this job reads.
    pub needs: Vec<String>,
    pub figures: Vec<String>,
    /// The work of the job, from which its time and memory are estimated.
    #[serde(skip)]
    pub work: Work,
}

fn words<S: Serializer>(spec: &RunSpec, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let words = spec.command_line().map_err(S::Error::custom)?;
    words.serialize(serializer)
}

fn of_words<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<RunSpec, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    RunSpec::parse(&words).map_err(D::Error::custom)
}

/// The properties of a data set that the grid uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub data: DataSettings,
    pub name: String,
    pub classes: usize,
    pub train: usize,
    pub test: usize,
    /// Height and width of an image.
    pub side: usize,
}

impl Source {
    pub fn new(data: DataSettings, dataset: &Dataset) -> Self {
        Source {
            data,
            name: dataset.name.clone(),
            classes: dataset.classes.len(),
            train: dataset.train.len(),
            test: dataset.test.len(),
            side: dataset.test.height,
        }
    }
}

/// The settings of a grid.
#[derive(Clone, Debug)]
pub struct GridSettings {
    pub scale: Scale,
    pub sizes: Sizes,
    pub protocol: Protocol,
    /// The value of `--init` for pretraining, required by the paper's protocol.
    pub init: Option<String>,
    pub seeds: Vec<u64>,
    /// The data sets in the places of CIFAR-10 and STL-10.
    pub first: Source,
    pub second: Source,
    /// The folder of the grid.
    pub out: PathBuf,
}

impl GridSettings {
    /// The run folder of the job `id`.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.out.join(JOBS).join(id)
    }
}

/// `grid.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    pub scale: String,
    pub protocol: String,
    pub width: f64,
    /// Steps that stand for the paper's 5,000.
    pub full_steps: u64,
    pub seeds: Vec<u64>,
    pub data: GridData,
    /// Differences from the paper, one line each.
    pub shrunk: Vec<String>,
    pub jobs: Vec<Job>,
}

/// The names of the two data sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GridData {
    pub first: String,
    pub second: String,
}

impl Grid {
    pub fn new(settings: &GridSettings) -> Self {
        Grid {
            scale: settings.scale.to_string(),
            protocol: settings.protocol.to_string(),
            width: settings.sizes.width,
            full_steps: settings.sizes.full_steps,
            seeds: settings.seeds.clone(),
            data: GridData {
                first: settings.first.name.clone(),
                second: settings.second.name.clone(),
            },
            shrunk: settings
                .sizes
                .differences(&settings.first, &settings.second),
            jobs: jobs(settings),
        }
    }

    /// Reads the grid stored in `dir`, or returns `None` if there is none.
    ///
    /// # Errors
    /// `Error::Io` if it cannot be read, `Error::Data` if it is damaged.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(GRID);
        match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::read(&path, e)),
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                Error::data(
                    &path,
                    format!("{e}; expected the list of jobs that reproduce wrote"),
                )
            }),
        }
    }

    /// Whether the folder `dir` already has this grid.
    ///
    /// # Errors
    /// `Error::Usage` if it has another grid.
    pub fn is_in(&self, dir: &Path) -> Result<bool> {
        let Some(theirs) = Grid::read(dir)? else {
            return Ok(false);
        };
        match self.first_difference(&theirs) {
            None => Ok(true),
            Some(what) => Err(Error::usage(format!(
                "{} holds another grid ({what}); continue with its own flags or name another folder with --out",
                dir.display()
            ))),
        }
    }

    /// Writes the grid into the folder `dir`, unless it is there already.
    ///
    /// # Errors
    /// As [`Grid::is_in`], and `Error::Io` if it cannot be written.
    pub fn claim(&self, dir: &Path) -> Result<()> {
        if self.is_in(dir)? {
            return Ok(());
        }
        std::fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::usage(format!("the grid cannot be written: {e}")))?;
        crate::runs::folder::write_whole(dir, GRID, text.as_bytes())
    }

    /// Removes the grid from the folder `dir`, in which no run has begun.
    ///
    /// # Errors
    /// `Error::Io` if it cannot be removed.
    pub fn withdraw(&self, dir: &Path) -> Result<()> {
        let path = dir.join(GRID);
        std::fs::remove_file(&path).map_err(|e| Error::write(&path, e))
    }

    fn first_difference(&self, theirs: &Grid) -> Option<String> {
        let settings = [
            ("scale", &theirs.scale, &self.scale),
            ("protocol", &theirs.protocol, &self.protocol),
            ("first data set", &theirs.data.first, &self.data.first),
            ("second data set", &theirs.data.second, &self.data.second),
        ];
        if let Some((name, theirs, ours)) = settings.iter().find(|(_, a, b)| a != b) {
            return Some(format!("{name}: {theirs}, now {ours}"));
        }
        let changed = self
            .jobs
            .iter()
            .zip(&theirs.jobs)
            .find(|(a, b)| (&a.id, &a.spec, &a.needs) != (&b.id, &b.spec, &b.needs));
        match changed {
            Some((ours, theirs)) => {
                let shown = |job: &Job| job.spec.command_line().unwrap_or_default().join(" ");
                let (id, theirs, ours) = (&theirs.id, shown(theirs), shown(ours));
                Some(format!("job {id}: {theirs}, now {ours}"))
            }
            None if self.jobs.len() != theirs.jobs.len() => Some(format!(
                "{} jobs, now {}",
                theirs.jobs.len(),
                self.jobs.len()
            )),
            None => None,
        }
    }

    /// The jobs that `figure` needs, or all jobs for `None`. Each job comes after those that it
    /// needs.
    pub fn select(&self, figure: Option<&str>) -> Vec<&Job> {
        let Some(figure) = figure else {
            return self.jobs.iter().collect();
        };
        let mut wanted: Vec<&str> = Vec::new();
        // Needed jobs come before those that need them, so one pass from the end finds all.
        for job in self.jobs.iter().rev() {
            if job.figures.iter().any(|f| f == figure) || wanted.contains(&job.id.as_str()) {
                wanted.push(&job.id);
                wanted.extend(job.needs.iter().map(String::as_str));
            }
        }
        self.jobs
            .iter()
            .filter(|job| wanted.contains(&job.id.as_str()))
            .collect()
    }
}
