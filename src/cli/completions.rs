//! `parallax completions`: prints shell completions.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::error::Result;

/// Print a script with which a shell completes commands and options
///
/// For bash: parallax completions bash > ~/.local/share/bash-completion/completions/parallax
#[derive(Args)]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    generate(arguments.shell, &mut command, "parallax", &mut script);
    // As for all that is printed, a closed stdout is no failure.
    drop(std::io::stdout().lock().write_all(&script));
    Ok(())
}
