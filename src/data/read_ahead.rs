//! Streamed images, decoded by threads before they are needed.
//!
//! The images that are needed next form a window. Threads decode them in order, and a caller that
//! would wait decodes too. Only images of the window are in memory, so the memory is bounded by a few
//! batches, and threads that are ahead of the training sleep.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::Stream;
use crate::error::{Error, Result};

/// Decodes the images of a stream ahead of their use.
pub struct ReadAhead {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    stream: Stream,
    window: Mutex<Window>,
    /// Notified if there is an image to decode, an image was decoded, or the threads should end.
    changed: Condvar,
}

#[derive(Default)]
struct Window {
    images: HashMap<u32, Slot>,
    /// Waiting images in the order of their use. It may also have other images, which are skipped.
    order: VecDeque<u32>,
    is_closed: bool,
}

enum Slot {
    Waiting,
    Decoding,
    Decoded(Result<Arc<Vec<u8>>>),
}

impl Window {
    /// Drops all images but these, and queues those that are not decoded yet.
    fn move_to(&mut self, images: impl Iterator<Item = u32>) {
        let images: Vec<u32> = images.collect();
        let wanted: HashSet<u32> = images.iter().copied().collect();
        self.images.retain(|image, _| wanted.contains(image));
        self.order.clear();
        for image in images {
            match self.images.entry(image) {
                Entry::Vacant(slot) => {
                    slot.insert(Slot::Waiting);
                    self.order.push_back(image);
                }
                Entry::Occupied(slot) if matches!(slot.get(), Slot::Waiting) => {
                    self.order.push_back(image);
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    /// Whether `image` waits. If so, the caller has to decode it.
    fn claim(&mut self, image: u32) -> bool {
        match self.images.get_mut(&image) {
            Some(slot @ Slot::Waiting) => {
                *slot = Slot::Decoding;
                true
            }
            _ => false,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, window: MutexGuard<'a, Window>) -> MutexGuard<'a, Window> {
        let woken = self.changed.wait(window);
        woken.unwrap_or_else(PoisonError::into_inner)
    }

    /// Decodes an image that was claimed.
    fn decode(&self, image: u32) {
        let i = image as usize;
        // A panic would leave the caller waiting.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.stream.decode(i)));
        let decoded = decoded.unwrap_or_else(|_| {
            let message = "the decoder failed; convert the file with another program";
            Err(Error::data(self.stream.path(i), message))
        });
        if let Some(slot) = self.lock().images.get_mut(&image) {
            *slot = Slot::Decoded(decoded.map(Arc::new));
        }
        self.changed.notify_all();
    }

    /// The main function of a thread.
    fn run(&self) {
        let mut window = self.lock();
        while !window.is_closed {
            let Some(image) = window.order.pop_front() else {
                window = self.wait(window);
                continue;
            };
            if window.claim(image) {
                drop(window);
                self.decode(image);
                window = self.lock();
            }
        }
    }
}

impl ReadAhead {
    /// Starts the threads, one fewer than there are processors, but one at least.
    pub fn new(stream: Stream) -> Self {
        let shared = Arc::new(Shared {
            stream,
            window: Mutex::default(),
            changed: Condvar::new(),
        });
        let threads = if cfg!(feature = "threads") {
            thread::available_parallelism().map_or(1, |n| (n.get() - 1).max(1))
        } else {
            // The caller decodes all images.
            0
        };
        let start = |_| {
            let shared = shared.clone();
            let named = thread::Builder::new().name("parallax-images".to_string());
            // If the system refuses a thread, there are fewer.
            named.spawn(move || shared.run()).ok()
        };
        ReadAhead {
            threads: (0..threads).filter_map(start).collect(),
            shared,
        }
    }

    /// Starts to decode these images, in this order, and drops all others.
    pub fn announce(&self, images: impl Iterator<Item = u32>) {
        self.shared.lock().move_to(images);
        self.shared.changed.notify_all();
    }

    /// The planes of `images`, one image after the other. They need not be announced, but if one is
    /// not, all others are dropped.
    ///
    /// # Errors
    /// [`Error::Data`] that names the first file that can no longer be decoded.
    pub fn gather(&self, images: &[u32]) -> Result<Vec<u8>> {
        let is_missing = {
            let window = self.shared.lock();
            images.iter().any(|i| !window.images.contains_key(i))
        };
        if is_missing {
            self.announce(images.iter().copied());
        }
        for &image in images {
            let is_mine = self.shared.lock().claim(image);
            if is_mine {
                self.shared.decode(image);
            }
        }
        let bytes = self.shared.stream.image_bytes();
        let mut pixels = Vec::with_capacity(bytes * images.len());
        for &image in images {
            pixels.extend_from_slice(&self.take(image)?);
        }
        Ok(pixels)
    }

    /// Waits for an image.
    fn take(&self, image: u32) -> Result<Arc<Vec<u8>>> {
        let mut window = self.shared.lock();
        loop {
            match window.images.get(&image) {
                Some(Slot::Decoded(Ok(planes))) => return Ok(planes.clone()),
                Some(Slot::Decoding) => window = self.shared.wait(window),
                Some(Slot::Decoded(Err(_))) => {
                    if let Some(Slot::Decoded(Err(error))) = window.images.remove(&image) {
                        return Err(error);
                    }
                }
                // Another caller moved the window.
                Some(Slot::Waiting) | None => {
                    drop(window);
                    return self.shared.stream.decode(image as usize).map(Arc::new);
                }
            }
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread does not panic: `decode` catches the panics of decoders.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{Rgb, RgbImage};
    use tempfile::TempDir;

    use super::*;
    use crate::data::decoding::Decoding;
    use crate::data::stream::Stamp;

    /// Images of one pixel, whose red is their place.
    fn stream(dir: &TempDir, count: u8) -> Stream {
        let files = (0..count).map(|i| {
            let path = dir.path().join(format!("{i}.png"));
            RgbImage::from_pixel(1, 1, Rgb([i, 0, 0]))
                .save(&path)
                .unwrap();
            let stamp = Stamp::of(&path).unwrap();
            (path, stamp)
        });
        let decoding = Decoding {
            squares: Vec::new(),
            size: [1, 1],
        };
        Stream::new(files, decoding)
    }

    fn red(images: &ReadAhead, wanted: &[u32]) -> Vec<u32> {
        let pixels = images.gather(wanted).unwrap();
        pixels.chunks(3).map(|image| image[0].into()).collect()
    }

    #[test]
    fn images_come_in_the_order_of_the_request() {
        let dir = TempDir::new().unwrap();
        let images = ReadAhead::new(stream(&dir, 40));
        for round in 0..50u32 {
            let window = |round: u32| (0..7).map(move |i| (round * 7 + i * 3) % 40);
            images.announce(window(round).chain(window(round + 1)));
            let wanted: Vec<u32> = window(round).collect();
            assert_eq!(red(&images, &wanted), wanted);
            // A part of the window, once more, and with a repeated image.
            let part = [wanted[3], wanted[1], wanted[3]];
            assert_eq!(red(&images, &part), part);
        }
        // Images that nobody announced, more than the window holds.
        let all: Vec<u32> = (0..40).rev().collect();
        assert_eq!(red(&images, &all), all);
        assert_eq!(images.gather(&[]).unwrap(), Vec::<u8>::new());
    }

    #[test]
    fn images_are_decoded_ahead_and_no_more_than_announced() {
        let dir = TempDir::new().unwrap();
        let images = ReadAhead::new(stream(&dir, 40));
        images.announce(0..10);
        let mut window = images.shared.lock();
        let is_decoded = |slot: &Slot| matches!(slot, Slot::Decoded(Ok(_)));
        while !window.images.values().all(is_decoded) {
            window = images.shared.wait(window);
        }
        assert_eq!(window.images.len(), 10);
        drop(window);
        images.announce(8..12);
        let mut kept: Vec<u32> = images.shared.lock().images.keys().copied().collect();
        kept.sort_unstable();
        assert_eq!(kept, [8, 9, 10, 11]);
    }

    #[test]
    fn a_file_that_vanished_or_changed_is_named() {
        let dir = TempDir::new().unwrap();
        let images = ReadAhead::new(stream(&dir, 4));
        let path = |i: u32| dir.path().join(format!("{i}.png"));
        let whole = fs::read(path(2)).unwrap();
        fs::remove_file(path(1)).unwrap();
        fs::write(path(2), &whole[..20]).unwrap();
        for (bad, word) in [(1, "can no longer be read"), (2, "was changed")] {
            images.announce(0..4);
            let error = images.gather(&[0, bad]).unwrap_err().to_string();
            let name = path(bad).display().to_string();
            assert!(error.contains(word) && error.contains(&name), "{error}");
            assert_eq!(red(&images, &[3, 0]), [3, 0], "others are not affected");
        }
    }
}
