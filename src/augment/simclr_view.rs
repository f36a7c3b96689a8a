//! The views of SimCLR (Chen et al. 2020, appendix A): resized crop, flip, colour, blur,
//! normalisation.

use super::color_jitter::ColorJitter;
use super::draw::{Purpose, ViewKey, WHOLE_BATCH, happens};
use super::random_blur::RandomBlur;
use super::random_resized_crop::RandomResizedCrop;
use crate::device::Device;
use crate::error::Result;
use crate::nn::CIFAR10_STATISTICS;
use crate::ops::blur::GaussianBlur;
use crate::ops::color::{ColorStep, ColorTransform, ColorTransforms};
use crate::ops::images::Normalize;
use crate::ops::resized_crop::{ResizedCrop, ResizedCrops};
use crate::tensor::Tensor;

/// The distribution of the views of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimClrAugmentation {
    /// Height and width of a view in pixels.
    pub size: usize,
    /// Range of the area of the crop, as a fraction of the area of the image.
    pub scale: [f32; 2],
    /// Range of width divided by height of the crop.
    pub ratio: [f32; 2],
    /// Probability of a left-right flip.
    pub flip: f32,
    pub jitter: ColorJitter,
    /// Probability of grayscale.
    pub grayscale: f32,
    /// Gaussian blur, after all changes of colour. Chen et al. 2020 leave it out on CIFAR-10
    /// (appendix B.9).
    pub blur: Option<RandomBlur>,
    /// Mean and standard deviation of each channel; see
    /// [`Normalization::statistics`](crate::nn::Normalization::statistics).
    pub normalize: Option<([f32; 3], [f32; 3])>,
    /// Whether all images of a batch share one random draw.
    pub one_draw_per_batch: bool,
}

/// The parameters of one view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewParameters {
    /// `image` is the index in the batch.
    pub crop: ResizedCrop,
    pub color: ColorTransform,
    /// Standard deviation of the blur in pixels, 0 for none.
    pub blur: f32,
}

impl SimClrAugmentation {
    /// The augmentation of Chen et al. 2020 for CIFAR-10 (appendix B.9: half the colour strength),
    /// with one draw per image and normalised pixels.
    pub fn sound(size: usize) -> Self {
        SimClrAugmentation {
            size,
            scale: [0.08, 1.0],
            ratio: [3.0 / 4.0, 4.0 / 3.0],
            flip: 0.5,
            jitter: ColorJitter {
                brightness: 0.4,
                contrast: 0.4,
                saturation: 0.4,
                hue: 0.1,
                probability: 0.8,
            },
            grayscale: 0.2,
            blur: None,
            normalize: Some(CIFAR10_STATISTICS),
            one_draw_per_batch: false,
        }
    }

    /// As in the code of the reproduced paper: full colour strength, unnormalised, one draw per
    /// batch.
    pub fn paper(size: usize) -> Self {
        SimClrAugmentation {
            jitter: ColorJitter {
                brightness: 0.8,
                contrast: 0.8,
                saturation: 0.8,
                hue: 0.2,
                probability: 0.8,
            },
            normalize: None,
            one_draw_per_batch: true,
            ..Self::sound(size)
        }
    }

    /// The parameters of one view per sample. `samples` are indices into the data set, whose images
    /// have `source_height` x `source_width` pixels.
    pub fn draw(
        &self,
        key: ViewKey,
        samples: &[u32],
        source_height: usize,
        source_width: usize,
    ) -> Vec<ViewParameters> {
        let source = (source_height as u32, source_width as u32);
        let shared = self
            .one_draw_per_batch
            .then(|| self.draw_one(key, WHOLE_BATCH, source));
        let draw_one = |(place, &sample): (usize, &u32)| {
            let mut view = shared.unwrap_or_else(|| self.draw_one(key, sample, source));
            view.crop.image = place as u32;
            view
        };
        samples.iter().enumerate().map(draw_one).collect()
    }

    fn draw_one(&self, key: ViewKey, sample: u32, source: (u32, u32)) -> ViewParameters {
        let crop = RandomResizedCrop {
            scale: self.scale,
            ratio: self.ratio,
        };
        let found = crop.draw(
            &mut key.generator(sample, Purpose::Crop),
            source.0,
            source.1,
        );
        let mut steps = self
            .jitter
            .draw(&mut key.generator(sample, Purpose::Jitter));
        if happens(
            &mut key.generator(sample, Purpose::Grayscale),
            self.grayscale,
        ) {
            steps.push((ColorStep::Grayscale, 0.0));
        }
        ViewParameters {
            crop: ResizedCrop {
                image: 0,
                top: found.top,
                left: found.left,
                height: found.height,
                width: found.width,
                flip: u32::from(happens(
                    &mut key.generator(sample, Purpose::Flip),
                    self.flip,
                )),
            },
            color: ColorTransform::new(&steps),
            blur: self.blur.map_or(0.0, |blur| {
                blur.draw(&mut key.generator(sample, Purpose::Blur))
            }),
        }
    }

    /// One view `[3, size, size]` for each of `parameters`, of `images` `[B, 3, H, W]` in [0, 1].
    ///
    /// # Errors
    /// `Error::Shape` if a crop is not inside its image or the images do not have three channels.
    pub fn apply(
        &self,
        device: &Device,
        images: &Tensor,
        parameters: &[ViewParameters],
    ) -> Result<Tensor> {
        let crops: Vec<_> = parameters.iter().map(|view| view.crop).collect();
        let colors: Vec<_> = parameters.iter().map(|view| view.color).collect();
        let cropped = device.run(ResizedCrops {
            x: images,
            crops: &crops,
            size: self.size,
        })?;
        let mut views = device.run(ColorTransforms {
            x: &cropped,
            transforms: &colors,
        })?;
        if self.blur.is_some() {
            let sigmas: Vec<_> = parameters.iter().map(|view| view.blur).collect();
            views = device.run(GaussianBlur {
                x: &views,
                kernel_size: RandomBlur::kernel_size(self.size),
                sigmas: &sigmas,
            })?;
        }
        match self.normalize {
            Some((mean, std)) => {
                let x = &views;
                device.run(Normalize { x, mean, std })
            }
            None => Ok(views),
        }
    }
}
