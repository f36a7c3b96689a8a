//! `parallax reproduce`: every experiment of the paper as a list of jobs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::arguments::{DataArguments, Place, StopArguments, check_classes, positive, seed, whole};
use super::device_choice::{DeviceRequest, open};
use crate::console::{note, say};
use crate::data::DataKind;
use crate::distributed;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::objectives::Protocol;
use crate::paper::grid::{
    Estimate, FIGURES, Grid, GridSettings, Job, Network, Overrides, Rates, Scale, Shard, Sizes,
    Source,
};
use crate::paper::report;
use crate::runs::data_cache;
use crate::runs::folder::{check_place, is_done, make, remove_folders};
use crate::runs::lock::FolderLock;
use crate::runs::state_dict::StateDict;
use crate::runs::training::Extent;
use crate::runs::tuning::When;

/// Run every experiment of the paper, or those of one figure, as a list of jobs
///
/// smoke runs every code path on generated shapes. small runs every cell of the grid on real
/// images, with networks a quarter as wide and a tenth of the training steps. paper is the paper's
/// own grid. --dry-run lists the differences from the paper, and the time and memory of each job.
/// The most informative jobs run first, and the report is written after each job. A finished job is
/// skipped, and an interrupted one is resumed.
#[derive(Args)]
pub struct Arguments {
    /// Size of the grid
    #[arg(long, value_name = "smoke|small|paper")]
    scale: Scale,

    /// The folder of all runs. A grid that was begun there is resumed
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    data: DataArguments,

    /// The second data set, for transfer: STL-10 in the paper [default: shapes-inverted on shapes,
    /// else stl10]
    #[arg(long, value_name = "KIND")]
    transfer_data: Option<DataKind>,

    /// The folder of the second data set's files
    #[arg(long, value_name = "DIR")]
    transfer_data_dir: Option<PathBuf>,

    /// Steps of the longest pretraining, a multiple of ten [default: 10 for smoke, 500 for small,
    /// 5000 for paper]
    #[arg(long, value_name = "STEPS", value_parser = whole::<u32>(1..=u64::from(u32::MAX)))]
    full_steps: Option<u32>,

    /// Multiplies every channel count of every network [default: 0.0625 for smoke, 0.25 for small,
    /// 1 for paper]
    #[arg(long, value_parser = positive)]
    width: Option<f64>,

    /// Test images to attack, the same number for each class [default: 50 for smoke, 500 for small,
    /// all for paper]
    #[arg(long, value_name = "IMAGES", value_parser = whole::<u32>(1..=u64::from(u32::MAX)))]
    attack_images: Option<u32>,

    /// Training images of a linear evaluation, the same number for each class [default: 500 for
    /// smoke, 10000 for small, all for paper]
    #[arg(long, value_name = "IMAGES", value_parser = whole::<u32>(1..=u64::from(u32::MAX)))]
    linear_images: Option<u32>,

    /// Run only the jobs that one table, figure or claim needs
    #[arg(long, value_name = "FIGURE", value_parser = FIGURES)]
    only: Option<String>,

    /// Run one part of the jobs, such as 2/8, while other processes run the others in the same
    /// folder. Jobs that need each other are in the same part. Under mpirun or srun, each process
    /// takes a part [default: all jobs]
    #[arg(long, value_name = "PART/PARTS")]
    shard: Option<Shard>,

    /// List the jobs with the time and memory that each is expected to take on this machine, and
    /// run nothing
    #[arg(long)]
    dry_run: bool,

    /// Runs of each job, with the seeds from --seed on
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = whole::<u64>(1..=100))]
    seeds: u64,

    /// The first seed
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// Where to compute: auto, cpu, gpu, a part of an adapter's name, or a number of the list that
    /// devices prints
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,

    /// sound: the choices of the papers that introduced the methods. paper: those of the reproduced
    /// paper's released code
    #[arg(long, value_name = "sound|paper", default_value = "sound")]
    protocol: Protocol,

    /// The initial weights of pretraining, which --protocol paper requires
    #[arg(long, value_name = "FILE|none")]
    init: Option<String>,

    #[command(flatten)]
    stop: StopArguments,
}

