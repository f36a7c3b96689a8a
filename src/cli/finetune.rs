//! `parallax finetune`: a pretrained encoder and a linear layer on a fraction of the labels.

use std::path::PathBuf;

use clap::Args;

use super::classification::ClassificationArguments;
use crate::error::Result;
use crate::runs::classify::Beginning;
use crate::runs::weights_file::WeightsFile;

/// Fine-tune a pretrained encoder and a linear layer on a fraction of the labels
///
/// Without --epochs it trains as long as the paper: 60 epochs on up to 1 % of the labels, 30 on up
/// to 10 %, else 20.
#[derive(Args)]
pub struct Arguments {
    /// The encoder: a file written by a training
    #[arg(long, value_name = "FILE")]
    encoder: PathBuf,

    #[command(flatten)]
    classification: ClassificationArguments,
}

/// The paper's epochs for a fraction of the labels.
fn paper_epochs(labels: f64) -> u64 {
    if labels <= 0.01 {
        60
    } else if labels <= 0.1 {
        30
    } else {
        20
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let classification = &arguments.classification;
    classification.check_out()?;
    let file = WeightsFile::read(&arguments.encoder)?;
    let epochs = paper_epochs(classification.labels);
    classification.train(epochs, "finetune", |device| {
        Ok(Beginning::Pretrained(Box::new(file.load(device)?)))
    })
}

#[cfg(test)]
mod tests {
    use super::paper_epochs;

    #[test]
    fn epochs_are_the_papers() {
        assert_eq!([0.01, 0.1, 0.5].map(paper_epochs), [60, 30, 20]);
    }
}
