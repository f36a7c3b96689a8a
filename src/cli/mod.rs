//! The command line. One file per subcommand, which parses arguments, calls the library, and prints
//! results.
//!
//! Results go to stdout; an error is one line on stderr. The exit code is 0 for success, 1 for a
//! run that failed, 2 for invalid arguments. After an early stop, it is [`STOPPED_EARLY`], or 128
//! plus the signal's number.

mod arguments;
mod attack;
mod bench;
mod classification;
mod compare;
mod completions;
mod data;
mod device_choice;
mod devices;
mod embed;
mod knn;
mod linear;
mod manual;
mod output;
mod pretraining;
mod preview;
mod ranks;
mod recipes;
mod report;
mod reproduce;
mod run;
mod selftest;
mod sheet;
mod signals;
mod verify;
mod weights;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use env_logger::Env;

use crate::console::{self, one_line};
use crate::distributed;
use crate::error::{Error, Result};
use crate::runs::config_file::{Expanded, expand};
use crate::runs::spec::with_negative_numbers;

/// The exit code of a command that was stopped by its time limit or by SIGUSR1 (`EX_TEMPFAIL` of
/// sysexits.h). The same command with `--resume` continues the run. See `signals::exit_code` for
/// other signals.
pub const STOPPED_EARLY: u8 = 75;

/// Trains and evaluates self-supervised vision encoders on hand-written compute kernels, on any GPU
/// or none.
#[derive(Parser)]
#[command(
    name = "parallax",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Arguments {
    /// Print results and errors only: no progress and no notices
    #[arg(long, short, global = true)]
    quiet: bool,

    /// Print each result as a line of JSON on stdout, and everything else on stderr
    #[arg(long, global = true)]
    json: bool,

    /// Under mpirun, the seconds that a rank waits for the others before the run ends
    #[cfg_attr(feature = "mpi", arg(long, global = true, value_name = "SECONDS", default_value_t = distributed::PATIENCE.as_secs_f64(), value_parser = arguments::positive))]
    #[cfg_attr(not(feature = "mpi"), arg(skip))]
    rank_timeout: f64,

    #[command(subcommand)]
    command: Command,
}

impl Arguments {
    /// Parses a command line. A word such as -1 after an option that takes a number is its value,
    /// so that the message names the values that can be used.
    fn parse_from_words<I>(words: I) -> std::result::Result<Self, clap::Error>
    where
        I: IntoIterator<Item: Into<OsString> + Clone>,
    {
        let matches = with_negative_numbers(Arguments::command()).try_get_matches_from(words)?;
        Arguments::from_arg_matches(&matches)
    }
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Run(Box<run::Run>),
    Reproduce(Box<reproduce::Arguments>),
    Report(report::Arguments),
    Compare(compare::Arguments),
    Verify(verify::Arguments),
    Embed(embed::Arguments),
    Weights(weights::Arguments),
    Data(data::Arguments),
    Recipes(recipes::Arguments),
    Devices(devices::Arguments),
    Selftest(selftest::Arguments),
    Bench(bench::Arguments),
    Preview(preview::Arguments),
    Completions(completions::Arguments),
    Manual(manual::Arguments),
}

impl Command {
    /// Whether several ranks can share the work.
    fn supports_ranks(&self) -> bool {
        matches!(self, Command::Run(_) | Command::Embed(_))
    }
}

/// Runs the command of the process's arguments, and returns its exit code.
pub fn run() -> ExitCode {
    // What wgpu and naga log, if PARALLAX_LOG asks for it, such as `PARALLAX_LOG=wgpu_core=warn`.
    env_logger::Builder::from_env(Env::new().filter_or("PARALLAX_LOG", "off"))
        .format_timestamp(None)
        .init();

    let expanded = match expand(std::env::args_os().collect()) {
        Ok(expanded) => expanded,
        Err(error) => {
            console::error(format_args!(
                "{}",
                one_line("parallax:", &error.to_string())
            ));
            return failure(&error);
        }
    };
    let arguments = match Arguments::parse_from_words(&expanded.words) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error, &expanded),
    };
    if arguments.quiet {
        console::be_quiet();
    }
    if arguments.json {
        console::print_json();
    }
    let joined = match &arguments.command {
        // Each process runs jobs of its own.
        Command::Reproduce(_) => Ok(()),
        command => ranks::join(command.supports_ranks(), arguments.rank_timeout),
    };
    let outcome = joined.and_then(|()| dispatch(arguments.command));
    let start = ranks::leave(&outcome);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The first rank prints that the run was stopped.
        Err(Error::Stopped { cause, .. }) if !distributed::current().is_first() => {
            ExitCode::from(signals::exit_code(cause))
        }
        Err(error) => {
            let advice = match &error {
                Error::Stopped { folder, .. } => {
                    format!("; continue with: {}", continuation(folder.as_deref()))
                }
                _ => String::new(),
            };
            console::error(format_args!(
                "{}{advice}",
                one_line(&start, &error.to_string())
            ));
            failure(&error)
        }
    }
}

/// The exit code of a command that failed with `error`.
fn failure(error: &Error) -> ExitCode {
    match error {
        Error::Usage(_) => ExitCode::from(2),
        Error::Stopped { cause, .. } => ExitCode::from(signals::exit_code(*cause)),
        _ => ExitCode::FAILURE,
    }
}

/// Returns the command line that resumes this process's command, whose state is in `folder`.
fn continuation(folder: Option<&Path>) -> String {
    let mut words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let has = |words: &[String], flag: &str| {
        let with_value = format!("{flag}=");
        words
            .iter()
            .any(|word| word == flag || word.starts_with(&with_value))
    };
    if let Some(folder) = folder {
        if !has(&words, "--out") {
            words.extend(["--out".to_string(), folder.display().to_string()]);
        }
        if !has(&words, "--resume") {
            words.push("--resume".to_string());
        }
    }
    let quoted: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    quoted.join(" ")
}

/// Returns `word` as a POSIX shell reads it, quoted only if necessary.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Run(run) => run.run(),
        Command::Reproduce(arguments) => reproduce::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Embed(arguments) => embed::run(&arguments),
        Command::Weights(arguments) => weights::run(&arguments),
        Command::Data(arguments) => data::run(&arguments),
        Command::Recipes(arguments) => recipes::run(&arguments),
        Command::Devices(arguments) => devices::run(&arguments),
        Command::Selftest(arguments) => selftest::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Preview(arguments) => preview::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Manual(arguments) => manual::run(&arguments),
    }
}

/// Help and version as clap prints them; an error as one line.
fn refuse(error: &clap::Error, expanded: &Expanded) -> ExitCode {
    let shown = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is no failure of ours.
            error.print().ok();
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.to_string(),
        _ => one_line(
            "parallax:",
            &format!(
                "{}{}; see --help",
                expanded.origin(error),
                usage_line(&error.to_string())
            ),
        ),
    };
    console::error(format_args!("{}", shown.trim_end()));
    ExitCode::from(2)
}

/// clap's message without its heading, usage and advice.
fn usage_line(message: &str) -> String {
    let told = message.lines().map(str::trim).take_while(|line| {
        !line.starts_with("Usage:") && !line.starts_with("For more information")
    });
    let line = told
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_string()
}

#[cfg(test)]
mod tests {
    use super::{Arguments, shell_word};

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        assert_eq!(shell_word("--out=runs/a-1"), "--out=runs/a-1");
        assert_eq!(shell_word("my run"), "'my run'");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
