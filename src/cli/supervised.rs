//! `parallax supervised`: the labelled baseline from scratch.

use clap::Args;

use super::arguments::NetworkArguments;
use super::classification::ClassificationArguments;
use crate::error::Result;
use crate::runs::classify::Beginning;

/// Train an encoder and a linear layer from scratch, on all labels or a fraction
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    network: NetworkArguments,

    #[command(flatten)]
    classification: ClassificationArguments,
}

/// Epochs where neither epochs nor steps are given: those of the paper's attacked baseline.
const EPOCHS: u64 = 60;

pub fn run(arguments: &Arguments) -> Result<()> {
    let classification = &arguments.classification;
    let encoder = arguments.network.config(classification.data.data)?;
    classification.train(EPOCHS, "supervised", |_| {
        Ok(Beginning::FromScratch(encoder))
    })
}
