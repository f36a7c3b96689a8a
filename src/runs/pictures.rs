//! Pictures of what an encoder learns: the views that it is trained on, its first filters, nearest
//! neighbours, and its features in the plane.

use crate::augment::{ImageStore, PaddedCropAugmentation, SimClrAugmentation, ViewKey};
use crate::data::Split;
use crate::device::Device;
use crate::drawing::picture::Picture;
use crate::drawing::plot::{Plot, Series};
use crate::error::Result;
use crate::evaluate::online::{Embedding, Sample};
use crate::evaluate::pca::{self, Projected};
use crate::nn::{Module, Normalization, ResNet};
use crate::objectives::rotnet::{ROTATIONS, rotations};
use crate::tensor::Tensor;

/// Images whose views are shown.
const VIEWED: u32 = 4;
/// Views of each of them.
const VIEWS: u32 = 7;
/// Test images whose neighbours are shown.
const QUERIES: usize = 8;
/// Neighbours of each of them.
const NEIGHBOURS: usize = 7;

/// The views that a training draws.
#[derive(Clone, Copy, Debug)]
pub enum Views {
    SimClr(SimClrAugmentation),
    RotNet(PaddedCropAugmentation),
    Crops(PaddedCropAugmentation),
}

impl Views {
    /// Side in pixels of the views of images of `split`.
    pub fn side(&self, split: &Split) -> usize {
        match self {
            Views::SimClr(augmentation) => augmentation.size,
            _ => split.height,
        }
    }

    /// Draws a few images of `split`, each followed by views of it, which are not normalised.
    ///
    /// # Errors
    /// `Error::Shape` if a view is not possible.
    pub fn draw(&self, split: &Split, seed: u64) -> Result<Vec<Vec<Picture>>> {
        let device = Device::cpu();
        let count = VIEWED.min(split.len() as u32);
        let stride = split.len() as u32 / count.max(1);
        // At irregular intervals, so that several classes appear.
        let samples: Vec<u32> = (0..count).map(|i| i * stride + i % stride).collect();
        let chosen = split.subset(&samples);
        let store = ImageStore::of(&device, &chosen)?;
        let places: Vec<u32> = (0..count).collect();
        let images = store.gather(&places)?;
        let mut columns = vec![pictures(&images)?];
        let key = |view| ViewKey {
            seed,
            step: 0,
            view,
        };
        match self {
            Views::SimClr(augmentation) => {
                let augmentation = SimClrAugmentation {
                    normalize: None,
                    ..*augmentation
                };
                for view in 0..VIEWS {
                    let drawn = augmentation.draw(key(view), &samples, split.height, split.width);
                    columns.push(pictures(&augmentation.apply(&device, &images, &drawn)?)?);
                }
            }
            Views::RotNet(augmentation) => {
                let crops = augmentation.draw(key(0), &samples);
                let crops = augmentation.apply(&device, &images, &crops)?;
                let all = pictures(&rotations(&device, &crops, Normalization::None)?)?;
                let rotation = |turns: usize| all.chunks(samples.len()).nth(turns);
                columns.extend((0..ROTATIONS).filter_map(rotation).map(<[_]>::to_vec));
            }
            Views::Crops(augmentation) => {
                for view in 0..VIEWS {
                    let crops = augmentation.draw(key(view), &samples);
                    columns.push(pictures(&augmentation.apply(&device, &images, &crops)?)?);
                }
            }
        }
        let row = |row: usize| columns.iter().map(|column| column[row].clone()).collect();
        Ok((0..samples.len()).map(row).collect())
    }
}

/// The pictures of `images [N, 3, H, W]` in [0, 1].
fn pictures(images: &Tensor) -> Result<Vec<Picture>> {
    let [_, channels, height, width] = images.nchw("pictures", "images")?;
    let values = images.to_vec::<f32>()?;
    let images = values.chunks_exact(channels * height * width);
    Ok(images
        .map(|x| Picture::of_planes(x, height, width))
        .collect())
}

/// An image with its class, if it has a label.
pub struct Shown {
    pub picture: Picture,
    pub class: Option<String>,
}

