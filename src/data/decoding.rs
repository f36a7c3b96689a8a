//! Decoding of image files to planes of one size, and the facts found on the way.

use std::path::{Path, PathBuf};

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::findings::Findings;
use super::image_file::{self, Picture};
use super::resize::{centre_square, write_planes};
use super::{LoadOptions, OnBadImage, parallel};
use crate::error::{Error, Result, listed};

/// How image files are converted to planes.
#[derive(Clone, Debug)]
pub struct Decoding {
    /// Sides in pixels. For each in turn, the shorter side is resized to it, and the centre is
    /// cropped.
    pub squares: Vec<usize>,
    /// Width and height of the result.
    pub size: [usize; 2],
}

/// The outcome of reading a file.
#[derive(Debug)]
pub enum Outcome {
    Read {
        is_turned: bool,
        was_transparent: bool,
    },
    /// Its width and height.
    OtherSize([usize; 2]),
    Bad(String),
}

impl Decoding {
    /// With `options.size`, files become squares. Otherwise, the size is that of the first image,
    /// and if all images must be whole, images of another size are an error before any is decoded.
    ///
    /// # Errors
    /// [`Error::Data`] for images of several sizes, and if there is no whole image.
    pub fn of(dir: &Path, paths: &[PathBuf], options: &LoadOptions) -> Result<Self> {
        let size = match options.size {
            Some(size) => [size; 2],
            None => common_size(dir, paths, options)?,
        };
        Ok(Decoding::new(options, size))
    }

    /// The decoding of images that are known to have this width and height.
    pub fn new(options: &LoadOptions, size: [usize; 2]) -> Self {
        Decoding {
            squares: options.size.into_iter().collect(),
            size,
        }
    }

    /// Bytes of an image.
    pub fn bytes(&self) -> usize {
        3 * self.size[0] * self.size[1]
    }

    /// Decodes the file at `path` into its planes, which have [`Decoding::bytes`] bytes.
    pub fn decode(&self, path: &Path, planes: &mut [u8]) -> Outcome {
        let picture = match image_file::read(path) {
            Ok(picture) => picture,
            Err(reason) => return Outcome::Bad(reason),
        };
        let Picture {
            image,
            is_turned,
            was_transparent,
        } = picture;
        let square = |image: RgbImage, &side: &usize| centre_square(image, side as u32);
        let image = self.squares.iter().fold(image, square);
        let found = [image.width(), image.height()].map(|side| side as usize);
        if found != self.size {
            return Outcome::OtherSize(found);
        }
        write_planes(&image, planes);
        Outcome::Read {
            is_turned,
            was_transparent,
        }
    }

    /// Decodes all files on all processors, into `planes` one after the other.
    pub fn decode_all(&self, paths: &[PathBuf], planes: &mut [u8]) -> Vec<Outcome> {
        let slots = paths.iter().zip(planes.chunks_exact_mut(self.bytes()));
        parallel::map(slots, |(path, slot)| self.decode(path, slot))
    }
}

/// Facts found by decoding the files of a set.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// Files that cannot be decoded whole, by their place, with the reasons.
    pub bad: Vec<(usize, String)>,
    /// Sizes that differ from the size of the set.
    #[serde(skip)]
    other_sizes: Vec<[usize; 2]>,
    turned: usize,
    transparent: usize,
}

impl Found {
    pub fn new(outcomes: Vec<Outcome>) -> Self {
        let mut found = Found::default();
        for (place, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Outcome::Bad(reason) => found.bad.push((place, reason)),
                Outcome::OtherSize(size) => found.other_sizes.push(size),
                Outcome::Read {
                    is_turned,
                    was_transparent,
                } => {
                    found.turned += usize::from(is_turned);
                    found.transparent += usize::from(was_transparent);
                }
            }
        }
        found
    }

    /// Returns the places of the files that are read, and records the others.
    ///
    /// # Errors
    /// [`Error::Data`] that names the bad files if none may be left out, or for images of several
    /// sizes.
    pub fn kept(
        &self,
        (dir, paths): (&Path, &[PathBuf]),
        size: [usize; 2],
        options: &LoadOptions,
        findings: &mut Findings,
    ) -> Result<Vec<usize>> {
        let bad = self.bad.iter().map(|(place, why)| (&paths[*place], why));
        let bad: Vec<(&PathBuf, &String)> = bad.collect();
        if options.on_bad_image == OnBadImage::Skip {
            findings.skipped_images = Some(bad.len());
            findings.skipped_files = Some(bad.iter().map(|(path, _)| shown(dir, path)).collect());
        } else if !bad.is_empty() {
            return Err(unreadable(dir, paths.len(), &bad));
        }
        if !self.other_sizes.is_empty() {
            return Err(several_sizes(
                dir,
                &[&[size], self.other_sizes.as_slice()].concat(),
            ));
        }
        let any = |count: usize| (count > 0).then_some(count);
        findings.turned_images = any(self.turned);
        findings.transparent_images = any(self.transparent);
        let mut is_read = vec![true; paths.len()];
        for (place, _) in &self.bad {
            is_read[*place] = false;
        }
        Ok((0..paths.len()).filter(|&place| is_read[place]).collect())
    }
}

/// A path below `dir`, for records and notices.
pub fn shown(dir: &Path, path: &Path) -> String {
    let below = path.strip_prefix(dir).unwrap_or(path);
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

fn common_size(dir: &Path, paths: &[PathBuf], options: &LoadOptions) -> Result<[usize; 2]> {
    let found = parallel::map(paths.iter(), |path| {
        image_file::size(path).map(|size| size.map(|side| side as usize))
    });
    let bad = paths.iter().zip(&found);
    let bad = bad.filter_map(|(path, size)| size.as_ref().err().map(|reason| (path, reason)));
    let bad: Vec<(&PathBuf, &String)> = bad.collect();
    let sizes: Vec<[usize; 2]> = found.iter().flatten().copied().collect();
    let Some(&first) = sizes.first() else {
        return Err(unreadable(dir, paths.len(), &bad));
    };
    let is_mixed = sizes.iter().any(|size| *size != first);
    if is_mixed && options.on_bad_image == OnBadImage::Error {
        return Err(several_sizes(dir, &sizes));
    }
    Ok(first)
}

fn unreadable(dir: &Path, all: usize, bad: &[(&PathBuf, &String)]) -> Error {
    let each = bad
        .iter()
        .map(|(path, reason)| format!("{} ({reason})", path.display()));
    let message = format!(
        "{} of {all} image files cannot be decoded whole: {}; replace or remove them, or leave them out with \
         --on-bad-image skip",
        bad.len(),
        listed(each, ", ")
    );
    Error::data(dir, message)
}

fn several_sizes(dir: &Path, sizes: &[[usize; 2]]) -> Error {
    let area = |size: &&[usize; 2]| (size[0] * size[1], size[0]);
    let shown =
        |size: Option<&[usize; 2]>| size.map_or(String::new(), |[w, h]| format!("{w} x {h}"));
    let message = format!(
        "the images have several sizes, from {} to {} pixels; give --size N to resize and crop them all to N x N",
        shown(sizes.iter().min_by_key(area)),
        shown(sizes.iter().max_by_key(area))
    );
    Error::data(dir, message)
}
