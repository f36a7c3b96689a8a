//! The two ways of running an experiment.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::optim::Schedule;

/// Which choices a run follows where the evaluated paper's code and sound practice differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What the papers behind the methods describe.
    #[default]
    Sound,
    /// What the evaluated paper's released code does, point by point.
    Paper,
}

impl Protocol {
    /// The learning rate's course: the paper's code divides it by ten every 1,000 updates, in every training.
    pub fn schedule(self) -> Schedule {
        match self {
            Protocol::Sound => Schedule::Constant,
            Protocol::Paper => Schedule::StepDecay { every: 1000 },
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
                "protocol '{word}' is neither sound nor paper"
            ))),
        }
    }
}
