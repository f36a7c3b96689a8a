//! A small picture: the pixels of an image, a view or a filter.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, RgbImage};

/// Red, green and blue of each pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

impl Picture {
    /// Returns the picture of red, green and blue planes of `height` x `width` values, from 0 to 1.
    pub fn of_planes(planes: &[f32], height: usize, width: usize) -> Self {
        let bytes = planes
            .iter()
            .map(|x| (255.0 * x.clamp(0.0, 1.0)).round() as u8);
        Self::of_bytes(&bytes.collect::<Vec<u8>>(), height, width)
    }

    /// As [`Picture::of_planes`], of bytes.
    pub fn of_bytes(planes: &[u8], height: usize, width: usize) -> Self {
        let size = height * width;
        let rgb = (0..size).flat_map(|i| [planes[i], planes[size + i], planes[2 * size + i]]);
        Picture {
            width,
            height,
            rgb: rgb.collect(),
        }
    }

    /// Returns the pictures in rows, each scaled to `side` x `side` pixels without smoothing, with
    /// white gaps between them.
    pub fn sheet(rows: &[Vec<Picture>], side: usize, gap: usize) -> Self {
        let cells = |count: usize| count * (side + gap) + gap;
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let (width, height) = (cells(columns), cells(rows.len()));
        let mut rgb = vec![255; 3 * width * height];
        for (row, pictures) in rows.iter().enumerate() {
            for (column, picture) in pictures.iter().enumerate() {
                for y in 0..side {
                    for x in 0..side {
                        let (from_y, from_x) =
                            (y * picture.height / side, x * picture.width / side);
                        let from = 3 * (from_y * picture.width + from_x);
                        let (to_y, to_x) = (cells(row) + y, cells(column) + x);
                        let to = 3 * (to_y * width + to_x);
                        rgb[to..to + 3].copy_from_slice(&picture.rgb[from..from + 3]);
                    }
                }
            }
        }
        Picture { width, height, rgb }
    }

    /// Width and height.
    pub fn size(&self) -> [u32; 2] {
        [self.width as u32, self.height as u32]
    }

    /// Returns the bytes of a PNG file.
    pub fn png(&self) -> Vec<u8> {
        let mut png = Cursor::new(Vec::new());
        let [width, height] = self.size();
        let image = RgbImage::from_raw(width, height, self.rgb.clone());
        // Writing into memory cannot fail.
        let _ = image.map(|image| image.write_to(&mut png, ImageFormat::Png));
        png.into_inner()
    }

    /// Returns an element of a page that contains the picture.
    pub fn html(&self, words: &str) -> String {
        format!(
            "<img alt=\"{}\" src=\"data:image/png;base64,{}\">",
            super::escape(words),
            STANDARD.encode(self.png())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Picture;

    #[test]
    fn planes_become_pixels_and_a_sheet_has_gaps() {
        let planes = [0.0, 1.0, 0.5, 0.25, 2.0, -1.0];
        let picture = Picture::of_planes(&planes, 1, 2);
        assert_eq!(picture.rgb, [0, 128, 255, 255, 64, 0]);
        let sheet = Picture::sheet(&[vec![picture.clone(), picture], vec![]], 2, 2);
        assert_eq!((sheet.width, sheet.height), (10, 10));
        let pixel = |x: usize, y: usize| sheet.rgb[3 * (y * 10 + x)..][..3].to_vec();
        assert_eq!(pixel(0, 0), [255; 3]);
        assert_eq!([pixel(2, 2), pixel(3, 3)], [[0, 128, 255], [255, 64, 0]]);
        assert_eq!(pixel(6, 2), [0, 128, 255]);
        assert_eq!(pixel(2, 6), [255; 3]);
    }
}
