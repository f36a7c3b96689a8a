//! The pixels of a split, from which batches are taken. Held images are stored on the device as
//! bytes. Of streamed images, the bytes of a batch are uploaded when the batch is taken.

use crate::data::{Images, ReadAhead, Split};
use crate::device::Device;
use crate::distributed;
use crate::error::{Error, Result};
use crate::ops::images::GatherImages;
use crate::tensor::{DType, Tensor};

/// Maximum bytes per shard, unless one image is larger: half of the 128 MiB that every adapter can
/// bind.
const SHARD_BYTES: usize = 64 << 20;
/// Batches of streamed images that are decoded ahead.
const AHEAD: usize = 2;

/// Images, from which batches on a device are gathered.
pub struct ImageStore {
    device: Device,
    /// Channels, height, width.
    image_shape: [usize; 3],
    count: usize,
    source: Source,
}

enum Source {
    Held {
        images_per_shard: usize,
        /// u8 `[images, C, H, W]`, in the order of the images.
        shards: Vec<Tensor>,
    },
    Streamed(ReadAhead),
}

impl ImageStore {
    /// The images of `split`. If they are held, they are copied to `device`.
    ///
    /// # Errors
    /// `Error::Shape` if the images have no pixels; `Error::Device` if memory is short.
    pub fn of(device: &Device, split: &Split) -> Result<Self> {
        let image_shape = [3, split.height, split.width];
        match &split.images {
            Images::Held(pixels) => ImageStore::new(device, pixels, image_shape),
            Images::Streamed(stream) => Ok(ImageStore {
                device: device.clone(),
                image_shape,
                count: stream.len(),
                source: Source::Streamed(ReadAhead::new(stream.clone())),
            }),
        }
    }

    /// Uploads `pixels`, the bytes of consecutive images of `image_shape` (C, H, W).
    ///
    /// # Errors
    /// `Error::Shape` if the bytes are not a whole number of images or the shape is empty;
    /// `Error::Device` if memory is short.
    pub fn new(device: &Device, pixels: &[u8], image_shape: [usize; 3]) -> Result<Self> {
        Self::with_shards(device, pixels, image_shape, SHARD_BYTES)
    }

    fn with_shards(
        device: &Device,
        pixels: &[u8],
        image_shape: [usize; 3],
        shard_bytes: usize,
    ) -> Result<Self> {
        let [c, h, w] = image_shape;
        let image_bytes = c * h * w;
        if image_bytes == 0 || !pixels.len().is_multiple_of(image_bytes) {
            return Err(Error::shape(
                "image_store",
                format!(
                    "{} bytes; expected a multiple of an image {image_shape:?}",
                    pixels.len()
                ),
            ));
        }
        let images_per_shard = (shard_bytes / image_bytes).max(1);
        let shards = pixels
            .chunks(images_per_shard * image_bytes)
            .map(|shard| Tensor::from_slice(shard, &[shard.len() / image_bytes, c, h, w], device))
            .collect::<Result<_>>()?;
        Ok(ImageStore {
            device: device.clone(),
            image_shape,
            count: pixels.len() / image_bytes,
            source: Source::Held {
                images_per_shard,
                shards,
            },
        })
    }

    /// Bytes of images that a training in batches of `batch` images holds beside the split: those
    /// of all images on the device, or those of the batches that are decoded ahead, of the batch at
    /// hand, and of its copies for the upload and on the device.
    pub fn bytes_held(split: &Split, batch: usize) -> usize {
        let own = batch.div_ceil(distributed::current().size());
        match &split.images {
            Images::Held(pixels) => pixels.len(),
            Images::Streamed(_) => (AHEAD + 3) * own * split.image_bytes(),
        }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Channels, height and width of an image.
    pub fn image_shape(&self) -> [usize; 3] {
        self.image_shape
    }

    /// Starts to decode the images of step `step` and of the steps after it, if they are streamed.
    /// `batch` returns the images of a step, of which this rank uses its part.
    pub fn read_ahead(&self, step: u64, mut batch: impl FnMut(u64) -> Vec<u32>) {
        let Source::Streamed(images) = &self.source else {
            return;
        };
        let group = distributed::current();
        let own = |step| {
            let batch = batch(step);
            let part = batch.len() / group.size();
            batch.into_iter().skip(group.rank() * part).take(part)
        };
        images.announce((step..=step + AHEAD as u64).flat_map(own));
    }

    /// As [`ImageStore::gather`], for an evaluation that visits all images in batches of this size,
    /// divided among the ranks. If the images are streamed, the next batches are decoded ahead.
    ///
    /// # Errors
    /// As [`ImageStore::gather`].
    pub fn gather_in_order(&self, indices: &[u32]) -> Result<Tensor> {
        if let (Source::Streamed(images), Some(&first)) = (&self.source, indices.first()) {
            let (first, len) = (first as usize, indices.len());
            let stride = len * distributed::current().size();
            let starts = (0..=AHEAD).map(|ahead| first + ahead * stride);
            let batches = starts.flat_map(|start| start..self.count.min(start + len));
            images.announce(batches.map(|image| image as u32));
        }
        self.gather(indices)
    }

    /// The images at `indices` as floats in [0, 1]: `[B, C, H, W]`.
    ///
    /// # Errors
    /// `Error::Shape` if an index is not below the number of images; `Error::Data` if a streamed
    /// image can no longer be decoded.
    pub fn gather(&self, indices: &[u32]) -> Result<Tensor> {
        if let Some(index) = indices.iter().find(|&&index| index as usize >= self.count) {
            return Err(Error::shape(
                "image_store",
                format!("index {index}; expected less than {}", self.count),
            ));
        }
        let (images_per_shard, shards) = match &self.source {
            Source::Held {
                images_per_shard,
                shards,
            } => (*images_per_shard, shards),
            Source::Streamed(images) => {
                let pixels = images.gather(indices)?;
                let batch = ImageStore::new(&self.device, &pixels, self.image_shape)?;
                let all: Vec<u32> = (0..indices.len() as u32).collect();
                return batch.gather(&all);
            }
        };
        let [c, h, w] = self.image_shape;
        let out = Tensor::zeros(&[indices.len(), c, h, w], DType::F32, &self.device)?;
        for (number, shard) in shards.iter().enumerate() {
            let first = number * images_per_shard;
            let stored = first..first + images_per_shard;
            if indices
                .iter()
                .any(|&index| stored.contains(&(index as usize)))
            {
                self.device.run(GatherImages {
                    images: shard,
                    first,
                    indices,
                    out: &out,
                })?;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_gathered_from_all_shards_in_the_given_order() {
        let device = Device::cpu();
        let pixels: Vec<u8> = (0..7 * 6).collect();
        // Two images per shard, and one in the last shard.
        let store = ImageStore::with_shards(&device, &pixels, [3, 1, 2], 13).unwrap();
        let Source::Held { shards, .. } = &store.source else {
            panic!("the images are held");
        };
        assert_eq!((store.len(), shards.len()), (7, 4));
        let batch = store.gather(&[6, 0, 3, 3]).unwrap();
        let expected: Vec<f32> = [6, 0, 3, 3]
            .iter()
            .flat_map(|image| (0..6).map(move |k| (image * 6 + k) as f32 / 255.0))
            .collect();
        assert_eq!(batch.shape(), [4, 3, 1, 2]);
        assert_eq!(batch.to_vec::<f32>().unwrap(), expected);
        assert!(store.gather(&[7]).is_err());
        assert!(ImageStore::new(&device, &pixels, [3, 2, 2]).is_err());
    }
}