/// Pictures of an encoder.
pub struct Pictures {
    /// Steps that the encoder was trained for.
    pub step: u64,
    /// An image per row, and its views.
    pub views: Vec<Vec<Picture>>,
    /// The first convolution, one picture per output channel. Grey is 0.
    pub filters: Vec<Picture>,
    /// A test image per row, and the training images that are the most similar to it.
    pub neighbours: Vec<(Shown, Vec<(f32, Shown)>)>,
    /// The accuracy of nearest neighbours on the sample.
    pub top1: Option<f64>,
    /// The features of the test images.
    pub embedding: Embedding,
    plane: Projected,
    pub queries: Split,
    classes: Vec<String>,
}

impl Pictures {
    /// Evaluates `encoder` on `sample`, and draws it.
    ///
    /// # Errors
    /// As [`Sample::embed`].
    pub fn new(
        device: &Device,
        encoder: &ResNet,
        sample: &Sample,
        views: Vec<Vec<Picture>>,
        step: u64,
    ) -> Result<Self> {
        let embedding = sample.embed(device, encoder)?;
        let shown = |split: &Split, i: usize| -> Result<Shown> {
            Ok(Shown {
                picture: Picture::of_bytes(&split.image(i)?, split.height, split.width),
                class: split
                    .labels
                    .as_ref()
                    .and_then(|labels| sample.classes.get(labels[i] as usize).cloned()),
            })
        };
        let queries = sample.queries.len();
        let stride = queries / QUERIES.min(queries).max(1);
        // At irregular intervals, so that several classes appear.
        let chosen = (0..QUERIES.min(queries)).map(|i| i * stride + i % stride);
        let neighbours = chosen.map(|query| {
            let found = embedding.neighbours(query, NEIGHBOURS).into_iter();
            let found = found.map(|(similarity, i)| Ok((similarity, shown(&sample.bank, i)?)));
            Ok((
                shown(&sample.queries, query)?,
                found.collect::<Result<_>>()?,
            ))
        });
        Ok(Pictures {
            step,
            views,
            filters: filters(encoder)?,
            neighbours: neighbours.collect::<Result<_>>()?,
            top1: embedding.top1(device, sample)?,
            plane: pca::project(&embedding.queries, embedding.width),
            embedding,
            queries: sample.queries.clone(),
            classes: sample.classes.clone(),
        })
    }

    /// The class of each test image, or its number if it has no label.
    pub fn labels(&self) -> Vec<String> {
        let class = |i: usize| match &self.queries.labels {
            Some(labels) => self.classes.get(labels[i] as usize).cloned(),
            None => None,
        };
        let all = 0..self.queries.len();
        all.map(|i| class(i).unwrap_or_else(|| i.to_string()))
            .collect()
    }

    /// The features of the test images along their principal components, coloured by class.
    pub fn plane(&self) -> Plot {
        let series = |label: &str, is_in: &dyn Fn(usize) -> bool| Series {
            label: label.to_string(),
            points: (0..self.plane.points.len())
                .filter(|&i| is_in(i))
                .map(|i| self.plane.points[i].into())
                .collect(),
        };
        let series = match &self.queries.labels {
            Some(labels) => (0..)
                .zip(&self.classes)
                .map(|(class, name)| series(name, &|i| labels[i] == class))
                .collect(),
            None => vec![series("test images", &|_| true)],
        };
        let [x, y] = self.plane.explained.map(|share| 100.0 * share);
        Plot {
            title: format!("Features of {} test images", self.queries.len()),
            x_label: format!("first principal component, {x:.0} % of the variance"),
            y_label: format!("second, {y:.0} %"),
            series,
            is_joined: false,
            level: None,
        }
    }
}

/// The pictures of the filters of the first convolution.
fn filters(encoder: &ResNet) -> Result<Vec<Picture>> {
    let parameters = encoder.parameters();
    let Some(first) = parameters.iter().find(|p| p.name == "conv1.weight") else {
        return Ok(Vec::new());
    };
    let &[_, channels, height, width] = first.value.shape() else {
        return Ok(Vec::new());
    };
    let values = first.value.to_vec::<f32>()?;
    let filter = |filter: &[f32]| {
        let largest = filter.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
        let planes = filter.iter().map(|x| 0.5 + 0.5 * x / largest);
        Picture::of_planes(&planes.collect::<Vec<f32>>(), height, width)
    };
    let filters = values.chunks_exact(channels * height * width);
    Ok(filters.map(filter).collect())
}
