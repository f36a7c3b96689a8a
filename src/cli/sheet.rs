//! A PNG of images in rows and columns.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Pixels between the images of a sheet.
const GAP: u32 = 4;
/// Pixels of an image's side on the sheet.
const CELL: u32 = 96;

/// A white sheet that is filled column by column.
pub struct Sheet {
    sheet: RgbImage,
}

impl Sheet {
    pub fn new(columns: u32, rows: u32) -> Self {
        let side = |cells: u32| cells * (CELL + GAP) + GAP;
        Sheet {
            sheet: RgbImage::from_pixel(side(columns), side(rows), Rgb([255; 3])),
        }
    }

    /// Draws a batch of images in [0, 1] down one column, each scaled to a cell without smoothing.
    pub fn draw_column(&mut self, column: u32, batch: &Tensor) -> Result<()> {
        let [count, _, height, width] = batch.nchw("sheet", "images")?;
        let values = batch.to_vec::<f32>()?;
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
                    let color = Rgb([0, 1, 2].map(|channel| pixel(channel, y, x)));
                    self.sheet.put_pixel(at.0, at.1, color);
                }
            }
        }
        Ok(())
    }

    /// Width and height in pixels.
    pub fn size(&self) -> [u32; 2] {
        [self.sheet.width(), self.sheet.height()]
    }

    /// The first pixel of a row or column of cells.
    pub fn start(cells: u32) -> u32 {
        cells * (CELL + GAP) + GAP
    }

    /// The file's bytes; `path` is where they will go, for messages.
    pub fn to_png(&self, path: &Path) -> Result<Vec<u8>> {
        let mut png = Cursor::new(Vec::new());
        self.sheet
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|e| Error::data(path, format!("the sheet cannot be coded as PNG: {e}")))?;
        Ok(png.into_inner())
    }
}
