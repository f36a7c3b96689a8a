//! The two protocols of an experiment.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::optim::Schedule;

/// Selects between sound practice and the released code of the reproduced paper, for the choices in
/// which they differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The choices of the papers that introduced the methods.
    #[default]
    Sound,
    /// The choices of the released code of the reproduced paper.
    Paper,
}

impl Protocol {
    /// The learning rate schedule. The paper's code divides the rate by ten every 1,000 steps of
    /// each training.
    pub fn schedule(self) -> Schedule {
        match self {
            Protocol::Sound => Schedule::constant(),
            Protocol::Paper => Schedule::tenth_every(1000),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Sound => "sound",
            Protocol::Paper => "paper",
        })
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "sound" => Ok(Protocol::Sound),
            "paper" => Ok(Protocol::Paper),
            _ => Err(Error::usage(format!(
                "unknown protocol '{word}'; expected sound or paper"
            ))),
        }
    }
}