/// The name of the report's folder in the folder of the grid.
const REPORT: &str = "report";

/// The settings, with both data sets read.
fn settings(arguments: &Arguments) -> Result<GridSettings> {
    let Arguments { data, scale, .. } = arguments;
    if *scale == Scale::Smoke && data.kind != DataKind::Shapes {
        return Err(Error::usage(
            "--scale smoke runs on the generated shapes; leave --data out, or use --scale small",
        ));
    }
    if *scale != Scale::Smoke && data.kind == DataKind::Shapes {
        return Err(Error::usage(format!(
            "--scale {scale} wants real images: give --data cifar10 --data-dir DIR, and --transfer-data with \
             --transfer-data-dir"
        )));
    }
    if arguments.protocol == Protocol::Paper && arguments.init.is_none() {
        return Err(Error::usage(
            "--protocol paper starts from ImageNet weights: give --init FILE.safetensors, or --init none to start \
             from random ones and have every result say so",
        ));
    }
    let last = arguments.seed.checked_add(arguments.seeds - 1);
    let last = last.filter(|&last| i64::try_from(last).is_ok());
    let last =
        last.ok_or_else(|| Error::usage("--seed and --seeds name seeds that are too large"))?;
    let sizes = Sizes::of(*scale).with(Overrides {
        full_steps: arguments.full_steps.map(u64::from),
        width: arguments.width,
        attack_images: arguments.attack_images.map(|images| images as usize),
        linear_images: arguments.linear_images.map(|images| images as usize),
    })?;
    let second = arguments.transfer_data.unwrap_or(match data.kind {
        DataKind::Shapes => DataKind::ShapesInverted,
        _ => DataKind::Stl10,
    });
    let drawn = [DataKind::Shapes, DataKind::ShapesInverted];
    if !drawn.contains(&second) && arguments.transfer_data_dir.is_none() {
        return Err(Error::usage(format!(
            "the second data set, {second}, is read from files; name their folder with --transfer-data-dir, or another \
             data set with --transfer-data"
        )));
    }
    if let Some(file) = arguments.init.as_deref().filter(|&file| file != "none") {
        StateDict::read(Path::new(file))?.check_values()?;
    }
    let read = |kind: DataKind, dir: Option<PathBuf>| -> Result<Source> {
        let data = DataArguments {
            kind,
            dir,
            ..data.clone()
        };
        let (dir, options) = (data.dir.as_deref(), data.options());
        let dataset = data_cache::load(kind, dir, arguments.seed, &options)?;
        check_classes(&dataset, "reproduce")?;
        Ok(Source::new(data, &dataset))
    };
    let first = read(data.kind, data.dir())?;
    for (flag, images) in [
        ("--attack-images", arguments.attack_images),
        ("--linear-images", arguments.linear_images),
    ] {
        let classes = first.classes;
        if let Some(images) = images.filter(|&images| !(images as usize).is_multiple_of(classes)) {
            return Err(Error::usage(format!(
                "{flag} {images} cannot be the same number of each of the {classes} classes of {}; use \
                 a multiple of {classes}",
                first.name
            )));
        }
    }
    let second = read(second, arguments.transfer_data_dir.clone())?;
    if first.name == second.name {
        return Err(Error::usage(format!(
            "both data sets are {}; name another one with --transfer-data",
            first.name
        )));
    }
    Ok(GridSettings {
        scale: *scale,
        sizes,
        protocol: arguments.protocol,
        init: arguments.init.clone(),
        seeds: (arguments.seed..=last).collect(),
        first,
        second,
        out: arguments.out.clone(),
    })
}

