//! `parallax report`: tables, figures and claims from run folders.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::arguments::notice;
use super::device_choice::{DeviceRequest, open};
use crate::augment::PaddedCropAugmentation;
use crate::console::say;
use crate::error::{Error, Result};
use crate::evaluate::online::Sample;
use crate::paper::report::write;
use crate::runs::folder::{check_place, is_begun, write_whole};
use crate::runs::page::{PAGE, html};
use crate::runs::pictures::{Pictures, Views};
use crate::runs::pretrain::Pretext;
use crate::runs::reading::RunRecord;
use crate::runs::spec::Task;
use crate::runs::weights_file::WeightsFile;

/// Write the page of a run, or tables and figures of the runs in a folder, next to the paper's
/// values, with answers to the paper's claims
///
/// For a run folder, writes report.html: curves, results, settings, views, nearest neighbours and
/// features. For a folder of runs, writes one self-contained HTML page, the tables as Markdown and
/// CSV, the figures as SVG, and every value to results.json.
#[derive(Args)]
pub struct Arguments {
    /// A run folder, the folder of reproduce, or any folder that contains run folders
    dir: PathBuf,

    /// Where to write [default: the run folder, or DIR/report]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Where to compute the features of a run's page: auto, cpu, gpu, a part of an adapter's name,
    /// or a number of the list that devices prints
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let is_run = is_begun(&arguments.dir);
    let default = || {
        if is_run {
            arguments.dir.clone()
        } else {
            arguments.dir.join("report")
        }
    };
    let out = arguments.out.clone().unwrap_or_else(default);
    check_place(&out)?;
    if is_run {
        return page_of_run(arguments, &out);
    }
    let written = write(&arguments.dir, &out)?;
    for (title, answers) in &written.answers {
        say!("{title}");
        let answers: Vec<String> = (1..)
            .zip(answers)
            .map(|(number, answer)| format!("{number} {}", answer.words()))
            .collect();
        say!("claims  {}", answers.join(", "));
    }
    say!(
        "{} runs, {}",
        written.runs,
        out.join("report.html").display()
    );
    Ok(())
}

/// Writes the page of the run in the folder of `arguments` to the folder `out`.
fn page_of_run(arguments: &Arguments, out: &Path) -> Result<()> {
    let record = RunRecord::read(&arguments.dir)?;
    let pictures = pictures(arguments, &record);
    if let Err(error) = &pictures {
        notice(&format!("no pictures: {error}"));
    }
    let pictures = pictures.as_ref().map_err(|error| error.to_string());
    let page = html(&record, pictures.as_ref().map_err(String::as_str).copied());
    fs::create_dir_all(out).map_err(|e| Error::write(out, e))?;
    write_whole(out, PAGE, page.as_bytes())?;
    say!("{}", out.join(PAGE).display());
    Ok(())
}

/// The pictures of a run, from its data set and its last saved network.
///
/// # Errors
/// `Error::Usage` or `Error::Data` if settings, images or weights of the run cannot be used.
fn pictures(arguments: &Arguments, record: &RunRecord) -> Result<Pictures> {
    let spec = record.spec()?;
    let views = match &spec.task {
        Task::Simclr(run) => Pretext::simclr(&spec.common, run)?.views(),
        Task::Rotnet(run) => Pretext::rotnet(&spec.common, run)?.views(),
        Task::Supervised(_) | Task::Finetune(_) => Views::Crops(PaddedCropAugmentation::default()),
        _ => {
            let what = format!("a run of {} trains no encoder", spec.command());
            return Err(Error::usage(what));
        }
    };
    let weights = record.weights()?;
    let file = WeightsFile::read(&weights)?;
    let seed = spec.common.seed;
    let dataset = spec.common.data.load(seed)?;
    let digest = record.setting("data.digest");
    if dataset.digest != digest {
        return Err(Error::usage(format!(
            "the images have the digest {}, and those of the run had {digest}; restore the data set of the run",
            dataset.digest
        )));
    }
    let split = dataset.pretraining();
    let sample = Sample::new(&dataset, seed, views.side(split))?;
    let device = open(&arguments.device)?.device;
    let step = file.origin().step;
    let loaded = file.load(&device)?;
    Pictures::new(
        &device,
        &loaded.encoder,
        &sample,
        views.draw(split, seed)?,
        step,
    )
}
