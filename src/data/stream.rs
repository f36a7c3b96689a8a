//! Images that are not held in memory: their files, which are decoded each time that pixels are
//! needed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use web_time::Instant;

use super::decoding::{Decoding, Outcome};
use super::files::thousands;
use super::parallel;
use crate::error::{Error, Result};
use crate::interrupt;

/// Bytes of the pixels that are decoded at a time if all images are visited in order.
const PART: usize = 64 << 20;
/// Time between two lines of progress.
const LINES_EVERY: Duration = Duration::from_secs(30);

/// The image files of a split, each of which has been decoded whole once.
#[derive(Clone, Debug)]
pub struct Stream {
    files: Vec<Arc<ImageFile>>,
    decoding: Decoding,
}

#[derive(Debug)]
struct ImageFile {
    path: PathBuf,
    stamp: Stamp,
}

/// Size and time of a file, by which a change is detected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    pub bytes: u64,
    pub modified: Option<SystemTime>,
}

impl Stamp {
    pub fn of(path: &Path) -> io::Result<Self> {
        let about = fs::metadata(path)?;
        Ok(Stamp {
            bytes: about.len(),
            // Not every file system has times.
            modified: about.modified().ok(),
        })
    }
}

impl Stream {
    pub(super) fn new(files: impl Iterator<Item = (PathBuf, Stamp)>, decoding: Decoding) -> Self {
        let files = files.map(|(path, stamp)| Arc::new(ImageFile { path, stamp }));
        Stream {
            files: files.collect(),
            decoding,
        }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Bytes of an image.
    pub fn image_bytes(&self) -> usize {
        self.decoding.bytes()
    }

    /// The images at `indices`, each below [`Stream::len`], in this order.
    pub fn subset(&self, indices: &[u32]) -> Self {
        let files = indices.iter().map(|&i| self.files[i as usize].clone());
        Stream {
            files: files.collect(),
            decoding: self.decoding.clone(),
        }
    }

    /// The same images, then resized and cropped to squares of `side` pixels.
    pub fn as_squares(&self, side: usize) -> Self {
        let mut stream = self.clone();
        stream.decoding.squares.push(side);
        stream.decoding.size = [side; 2];
        stream
    }

    /// The file of image `i`, which is below [`Stream::len`].
    pub fn path(&self, i: usize) -> &Path {
        &self.files[i].path
    }

    /// Decodes image `i`, which is below [`Stream::len`], into its planes.
    ///
    /// # Errors
    /// [`Error::Data`] that names the file if it is no longer the one that was checked.
    pub fn decode(&self, i: usize) -> Result<Vec<u8>> {
        let mut planes = vec![0; self.image_bytes()];
        self.decode_into(i, &mut planes)?;
        Ok(planes)
    }

    fn decode_into(&self, i: usize, planes: &mut [u8]) -> Result<()> {
        let ImageFile { path, stamp } = &*self.files[i];
        let outcome = self.decoding.decode(path, planes);
        // Compared after the file was read, so that a change before or meanwhile is found.
        let reason = match (Stamp::of(path), outcome) {
            (Err(error), _) => format!("can no longer be read: {error}"),
            (Ok(now), _) if now != *stamp => "was changed after it was checked".to_string(),
            (Ok(_), Outcome::Read { .. }) => return Ok(()),
            (Ok(_), Outcome::Bad(reason)) => format!("can no longer be decoded whole: {reason}"),
            (Ok(_), Outcome::OtherSize([width, height])) => {
                format!("now has another size, {width} x {height}")
            }
        };
        Err(Error::data(
            path,
            format!(
                "{reason}; images of a streamed set must not change during a run; restore the file"
            ),
        ))
    }

    /// Passes the pixels of all images to `take`, in order and in parts.
    ///
    /// # Errors
    /// As [`Stream::decode`]; [`Error::Stopped`] if a stop is requested.
    pub fn read(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let decode = |i: usize, planes: &mut [u8]| self.decode_into(i, planes);
        self.visit(decode, |pixels, results| {
            results.into_iter().collect::<Result<()>>()?;
            take(pixels);
            Ok(())
        })
    }

    /// As [`Stream::read`], and returns what became of each file. The pixels of one that cannot be
    /// decoded have no meaning.
    ///
    /// # Errors
    /// [`Error::Stopped`] if a stop is requested.
    pub(super) fn check(&self, mut take: impl FnMut(&[u8])) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(self.len());
        let decode = |i: usize, planes: &mut [u8]| self.decoding.decode(self.path(i), planes);
        self.visit(decode, |pixels, found| {
            take(pixels);
            outcomes.extend(found);
            Ok(())
        })?;
        Ok(outcomes)
    }

    /// Decodes all images in order, in parts on all processors, and passes each part to `take`.
    fn visit<R: Send>(
        &self,
        decode: impl Fn(usize, &mut [u8]) -> R + Sync,
        mut take: impl FnMut(&[u8], Vec<R>) -> Result<()>,
    ) -> Result<()> {
        let (bytes, all) = (self.image_bytes(), self.len());
        let images = (PART / bytes.max(1)).clamp(1, all.max(1));
        let mut pixels = vec![0; images * bytes];
        let started = Instant::now();
        let mut told = started;
        for first in (0..all).step_by(images) {
            let end = all.min(first + images);
            let part = &mut pixels[..(end - first) * bytes];
            let slots = (first..end).zip(part.chunks_exact_mut(bytes));
            let results = parallel::map(slots, |(i, slot)| decode(i, slot));
            take(part, results)?;
            if end < all && told.elapsed() >= LINES_EVERY {
                told = Instant::now();
                let (end, all) = (thousands(end as u64), thousands(all as u64));
                let rate = first as f64 / started.elapsed().as_secs_f64();
                progress(format_args!(
                    "images  {end} of {all} are decoded, {rate:.0} per second"
                ));
            }
            // Each rank decides for itself: another one may remember its check.
            if let Some(cause) = interrupt::requested() {
                return Err(Error::Stopped {
                    cause,
                    place: format!(
                        "after {end} of {all} images were decoded, before the first step"
                    ),
                    folder: None,
                });
            }
        }
        Ok(())
    }
}

/// Prints a line of progress in a build with commands.
pub fn progress(line: std::fmt::Arguments<'_>) {
    #[cfg(feature = "cli")]
    crate::console::notice(line);
    #[cfg(not(feature = "cli"))]
    let _ = line;
}