pub fn run(arguments: &Arguments) -> Result<()> {
    check_place(&arguments.out)?;
    if !arguments.dry_run {
        FolderLock::check(&arguments.out)?;
        arguments.stop.listen()?;
    }
    data_cache::keep();
    let shard = shard(arguments.shard)?;
    let settings = settings(arguments)?;
    let grid = Grid::new(&settings);
    let jobs = grid.select(arguments.only.as_deref());
    let jobs = shard.select(jobs, settings.sizes.width)?;
    for line in &grid.shrunk {
        note!("differs {line}");
    }
    if arguments.dry_run {
        grid.is_in(&settings.out)?;
        return list(arguments, &settings, &jobs);
    }
    let made = make(&settings.out)?;
    let lock = if shard.is_whole() {
        FolderLock::acquire(&settings.out).map(Some)
    } else {
        // Processes share the folder. Each run has a lock of its own.
        Ok(None)
    };
    let done = lock.and_then(|_lock| {
        let is_resumed = grid.is_in(&settings.out)?;
        grid.claim(&settings.out)?;
        let done = run_all(&jobs, shard, &settings, &arguments.device);
        let is_begun = |job: &&Job| settings.folder(&job.id).exists();
        if done.is_err() && shard.is_whole() && !is_resumed && !jobs.iter().any(is_begun) {
            grid.withdraw(&settings.out)?;
        }
        done
    });
    // Those that are not empty stay.
    if done.is_err() {
        remove_folders(&made);
    }
    done
}

/// The part of the jobs that this process runs.
///
/// # Errors
/// `Error::Usage` if a launcher gave the same part to several processes.
fn shard(given: Option<Shard>) -> Result<Shard> {
    match (given, distributed::launched_ranks()) {
        (None, ranks) => Ok(Shard::of_rank(distributed::launched_rank(), ranks)),
        (Some(shard), 1) => Ok(shard),
        (Some(shard), ranks) => Err(Error::usage(format!(
            "{ranks} processes were started with --shard {shard}; leave it out, and each takes a part"
        ))),
    }
}

/// Writes the report on all jobs that are done. Processes that share the grid's folder take turns,
/// so that the last one reports the jobs of all.
fn write_report(settings: &GridSettings) -> Result<report::Written> {
    let out = settings.out.join(REPORT);
    let made = make(&out)?;
    let written = FolderLock::wait(&out).and_then(|_lock| report::write(&settings.out, &out));
    if written.is_err() {
        remove_folders(&made);
    }
    written
}

/// Runs the jobs of a part that are not done, and writes the report after each of them. If a job
/// fails, only the jobs that need it are skipped.
fn run_all(
    jobs: &[&Job],
    shard: Shard,
    settings: &GridSettings,
    device: &DeviceRequest,
) -> Result<()> {
    let (label, of_part) = if shard.is_whole() {
        (String::new(), String::new())
    } else {
        (format!("part {shard}, "), format!(" of part {shard}"))
    };
    let started = Instant::now();
    let flops = |job: &Job| job.work.flops(settings.sizes.width);
    let mut pace = Pace {
        done: 0.0,
        left: 0.0,
        spent: Duration::ZERO,
    };
    for job in jobs {
        if !is_done(&settings.folder(&job.id)) {
            pace.left += flops(job)?;
        }
    }
    let mut first_error = None;
    let mut missing: Vec<&str> = Vec::new();
    for (number, job) in jobs.iter().enumerate() {
        let folder = settings.folder(&job.id);
        let place = format!("[{label}{}/{}] {}", number + 1, jobs.len(), job.id);
        if is_done(&folder) {
            note!("{place}: done before");
            continue;
        }
        if let Some(need) = job.needs.iter().find(|n| missing.contains(&n.as_str())) {
            note!("{place}: skipped, since {need} is missing");
            missing.push(&job.id);
            pace.left -= flops(job)?;
            continue;
        }
        let job_place = format!("job {} of {}, {}", number + 1, jobs.len(), job.id);
        if pace.done > 0.0 {
            interrupt::check(|| format!("before {job_place}"))?;
        }
        note!("\n{place}, {}", pace.line(started.elapsed()));
        let job_started = Instant::now();
        let place_of_run = Place {
            device: device.clone(),
            out: Some(folder),
            // In case the run was interrupted.
            resume: true,
            tuning: When::WhereNoTableShips,
            extent: Extent::Job,
        };
        match super::run::run(&job.spec, &place_of_run) {
            Ok(()) => {
                pace.finish(flops(job)?, job_started.elapsed());
                // The report at the end fails for the same reason, when every job has run.
                if let Err(error) = write_report(settings) {
                    note!("no report yet: {error}");
                }
            }
            Err(Error::Stopped { cause, place, .. }) => {
                return Err(Error::Stopped {
                    cause,
                    place: format!("{place} in {job_place}"),
                    folder: None,
                });
            }
            Err(error) => {
                note!("{place}: failed: {error}");
                missing.push(&job.id);
                pace.left -= flops(job)?;
                first_error.get_or_insert(error.of_job(&job.id));
            }
        }
    }
    let there = jobs.len() - missing.len();
    say!(
        "\n{there} of {} jobs{of_part} in {}, {}",
        jobs.len(),
        settings.out.display(),
        duration(started.elapsed()),
    );
    if there > 0 {
        let runs = write_report(settings)?.runs;
        let out = settings.out.join(REPORT);
        say!(
            "report on {runs} runs in {}",
            out.join("report.html").display()
        );
    }
    first_error.map_or(Ok(()), Err)
}

