//! `parallax supervised`: the labelled baseline from scratch.

use clap::Args;

use super::arguments::NetworkArguments;
use super::classification::{ClassificationArguments, labelled, print};
use crate::error::Result;
use crate::experiment::classification::{ClassificationRequest, run as run_experiment};

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
    let data = classification.data.data;
    let length = classification.length(EPOCHS)?;
    let encoder = arguments.network.config(data)?;
    let settings = classification.settings()?;
    let dataset = classification.data.load(classification.run.seed)?;
    labelled(&dataset)?;
    let checkpoints = &classification.checkpoints;
    let (chosen, folder) =
        classification
            .run
            .start_or_resume("supervised", &dataset, data, checkpoints.resume)?;
    let name = dataset.name.clone();
    let request = ClassificationRequest {
        protocol: classification.run.protocol,
        encoder,
        start: None,
        settings,
        length,
        labels: classification.labels,
        save_every: checkpoints.save_every,
        checkpoint_every: checkpoints.checkpoint_every(),
        data,
        dataset,
    };
    print(&run_experiment(&chosen.device, request, folder)?, &name);
    Ok(())
}
