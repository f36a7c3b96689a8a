//! Arguments that several subcommands share, and the parsers of their values.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::data_cache;
use super::device_choice::{ChosenDevice, DeviceRequest};
use super::{one_line, signals};
use crate::console::note;
use crate::data::{DataKind, Dataset, LoadOptions, OnBadImage};
use crate::device::Device;
use crate::distributed;
use crate::error::{Error, Result, listed};
use crate::interrupt;
use crate::nn::{Arch, ResNetConfig, Stem};
use crate::objectives::Protocol;
use crate::runs::folder::{self, RunFolder, SUMMARY, is_begun, is_done};
use crate::runs::profile::Phases;
use crate::runs::tuning::{self, TrainedNetwork, When};
use crate::tensor::{DType, Tensor};

/// Which images.
#[derive(Args)]
pub struct DataArguments {
    /// Images: generated shapes, the same dark on light and smaller (shapes-inverted), CIFAR-10,
    /// CIFAR-100 or STL-10, or a folder of image files: DIR/train/CLASS/... and DIR/test/CLASS/...,
    /// DIR/CLASS/..., or images without class folders
    #[arg(long, value_name = "shapes|shapes-inverted|cifar10|cifar100|stl10|folder", default_value = "shapes", value_parser = data_kind)]
    pub data: DataKind,

    /// The folder of the data's files [default: the environment variable PARALLAX_DATA]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Resize the shorter side of each image to this many pixels, with antialiasing, and crop the
    /// centre. SimCLR's views then have this size too [default: the images' own size, which must be
    /// one]
    #[arg(long, value_name = "PIXELS", value_parser = whole::<u64>(1..=2048))]
    pub size: Option<u64>,

    /// What to do if an image file cannot be decoded whole: error, or skip, which leaves it out and
    /// records it
    #[arg(long, value_name = "error|skip", default_value = "error", value_parser = on_bad_image)]
    pub on_bad_image: OnBadImage,
}

impl DataArguments {
    /// The folder of the data's files.
    pub fn dir(&self) -> Option<PathBuf> {
        let named = self.data_dir.clone();
        match self.data {
            // The variable names a folder for the data sets that have files; shapes has none.
            DataKind::Shapes | DataKind::ShapesInverted => named,
            _ => named.or_else(|| std::env::var_os("PARALLAX_DATA").map(PathBuf::from)),
        }
    }

    /// How the files are read.
    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            size: self.size(),
            on_bad_image: self.on_bad_image,
        }
    }

    pub fn size(&self) -> Option<usize> {
        self.size.map(|pixels| pixels as usize)
    }

    /// The data set, after notices of what its files are. `seed` matters to shapes alone.
    pub fn load(&self, seed: u64) -> Result<Dataset> {
        let dataset = data_cache::load(self.data, self.dir().as_deref(), seed, &self.options())?;
        for line in dataset.findings.notices() {
            notice(&line);
        }
        Ok(dataset)
    }
}

/// Prints a fact that the user should know, on one line.
pub fn notice(line: &str) {
    note!("{}", one_line("notice ", line));
}

/// Prints the classes of which the test images have none, if there are such classes.
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

/// Which network.
#[derive(Args)]
pub struct NetworkArguments {
    /// The encoder [default: resnet18]
    #[arg(long, value_name = "resnet18|resnet34|resnet50", default_value = "resnet18", value_parser = arch)]
    pub arch: Arch,

    /// Multiplies every channel count [default: 0.25 on shapes, else 1]
    #[arg(long, value_parser = positive)]
    pub width: Option<f64>,
}

impl NetworkArguments {
    /// The network with the stem for small images.
    ///
    /// # Errors
    /// `Error::Usage` where the width cannot be.
    pub fn config(&self, data: DataKind) -> Result<ResNetConfig> {
        let config = ResNetConfig {
            arch: self.arch,
            stem: Stem::Cifar { padding: 1 },
            width: self.width.unwrap_or(match data {
                DataKind::Shapes | DataKind::ShapesInverted => 0.25,
                _ => 1.0,
            }),
        };
        config.shape()?;
        Ok(config)
    }
}

