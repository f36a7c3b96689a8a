//! `parallax reproduce`: every experiment of the paper as a list of jobs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::arguments::{DataArguments, StopArguments, protocol, seed};
use super::data_cache;
use super::device_choice::{DeviceRequest, open};
use crate::data::DataKind;
use crate::error::{Error, Result};
use crate::experiment::grid::{
    Estimate, FIGURES, Grid, GridSettings, Job, Network, Rates, Scale, Sizes, Source,
};
use crate::experiment::run_folder::is_done;
use crate::interrupt;
use crate::pretext::Protocol;

/// Run every experiment of the paper, or those of one figure, as jobs that are skipped when done and resumed when cut
///
/// smoke runs every path on generated shapes; small runs every cell on real images, a quarter as wide and with far less
/// training (--dry-run says how much less, and how long it takes); paper is the paper's own grid.
#[derive(Args)]
pub struct Arguments {
    /// How large
    #[arg(long, value_name = "smoke|small|paper", value_parser = scale)]
    scale: Scale,

    /// The folder of all runs; one that was begun goes on
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    data: DataArguments,

    /// The second data set, for transfer, in the place of STL-10 [default: shapes-inverted on shapes, else stl10]
    #[arg(long, value_name = "KIND", value_parser = data_kind)]
    transfer_data: Option<DataKind>,

    /// The folder of the second data set's files
    #[arg(long, value_name = "DIR")]
    transfer_data_dir: Option<PathBuf>,

    /// Only what one table, figure or claim needs
    #[arg(long, value_name = "FIGURE", value_parser = FIGURES)]
    only: Option<String>,

    /// List the jobs with the time and memory that each is expected to take here, and run nothing
    #[arg(long)]
    dry_run: bool,

    /// Runs of each job, with the seeds from --seed on
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,

    /// The first seed
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// Where to compute: auto, cpu, gpu, or a part of an adapter's name
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,

    /// sound, or the evaluated paper's code point by point
    #[arg(long, value_name = "sound|paper", default_value = "sound", value_parser = protocol)]
    protocol: Protocol,

    /// Where pretraining starts from, which the paper's protocol wants to be named
    #[arg(long, value_name = "FILE|none")]
    init: Option<String>,

    #[command(flatten)]
    stop: StopArguments,
}

fn scale(word: &str) -> std::result::Result<Scale, String> {
    word.parse::<Scale>().map_err(|e| e.to_string())
}

fn data_kind(word: &str) -> std::result::Result<DataKind, String> {
    word.parse::<DataKind>().map_err(|e| e.to_string())
}

/// The settings, with both data sets read.
fn settings(arguments: &Arguments) -> Result<GridSettings> {
    let Arguments { data, scale, .. } = arguments;
    if *scale == Scale::Smoke && data.data != DataKind::Shapes {
        return Err(Error::usage(
            "--scale smoke runs on the generated shapes; leave --data out, or use --scale small",
        ));
    }
    if *scale != Scale::Smoke && data.data == DataKind::Shapes {
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
    let second = arguments.transfer_data.unwrap_or(match data.data {
        DataKind::Shapes => DataKind::ShapesInverted,
        _ => DataKind::Stl10,
    });
    let read = |kind: DataKind, dir: Option<&Path>| -> Result<Source> {
        let dataset = data_cache::load(kind, dir, arguments.seed)?;
        dataset.labels_of(&dataset.train, "training")?;
        dataset.labels_of(&dataset.test, "test")?;
        Ok(Source::new(kind, dir.map(Path::to_path_buf), &dataset))
    };
    let first = read(data.data, data.data_dir.as_deref())?;
    let second = read(second, arguments.transfer_data_dir.as_deref())?;
    if first.name == second.name {
        return Err(Error::usage(format!(
            "both data sets are {}; name another one with --transfer-data",
            first.name
        )));
    }
    Ok(GridSettings {
        scale: *scale,
        sizes: Sizes::of(*scale),
        protocol: arguments.protocol,
        init: arguments.init.clone(),
        seeds: (arguments.seed..=last).collect(),
        first,
        second,
        out: arguments.out.clone(),
    })
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.dry_run {
        arguments.stop.listen()?;
    }
    data_cache::keep();
    let settings = settings(arguments)?;
    let grid = Grid::new(&settings);
    let jobs = grid.select(arguments.only.as_deref());
    for line in &grid.shrunk {
        println!("shrunk  {line}");
    }
    if arguments.dry_run {
        return list(arguments, &settings, &jobs);
    }
    grid.claim(&settings.out)?;
    run_all(&jobs, &settings, &arguments.device)
}

/// Runs what is not done. A job that fails keeps back only those that need it.
fn run_all(jobs: &[&Job], settings: &GridSettings, device: &DeviceRequest) -> Result<()> {
    let started = Instant::now();
    let mut first_error = None;
    let mut has_run = false;
    let mut missing: Vec<&str> = Vec::new();
    for (number, job) in jobs.iter().enumerate() {
        let folder = settings.folder(&job.id);
        let place = format!("[{}/{}] {}", number + 1, jobs.len(), job.id);
        if is_done(&folder) {
            println!("{place}: done before");
            continue;
        }
        if let Some(need) = job.needs.iter().find(|n| missing.contains(&n.as_str())) {
            println!("{place}: left out, since {need} is missing");
            missing.push(&job.id);
            continue;
        }
        if has_run {
            interrupt::check(|| {
                format!("before job {} of {}, {}", number + 1, jobs.len(), job.id)
            })?;
        }
        has_run = true;
        let seconds = started.elapsed().as_secs_f64();
        println!("\n{place}, {seconds:.0} s after the start");
        if let Err(error) = super::execute(&words(job, &folder, device)) {
            if let Error::Stopped { cause, place, .. } = error {
                return Err(Error::Stopped {
                    cause,
                    place: format!(
                        "{place} in job {} of {}, {}",
                        number + 1,
                        jobs.len(),
                        job.id
                    ),
                    folder: None,
                });
            }
            println!("{place}: failed: {error}");
            missing.push(&job.id);
            first_error.get_or_insert(error.of_job(&job.id));
        }
    }
    println!(
        "\n{} of {} jobs in {}, {:.0} s",
        jobs.len() - missing.len(),
        jobs.len(),
        settings.out.display(),
        started.elapsed().as_secs_f64()
    );
    first_error.map_or(Ok(()), Err)
}

/// The command line of a job, which continues a run that was interrupted.
fn words(job: &Job, folder: &Path, device: &DeviceRequest) -> Vec<String> {
    let mut words = job.command.clone();
    words.extend(["--device".to_string(), device.to_string()]);
    words.extend(["--out".to_string(), folder.display().to_string()]);
    words.push("--resume".to_string());
    words
}

/// Says what each job is expected to take, by passes that are timed on the device.
fn list(arguments: &Arguments, settings: &GridSettings, jobs: &[&Job]) -> Result<()> {
    let chosen = open(&arguments.device)?;
    println!("device  {} ({})", chosen.device.name(), chosen.reason);
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
    println!("{:>9} {:>9}  job", "seconds", "MiB");
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
        println!(
            "{seconds:>9.0} {:>9}  {}{}: {}",
            peak_bytes >> 20,
            job.id,
            if done { " (done)" } else { "" },
            job.command.join(" ")
        );
    }
    println!(
        "{} jobs, about {:.0} minutes here for what is not done, peak {} MiB",
        jobs.len(),
        total / 60.0,
        peak >> 20
    );
    Ok(())
}
