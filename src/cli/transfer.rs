//! `parallax transfer`: linear evaluation on another data set than the pretraining's.

use clap::Args;

use super::linear::{LinearArguments, run_as};
use crate::error::Result;

/// Linear evaluation of an encoder on another data set than it was pretrained on, at that set's own resolution
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    linear: LinearArguments,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    run_as("transfer", &arguments.linear)
}
