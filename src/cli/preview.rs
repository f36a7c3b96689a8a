//! `parallax preview`: a contact sheet of images and their random views.

use std::path::PathBuf;

use clap::Args;

use super::arguments::{DataArguments, protocol, seed};
use super::sheet::Sheet;
use crate::augment::{ImageStore, SimClrAugmentation, ViewKey};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::objectives::Protocol;

/// Draw a PNG of a data set's images, each followed by random views of it
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    data: DataArguments,

    /// Images to show, one a row
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u32).range(1..=64))]
    images: u32,

    /// Views of each image
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u32).range(1..=64))]
    views: u32,

    /// Whose views: sound, or the evaluated paper's
    #[arg(long, value_name = "sound|paper", default_value = "sound", value_parser = protocol)]
    protocol: Protocol,

    /// The seed of the views
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// The file to write
    #[arg(long, default_value = "preview.png")]
    out: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let dataset = arguments.data.load(arguments.seed)?;
    let split = dataset.pretraining();
    let count = arguments.images.min(split.len() as u32);
    let device = Device::cpu();
    let store = ImageStore::new(&device, &split.images, [3, split.height, split.width])?;
    // Spread over the set, so that one sorted by class shows more than one, and not by equal steps, so that one whose
    // classes take turns does too.
    let stride = split.len() as u32 / count;
    let samples: Vec<u32> = (0..count).map(|i| i * stride + i % stride).collect();
    let images = store.gather(&samples)?;
    let augmentation = SimClrAugmentation {
        normalize: None,
        ..match arguments.protocol {
            Protocol::Sound => SimClrAugmentation::sound(32),
            Protocol::Paper => SimClrAugmentation::paper(32),
        }
    };
    let mut sheet = Sheet::new(arguments.views + 1, count);
    sheet.draw_column(0, &images)?;
    for view in 0..arguments.views {
        let key = ViewKey {
            seed: arguments.seed,
            step: 0,
            view,
        };
        let parameters = augmentation.draw(key, &samples, split.height, split.width);
        let views = augmentation.apply(&device, &images, &parameters)?;
        sheet.draw_column(view + 1, &views)?;
    }
    let png = sheet.to_png(&arguments.out)?;
    std::fs::write(&arguments.out, png).map_err(|e| Error::write(&arguments.out, e))?;
    println!(
        "{}: {count} images of {}, each with {} views",
        arguments.out.display(),
        dataset.name,
        arguments.views
    );
    Ok(())
}
