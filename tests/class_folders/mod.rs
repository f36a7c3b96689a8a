//! Images for the program to read.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use tempfile::TempDir;

/// A temporary folder with the class folders of [`write_images`] in `images`.
pub fn place(width: u32, height: u32) -> TempDir {
    let base = TempDir::new().unwrap();
    write_images(&base.path().join("images"), width, height);
    base
}

/// A class-per-folder set of two classes: dark squares and bright stripes, eight images of each in
/// each split.
pub fn write_images(dir: &Path, width: u32, height: u32) {
    for split in ["train", "test"] {
        for (number, class) in ["squares", "stripes"].iter().enumerate() {
            let folder = dir.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..8u32 {
                RgbImage::from_fn(width, height, |x, y| match number {
                    0 if x.abs_diff(12 + i) < 8 && y.abs_diff(16) < 8 => Rgb([20, 40, 90]),
                    1 if (x + i) % 8 < 4 => Rgb([250, 220, 30]),
                    _ => Rgb([120, 130, 110]),
                })
                .save(folder.join(format!("{i}.png")))
                .unwrap();
            }
        }
    }
}
