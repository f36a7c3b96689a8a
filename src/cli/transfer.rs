//! `parallax transfer`: linear evaluation on another data set than the pretraining's.

use std::path::PathBuf;

use clap::Args;

use super::linear::{Encoder, LinearArguments, run_as};
use crate::error::Result;

/// Linear evaluation of an encoder on another data set than it was pretrained on, at that set's own resolution
#[derive(Args)]
pub struct Arguments {
    /// The encoder: a file that a training wrote
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