/// Arguments for an early stop.
#[derive(Args)]
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

/// Arguments of every run.
#[derive(Args)]
pub struct RunArguments {
    /// The seed of weights, order and views
    #[arg(long, default_value = "0", value_parser = seed)]
    pub seed: u64,

    /// Where to compute: auto, cpu, gpu, a part of an adapter's name, or a number of the list that
    /// devices prints
    #[arg(long, default_value = "auto")]
    pub device: DeviceRequest,

    /// The run folder, new or empty [default: a new one under runs]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Resume the run in --out; all other arguments must be those of the run. If no run has begun
    /// there, a new one is started. If the run has ended, its results are printed again
    #[arg(long)]
    pub resume: bool,

    #[command(flatten)]
    pub stop: StopArguments,

    /// sound, or the evaluated paper's code point by point
    #[arg(long, value_name = "sound|paper", default_value = "sound", value_parser = protocol)]
    pub protocol: Protocol,
}

impl RunArguments {
    /// Fails if the run cannot write to --out, before any work.
    pub fn check_out(&self) -> Result<()> {
        check_folder(self.out.as_deref(), self.resume)
    }

    /// Opens the run folder, and prints the data set, the device and the folder. The default name
    /// of the folder is that of the command and the data. Call this after all checks of the
    /// arguments, so that an error leaves no folder behind.
    pub fn start(
        &self,
        command: &str,
        (data, dataset): (DataKind, &Dataset),
        chosen: &ChosenDevice,
    ) -> Result<RunFolder> {
        let folder = RunFolder::of_group(|| match &self.out {
            Some(path) => open_folder(path, self.resume, chosen),
            None => {
                let name = format!("{command}-{data}-{}-seed{}", self.protocol, self.seed);
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

/// Arguments for checkpoints, memory and profiles of a training.
#[derive(Args)]
pub struct CheckpointArguments {
    /// Minimum number of seconds between two checkpoints
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = whole::<u64>(0..=u64::MAX))]
    checkpoint_every: u64,

    /// Save the network every this many steps
    #[arg(long, value_name = "STEPS", value_parser = whole::<u64>(1..=u64::MAX))]
    pub save_every: Option<u64>,

    /// Keep only the inputs of the network's blocks and recompute the rest in the backward pass:
    /// bitwise the same weights, with less memory and about a third more time
    #[arg(long)]
    pub recompute: bool,

    /// How the network's activations are stored while it is trained: f32 or f16, which halves their
    /// memory. Sums, weights and the optimiser's state are f32 in both; with f16 the loss is
    /// scaled, so that small gradients do not vanish
    #[arg(long, value_name = "f32|f16", default_value = "f32", value_parser = precision)]
    pub precision: DType,

    /// Measure where the time of a step goes: prints a table of the kernels after the first eight
    /// steps, and leaves profile.json, a Chrome trace, in the run folder
    #[arg(long)]
    pub profile: bool,
}

impl CheckpointArguments {
    pub fn checkpoint_every(&self) -> Duration {
        Duration::from_secs(self.checkpoint_every)
    }

    /// Fails if `device` does not support the requested precision, so that no folder is created.
    pub fn check_precision(&self, device: &Device) -> Result<()> {
        Tensor::zeros(&[1], self.precision, device).map(drop)
    }

    /// Fails if a training of `steps` steps is too short for the requested profile, so that no
    /// folder is created.
    pub fn check_steps(&self, steps: u64) -> Result<()> {
        match self.profile {
            true => Phases::new(0, steps).map(|_| ()),
            false => Ok(()),
        }
    }
}

/// Whether the variants of a GPU's kernels are measured before a training.
#[derive(Args)]
pub struct TuningArguments {
    /// On a GPU, measure which variant of each kernel is the fastest for the network's shapes, even
    /// if a table for the adapter ships with the program (llvmpipe, SwiftShader). Shapes measured
    /// before are not measured again. If neither --tune nor --no-tune is given, all other adapters
    /// are measured. The results are stored in PARALLAX_CACHE_DIR [default: parallax in the user's
    /// folder for caches]
    #[arg(long, conflicts_with = "no_tune")]
    tune: bool,

    /// On a GPU, measure nothing and use the table that ships with the program
    #[arg(long)]
    no_tune: bool,
}

impl TuningArguments {
    /// Selects the table of variants for a training of `network` in `folder`, and prints a summary
    /// of it. A resumed run keeps its own table.
    pub fn prepare(
        &self,
        chosen: &ChosenDevice,
        folder: &RunFolder,
        network: impl FnOnce() -> Result<TrainedNetwork>,
    ) -> Result<()> {
        let Some(gpu) = chosen.device.as_gpu() else {
            return Ok(());
        };
        let when = match (self.tune, self.no_tune) {
            (true, _) => When::Always,
            (_, true) => When::Never,
            _ => When::WhereNoTableShips,
        };
        if !is_begun(folder.path()) {
            tuning::prepare(gpu, when, &network()?)?;
        }
        note!("kernels variants {}", gpu.variants().summary());
        Ok(())
    }
}

/// Parses the name of a network.
pub fn arch(word: &str) -> std::result::Result<Arch, String> {
    word.parse::<Arch>().map_err(|e| e.to_string())
}

fn on_bad_image(word: &str) -> std::result::Result<OnBadImage, String> {
    word.parse::<OnBadImage>().map_err(|e| e.to_string())
}

fn precision(word: &str) -> std::result::Result<DType, String> {
    [DType::F32, DType::F16]
        .into_iter()
        .find(|dtype| dtype.to_string() == word)
        .ok_or_else(|| "expected f32 or f16".to_string())
}

/// Parses the name of a kind of data set.
pub fn data_kind(word: &str) -> std::result::Result<DataKind, String> {
    word.parse::<DataKind>().map_err(|e| e.to_string())
}

/// Reads a protocol's name.
pub fn protocol(word: &str) -> std::result::Result<Protocol, String> {
    word.parse::<Protocol>().map_err(|e| e.to_string())
}

/// Returns a parser of whole numbers in `range`, whose message gives the range.
pub fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> std::result::Result<T, String> + Clone {
    move |word| {
        let number = word.parse::<u64>().ok().filter(|n| range.contains(n));
        let number = number.and_then(|n| T::try_from(n).ok());
        number.ok_or_else(|| match *range.end() {
            u64::MAX => format!("expected a whole number, {} or more", range.start()),
            end => format!("expected a whole number from {} to {end}", range.start()),
        })
    }
}

/// Reads a number above 0.
pub fn positive(word: &str) -> std::result::Result<f64, String> {
    number(word, "above 0", |x| x > 0.0)
}

/// Reads a number that is not negative.
pub fn not_negative(word: &str) -> std::result::Result<f64, String> {
    number(word, "0 or more", |x| x >= 0.0)
}

/// Reads a number for which `holds` is true, which messages call `expected`.
pub fn number(
    word: &str,
    expected: &str,
    holds: impl Fn(f64) -> bool,
) -> std::result::Result<f64, String> {
    let value: f64 = word
        .parse()
        .map_err(|_| format!("expected a number {expected}"))?;
    if value.is_finite() && (value as f32).is_finite() && holds(value) {
        Ok(value)
    } else {
        Err(format!("expected a finite number {expected}"))
    }
}

/// Reads a part of a whole: above 0, at most 1.
pub fn fraction(word: &str) -> std::result::Result<f64, String> {
    number(word, "above 0 and at most 1", |x| x > 0.0 && x <= 1.0)
}

/// Reads a seed: a whole number that a TOML file can hold.
pub fn seed(word: &str) -> std::result::Result<u64, String> {
    word.parse::<u64>()
        .ok()
        .filter(|&seed| i64::try_from(seed).is_ok())
        .ok_or_else(|| "expected a whole number from 0 to 9223372036854775807".to_string())
}
