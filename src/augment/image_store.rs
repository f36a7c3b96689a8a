//! The pixels of a split, stored on the device as bytes.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::images::GatherImages;
use crate::tensor::{DType, Tensor};

/// Maximum bytes per shard, unless one image is larger: half of the 128 MiB that every adapter can
/// bind.
const SHARD_BYTES: usize = 64 << 20;

/// Images on a device, from which batches are gathered.
pub struct ImageStore {
    device: Device,
    /// Channels, height, width.
    image_shape: [usize; 3],
    count: usize,
    images_per_shard: usize,
    /// u8 `[images, C, H, W]`, in the order of the images.
    shards: Vec<Tensor>,
}

impl ImageStore {
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
            images_per_shard,
            shards,
        })
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

    /// The images at `indices` as floats in [0, 1]: `[B, C, H, W]`.
    ///
    /// # Errors
    /// `Error::Shape` if an index is not below the number of images.
    pub fn gather(&self, indices: &[u32]) -> Result<Tensor> {
        if let Some(index) = indices.iter().find(|&&index| index as usize >= self.count) {
            return Err(Error::shape(
                "image_store",
                format!("index {index}; expected less than {}", self.count),
            ));
        }
        let [c, h, w] = self.image_shape;
        let out = Tensor::zeros(&[indices.len(), c, h, w], DType::F32, &self.device)?;
        for (number, shard) in self.shards.iter().enumerate() {
            let first = number * self.images_per_shard;
            let stored = first..first + self.images_per_shard;
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
        assert_eq!((store.len(), store.shards.len()), (7, 4));
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
