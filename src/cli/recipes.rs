//! `parallax recipes`: the configuration files that are part of the program.

use clap::Args;

use crate::console::say;
use crate::error::Result;
use crate::runs::recipes::{RECIPES, Recipe};

/// List the recipes that --config takes, or print one
///
/// A recipe has the settings of a training. Its header has the source, the protocol of the
/// accuracy, the accuracy that it reached, and the command that shows it.
#[derive(Args)]
pub struct Arguments {
    /// The recipe that is printed as a configuration file
    name: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(name) = &arguments.name {
        say!("{}", Recipe::find(name)?.text.trim_end());
        return Ok(());
    }
    for recipe in RECIPES {
        say!("{:<26} {}", recipe.name, recipe.title());
    }
    Ok(())
}