/// Speed of the jobs that this process ran, from which the remaining time is estimated.
struct Pace {
    /// Floating-point operations of the jobs that this process ran.
    done: f64,
    /// Floating-point operations of the remaining jobs.
    left: f64,
    spent: Duration,
}

impl Pace {
    fn finish(&mut self, flops: f64, time: Duration) {
        self.left -= flops;
        self.done += flops;
        self.spent += time;
    }

    fn line(&self, elapsed: Duration) -> String {
        let elapsed = duration(elapsed);
        if self.done == 0.0 {
            return format!("{elapsed} so far");
        }
        let left = self.spent.mul_f64((self.left / self.done).max(0.0));
        format!("{elapsed} so far, about {} left", duration(left))
    }
}

/// Prints a duration in seconds, minutes or hours.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{:.1} h", time.as_secs_f64() / 3_600.0),
    }
}

/// Prints the expected time and memory of each job, from passes that are timed on the device.
fn list(arguments: &Arguments, settings: &GridSettings, jobs: &[&Job]) -> Result<()> {
    let chosen = open(&arguments.device)?;
    say!("device  {} ({})", chosen.device.name(), chosen.reason);
    let mut rates: Vec<Rates> = Vec::new();
    for job in jobs {
        let network = job.work.network;
        if !rates.iter().any(|r| r.network == network) {
            let reopen = || open(&arguments.device).map(|chosen| chosen.device);
            rates.push(Rates::measure(network, settings.sizes.width, &reopen)?);
        }
    }
    let estimate = |job: &Job| -> Estimate {
        let network: Network = job.work.network;
        let rates = rates.iter().find(|r| r.network == network);
        rates.map_or(
            Estimate {
                seconds: 0.0,
                peak_bytes: 0,
            },
            |rates| rates.estimate(&job.work),
        )
    };
    say!("{:>9} {:>9}  job", "seconds", "MiB");
    let (mut total, mut peak) = (0.0, 0);
    for job in jobs {
        let Estimate {
            seconds,
            peak_bytes,
        } = estimate(job);
        let done = is_done(&settings.folder(&job.id));
        if !done {
            total += seconds;
            peak = peak.max(peak_bytes);
        }
        say!(
            "{seconds:>9.0} {:>9}  {}{}: {}",
            peak_bytes >> 20,
            job.id,
            if done { " (done)" } else { "" },
            job.spec.command_line()?.join(" ")
        );
    }
    say!(
        "{} jobs, about {:.0} minutes here for what is not done, peak {} MiB",
        jobs.len(),
        total / 60.0,
        peak >> 20
    );
    Ok(())
}
