//! `parallax data`: downloads published data sets.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::{HumanBytes, ProgressBar};

use super::arguments::StopArguments;
use crate::console::{note, say};
use crate::data::DataKind;
use crate::data::fetch::{Fetched, Origin, Patience, Progress, Published, fetch};
use crate::error::Result;
use crate::runs::progress::bar;

/// Plain lines that a download prints if stdout is no terminal.
const PLAIN_LINES: u64 = 10;

/// Download published data sets
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Fetch(FetchArguments),
}

/// Download a data set from its authors, verify its SHA-256, and unpack it
///
/// An interrupted download is continued by the same command. Proxies are taken from the environment
/// (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
#[derive(Args)]
struct FetchArguments {
    /// The data set
    #[arg(value_name = "cifar10|cifar100|stl10")]
    data: DataKind,

    /// The folder for the data set, the value of --data-dir for other commands [default:
    /// PARALLAX_DATA, otherwise data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// A mirror of the same archive
    #[arg(long, value_name = "ADDRESS")]
    url: Option<String>,

    /// An archive that was downloaded before
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    file: Option<PathBuf>,

    #[command(flatten)]
    stop: StopArguments,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.action {
        Action::Fetch(arguments) => run_fetch(arguments),
    }
}

fn run_fetch(arguments: &FetchArguments) -> Result<()> {
    let published = Published::of(arguments.data)?;
    let variable = || std::env::var_os("PARALLAX_DATA").map(PathBuf::from);
    let dir = arguments.data_dir.clone().or_else(variable);
    let dir = dir.unwrap_or_else(|| PathBuf::from("data"));
    let address = arguments.url.as_deref().unwrap_or(published.address());
    let (origin, source) = match &arguments.file {
        Some(file) => (Origin::File(file), file.display().to_string()),
        None => (Origin::Url(address), address.to_string()),
    };
    arguments.stop.listen()?;
    note!(
        "data    {}, {}",
        published.title(),
        HumanBytes(published.bytes())
    );
    note!("source  {source}");
    note!("terms   {}", published.terms());
    let mut shown = Shown::new(published.bytes());
    let patience = Patience::default();
    let fetched = fetch(&published, &dir, origin, patience, &mut |p| shown.show(p))?;
    let (folder, what) = match &fetched {
        Fetched::Unpacked(folder) => (folder, "verified and unpacked"),
        Fetched::Present(folder) => (folder, "is there already"),
    };
    say!(
        "{} {what}; use it with --data {} --data-dir {}",
        folder.display(),
        arguments.data,
        dir.display()
    );
    Ok(())
}

/// A bar if stderr is a terminal, otherwise some plain lines.
struct Shown {
    bar: Option<ProgressBar>,
    bytes: u64,
    /// Plain lines so far, which cover equal parts of the archive.
    lines: u64,
}

impl Shown {
    fn new(bytes: u64) -> Self {
        let template = "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        Shown {
            bar: bar(template, bytes),
            bytes,
            lines: 0,
        }
    }

    fn show(&mut self, progress: Progress<'_>) {
        let line = match progress {
            Progress::Received(bytes) => {
                if let Some(bar) = &self.bar {
                    bar.set_position(bytes);
                    return;
                }
                let lines = bytes * PLAIN_LINES / self.bytes.max(1);
                if lines == self.lines {
                    return;
                }
                self.lines = lines;
                format!("{} of {}", HumanBytes(bytes), HumanBytes(self.bytes))
            }
            Progress::Retry(reason) => format!("{reason}; trying again"),
            Progress::Verify => "verifying the SHA-256".to_string(),
            Progress::Unpack => "unpacking".to_string(),
        };
        match &self.bar {
            Some(bar) => bar.suspend(|| note!("fetch   {line}")),
            None => note!("fetch   {line}"),
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
