//! Arguments that several subcommands share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::device_choice::{ChosenDevice, DeviceRequest};
use super::signals;
use crate::console::note;
pub use crate::console::one_notice as notice;
use crate::data::Dataset;
use crate::distributed;
use crate::error::{Error, Result, listed};
use crate::interrupt;
use crate::runs::folder::{self, RunFolder, SUMMARY, is_begun, is_done};
pub use crate::runs::settings::DataSettings as DataArguments;
use crate::runs::spec::RunSpec;
use crate::runs::training::Extent;
use crate::runs::tuning::{self, TrainedNetwork, When};
pub use crate::runs::values::{positive, seed, whole};

/// Prints the classes without test images, if there are any.
pub fn notice_absent(dataset: &Dataset) {
    let absent = dataset.absent_classes();
    if !absent.is_empty() {
        notice(&format!(
            "the test set has no image of these classes: {}; the accuracy is that of the images there are, and the \
             AUC is the mean over the other classes",
            listed(&absent, ", ")
        ));
    }
}

/// Fails unless training and test images have labels of two classes or more.
///
/// # Errors
/// `Error::Usage` naming what is missing, or the only class.
pub fn check_classes(dataset: &Dataset, command: &str) -> Result<()> {
    dataset.labels_of(&dataset.train, "training")?;
    dataset.labels_of(&dataset.test, "test")?;
    match dataset.classes.as_slice() {
        [class] => Err(Error::usage(format!(
            "{} has one class, {class}; {command} tells classes apart and needs two or more",
            dataset.name
        ))),
        _ => Ok(()),
    }
}

/// Arguments for an early stop.
#[derive(Args, Clone, Debug)]
pub struct StopArguments {
    /// Stop after this many seconds: finish the current step or batch, store the state, print the
    /// command that resumes, and exit with code 75. SIGINT, SIGTERM, SIGHUP and SIGUSR1 have the
    /// same effect, with exit codes 130, 143, 129 and 75. A second signal ends the process at once
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    time_limit: Option<f64>,
}

impl StopArguments {
    /// Installs the signal handlers and starts the time limit.
    pub fn listen(&self) -> Result<()> {
        if let Some(seconds) = self.time_limit {
            interrupt::stop_after(Duration::try_from_secs_f64(seconds).ok());
        }
        signals::listen()
    }
}

/// Options of every run that do not change its results, so they are not settings.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Execution")]
pub struct PlaceArguments {
    /// Take the settings of this TOML file, such as the config.toml of a run folder, or of a recipe
    /// (see parallax recipes). Options that are given replace them
    #[arg(long, value_name = "FILE|recipe:NAME")]
    config: Option<PathBuf>,

    /// Print all settings as a configuration file, and run nothing
    #[arg(long)]
    pub print_config: bool,

    /// Where to compute: auto, cpu, gpu, a part of an adapter's name, or a number of the list that
    /// devices prints
    #[arg(long, default_value = "auto")]
    pub device: DeviceRequest,

    /// The run folder, new or empty [default: a new one under runs]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Resume the run in --out; all other arguments must be those of the run. If no run has begun
    /// there, a new one is started. If the run has ended, its results are printed again. A larger
    /// --steps extends the run, unless its learning rate depends on the number of steps
    #[arg(long)]
    pub resume: bool,

    #[command(flatten)]
    pub stop: StopArguments,
}

/// Where a run is made.
pub struct Place {
    pub device: DeviceRequest,
    /// The run folder; `None` means a new one under runs.
    pub out: Option<PathBuf>,
    pub resume: bool,
    /// When a training measures the variants of a GPU's kernels.
    pub tuning: When,
    /// How much of a training is made.
    pub extent: Extent,
}

impl Place {
    /// Fails if the run cannot write to --out, before any work.
    pub fn check_out(&self) -> Result<()> {
        check_folder(self.out.as_deref(), self.resume)
    }

    /// Opens the run folder, and prints the data set, the device and the folder. The default name
    /// of the folder is that of the command and the data. Call this after all checks of the
    /// arguments, so that an error leaves no folder behind.
    pub fn start(
        &self,
        spec: &RunSpec,
        dataset: &Dataset,
        chosen: &ChosenDevice,
    ) -> Result<RunFolder> {
        let folder = RunFolder::of_group(|| match &self.out {
            Some(path) => open_folder(path, self.resume, chosen),
            None => {
                let (command, common) = (spec.command(), &spec.common);
                let (data, protocol) = (common.data.kind, common.protocol);
                let name = format!("{command}-{data}-{protocol}-seed{}", common.seed);
                RunFolder::create_next(Path::new("runs"), &name)
            }
        })?;
        note!(
            "data    {}, {} images",
            dataset.name,
            dataset.pretraining().len()
        );
        note!("device  {} ({})", chosen.device.name(), chosen.reason);
        note!("run     {}", folder.path().display());
        Ok(folder)
    }

    /// Selects the table of variants for a training of `network` in `folder`, and prints a summary
    /// of it. A resumed run keeps its own table.
    pub fn tune(
        &self,
        chosen: &ChosenDevice,
        folder: &RunFolder,
        network: impl FnOnce() -> Result<TrainedNetwork>,
    ) -> Result<()> {
        let Some(gpu) = chosen.device.as_gpu() else {
            return Ok(());
        };
        if !is_begun(folder.path()) {
            tuning::prepare(gpu, self.tuning, &network()?)?;
        }
        note!("kernels variants {}", gpu.variants().summary());
        Ok(())
    }
}

/// Fails if no run can start or be resumed in the folder of `--out`.
pub fn check_folder(out: Option<&Path>, resume: bool) -> Result<()> {
    if !distributed::current().is_first() {
        return Ok(());
    }
    match out {
        Some(path) => folder::check(path, resume),
        None if resume => Err(Error::usage(
            "--resume needs the folder of the run; name it with --out",
        )),
        None => Ok(()),
    }
}

/// Opens the run folder at `path`. With `resume`, the folder may hold a run. The device then uses
/// the kernel variants of that run, and a message is printed if the run has ended or has not begun.
pub fn open_folder(path: &Path, resume: bool, chosen: &ChosenDevice) -> Result<RunFolder> {
    if !resume {
        return RunFolder::create(path);
    }
    let folder = RunFolder::resume(path)?;
    let path = path.display();
    if is_done(folder.path()) {
        note!("the run has ended; its results are in {path}/{SUMMARY}");
    } else if !is_begun(folder.path()) {
        note!("no run has begun in {path}, so one is started");
        return Ok(folder);
    }
    if let Some(gpu) = chosen.device.as_gpu() {
        tuning::resume(gpu, &folder)?;
    }
    Ok(folder)
}

/// Whether the variants of a GPU's kernels are measured before a training.
#[derive(Args)]
#[command(next_help_heading = "Execution")]
pub struct TuningArguments {
    /// On a GPU, measure which variant of each kernel is the fastest for the network's shapes, even
    /// if a table for the adapter ships with the program (llvmpipe, SwiftShader). Shapes measured
    /// before are not measured again. Without --tune and --no-tune, only adapters without a shipped
    /// table are measured. The results are stored in PARALLAX_CACHE_DIR [default: parallax in the
    /// user's folder for caches]
    #[arg(long, conflicts_with = "no_tune")]
    tune: bool,

    /// On a GPU, measure nothing and use the table that ships with the program
    #[arg(long)]
    no_tune: bool,
}

impl TuningArguments {
    pub fn when(&self) -> When {
        match (self.tune, self.no_tune) {
            (true, _) => When::Always,
            (_, true) => When::Never,
            _ => When::WhereNoTableShips,
        }
    }
}
