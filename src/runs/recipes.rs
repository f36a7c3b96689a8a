//! Recipes: configuration files that are part of the program. The build lists the files of the
//! folder `recipes`. The header of each has its source, the protocol of its accuracy, and the
//! accuracy that it reached.

use super::config_file::nearest;
use crate::error::{Error, Result};

/// The start of the name of a recipe in `--config`.
pub const PREFIX: &str = "recipe:";

/// A configuration file with a name.
pub struct Recipe {
    pub name: &'static str,
    pub text: &'static str,
}

// The table RECIPES, sorted by name.
include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

impl Recipe {
    /// What the recipe trains: the first line of its header.
    pub fn title(&self) -> &'static str {
        let line = self.text.lines().next().unwrap_or_default();
        line.trim_start_matches("# ")
    }

    /// Returns the recipe with this name.
    ///
    /// # Errors
    /// `Error::Usage` if there is none, with the name of a similar one.
    pub fn find(name: &str) -> Result<&'static Recipe> {
        if let Some(recipe) = RECIPES.iter().find(|recipe| recipe.name == name) {
            return Ok(recipe);
        }
        let known = RECIPES.iter().map(|recipe| (recipe.name, recipe.name));
        let advice = match nearest(name, known) {
            Some(known) => format!("did you mean {known}?"),
            None => "parallax recipes lists the known ones".to_string(),
        };
        Err(Error::usage(format!(
            "no recipe is called '{name}'; {advice}"
        )))
    }
}
