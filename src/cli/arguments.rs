//! What several subcommands take, and how values are read.

use std::path::PathBuf;

use clap::Args;

use crate::data::{self, DataKind, Dataset};
use crate::error::Result;
use crate::pretext::Protocol;

/// Which images.
#[derive(Args)]
pub struct DataArguments {
    /// Images: generated shapes, CIFAR-10 or STL-10 (their binary files), or folder, which is DIR/train/CLASS/*.png and
    /// DIR/test/CLASS/*.png
    #[arg(long, value_name = "shapes|cifar10|stl10|folder", default_value = "shapes", value_parser = data_kind)]
    pub data: DataKind,

    /// The folder of the data's files [default: the environment variable PARALLAX_DATA]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl DataArguments {
    /// The data set. `seed` matters to shapes alone.
    pub fn load(&self, seed: u64) -> Result<Dataset> {
        let named = self.data_dir.clone();
        let dir = match self.data {
            // The variable names a folder for the data sets that have files; shapes has none.
            DataKind::Shapes => named,
            _ => named.or_else(|| std::env::var_os("PARALLAX_DATA").map(PathBuf::from)),
        };
        data::load(self.data, dir.as_deref(), seed)
    }
}

fn data_kind(word: &str) -> std::result::Result<DataKind, String> {
    word.parse::<DataKind>().map_err(|e| e.to_string())
}

/// Reads a protocol's name.
pub fn protocol(word: &str) -> std::result::Result<Protocol, String> {
    word.parse::<Protocol>().map_err(|e| e.to_string())
}

/// Reads a number above 0.
pub fn positive(word: &str) -> std::result::Result<f32, String> {
    number(word, "above 0", |x| x > 0.0)
}

/// Reads a number that is not negative.
pub fn not_negative(word: &str) -> std::result::Result<f32, String> {
    number(word, "0 or more", |x| x >= 0.0)
}

fn number(
    word: &str,
    expected: &str,
    holds: impl Fn(f32) -> bool,
) -> std::result::Result<f32, String> {
    let value: f32 = word
        .parse()
        .map_err(|_| format!("expected a number {expected}"))?;
    if value.is_finite() && holds(value) {
        Ok(value)
    } else {
        Err(format!("expected a finite number {expected}"))
    }
}

/// Reads a seed: a whole number that a TOML file can hold.
pub fn seed(word: &str) -> std::result::Result<u64, String> {
    word.parse::<u64>()
        .ok()
        .filter(|&seed| i64::try_from(seed).is_ok())
        .ok_or_else(|| "expected a whole number from 0 to 9223372036854775807".to_string())
}
