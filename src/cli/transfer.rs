//! `parallax transfer`: linear evaluation on a data set other than that of the pretraining.

use std::path::PathBuf;

use clap::Args;

use super::linear::{Encoder, LinearArguments, run_as};
use crate::error::Result;

/// Linear evaluation of an encoder on a data set other than that of its pretraining, at the data
/// set's own resolution
#[derive(Args)]
pub struct Arguments {
    /// The encoder: a file written by a training
    #[arg(long, value_name = "FILE")]
    encoder: PathBuf,

    #[command(flatten)]
    linear: LinearArguments,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    run_as(
        "transfer",
        &Encoder::File(&arguments.encoder),
        &arguments.linear,
    )
}
