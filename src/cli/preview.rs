//! `parallax preview`: a contact sheet of images and their random views.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use image::{Rgb, RgbImage};

use super::arguments::{DataArguments, protocol, seed};
use crate::augment::{ImageStore, SimClrAugmentation, ViewKey};
use crate::device::cpu::CpuDevice;
use crate::device::{Device, read_f32};
use crate::error::{Error, Result};
use crate::pretext::Protocol;
use crate::tensor::Tensor;

/// Pixels between the images of a sheet.
const GAP: u32 = 4;
/// Pixels of an image's side on the sheet.
const CELL: u32 = 96;

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
    let device: Device = Arc::new(CpuDevice::new());
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
    let mut sheet = RgbImage::from_pixel(
        (arguments.views + 1) * (CELL + GAP) + GAP,
        count * (CELL + GAP) + GAP,
        Rgb([255; 3]),
    );
    draw_column(&mut sheet, 0, &device, &images)?;
    for view in 0..arguments.views {
        let key = ViewKey {
            seed: arguments.seed,
            step: 0,
            view,
        };
        let parameters = augmentation.draw(key, &samples, split.height, split.width);
        let views = augmentation.apply(&device, &images, &parameters)?;
        draw_column(&mut sheet, view + 1, &device, &views)?;
    }
    let mut png = std::io::Cursor::new(Vec::new());
    sheet
        .write_to(&mut png, image::ImageFormat::Png)
        .map_err(|e| {
            Error::data(
                &arguments.out,
                format!("the sheet cannot be coded as PNG: {e}"),
            )
        })?;
    std::fs::write(&arguments.out, png.into_inner())
        .map_err(|e| Error::write(&arguments.out, e))?;
    println!(
        "{}: {count} images of {}, each with {} views",
        arguments.out.display(),
        dataset.name,
        arguments.views
    );
    Ok(())
}

/// Draws a batch of images in [0, 1] down one column of the sheet, each scaled to a cell without smoothing.
fn draw_column(sheet: &mut RgbImage, column: u32, device: &Device, batch: &Tensor) -> Result<()> {
    let [count, _, height, width] = batch.nchw("preview", "images")?;
    let values = read_f32(device, batch)?;
    for i in 0..count {
        let pixel = |channel: usize, y: u32, x: u32| {
            let (y, x) = (
                y as usize * height / CELL as usize,
                x as usize * width / CELL as usize,
            );
            (255.0 * values[((i * 3 + channel) * height + y) * width + x]).round() as u8
        };
        for y in 0..CELL {
            for x in 0..CELL {
                let at = (
                    column * (CELL + GAP) + GAP + x,
                    i as u32 * (CELL + GAP) + GAP + y,
                );
                sheet.put_pixel(
                    at.0,
                    at.1,
                    Rgb([0, 1, 2].map(|channel| pixel(channel, y, x))),
                );
            }
        }
    }
    Ok(())
}
