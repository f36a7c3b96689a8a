//! `parallax preview`: a contact sheet of images and their random views.

use std::path::PathBuf;

use clap::Args;

use super::arguments::{DataArguments, seed, whole};
use super::output::{self, ForceArguments, Inputs};
use super::sheet::Sheet;
use crate::augment::{ImageStore, SimClrAugmentation, ViewKey};
use crate::console::say;
use crate::device::Device;
use crate::error::Result;
use crate::objectives::Protocol;
use crate::runs::pretrain::VIEW_SIZE;
use crate::runs::whole_file::write_file;

/// Draw a PNG of a data set's images, each followed by random views of it
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    data: DataArguments,

    /// Number of images, one per row
    #[arg(long, default_value = "8", value_parser = whole::<u32>(1..=64))]
    images: u32,

    /// Number of views per image
    #[arg(long, default_value = "8", value_parser = whole::<u32>(1..=64))]
    views: u32,

    /// Protocol of the views: sound or paper
    #[arg(long, value_name = "sound|paper", default_value = "sound")]
    protocol: Protocol,

    /// The seed of the views
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: u64,

    /// The PNG file to write
    #[arg(long, value_name = "FILE", default_value = "preview.png")]
    out: PathBuf,

    #[command(flatten)]
    force: ForceArguments,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let inputs = Inputs {
        file: None,
        data: arguments.data.dir(),
    };
    output::check(&arguments.out, arguments.force.force, Some("png"), &inputs)?;
    let dataset = arguments.data.load(arguments.seed)?;
    let split = dataset.pretraining();
    let count = arguments.images.min(split.len() as u32);
    let device = Device::cpu();
    let store = ImageStore::of(&device, split)?;
    // Samples the set at irregular intervals, so that several classes appear whether the set is
    // sorted or interleaved by class.
    let stride = split.len() as u32 / count;
    let samples: Vec<u32> = (0..count).map(|i| i * stride + i % stride).collect();
    let images = store.gather(&samples)?;
    let size = arguments.data.size.unwrap_or(VIEW_SIZE);
    let augmentation = SimClrAugmentation {
        normalize: None,
        ..match arguments.protocol {
            Protocol::Sound => SimClrAugmentation::sound(size),
            Protocol::Paper => SimClrAugmentation::paper(size),
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
    write_file(&arguments.out, &png)?;
    say!(
        "{}: {count} images of {}, each with {} views",
        arguments.out.display(),
        dataset.name,
        arguments.views
    );
    Ok(())
}
