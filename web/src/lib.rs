//! The engine for a browser's page: `worker.js` calls [`Session`]. Results with several parts are
//! JSON; numbers and pixels are typed arrays.

mod operation;

use std::path::Path;

use parallax::augment::ImageStore;
use parallax::autograd::Tape;
use parallax::data::{EpochSampler, Split, batches, shapes};
use parallax::device::Gpu;
use parallax::device::gpu::{AdapterChoice, GpuOptions};
use parallax::evaluate::pca;
use parallax::nn::{Linear, Module, Origin, ResNet, ResNetConfig, Stem, weights};
use parallax::objectives::Protocol;
use parallax::objectives::simclr::{self, SimClr, SimClrNetwork, SimClrSettings};
use parallax::selftest::StepThrough;
use parallax::train::{PartialObjective, Trainer};
use parallax::{Device, Error};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

/// Height and width of all images.
const SIDE: usize = 32;
const IMAGE_BYTES: usize = 3 * SIDE * SIDE;
/// Images that are embedded at a time.
const BATCH: u32 = 64;
/// The weight decay of `parallax simclr`.
const WEIGHT_DECAY: f32 = 1e-6;

type Result<T> = std::result::Result<T, JsError>;

fn usage(message: &str) -> JsError {
    Error::usage(message).into()
}

/// The settings of the page.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    arch: String,
    width: f64,
    batch_size: usize,
    temperature: f32,
    learning_rate: f64,
    /// Strength of the augmentation; 1 is that of `parallax simclr`, and 0 is none but flips.
    strength: f32,
    seed: u32,
}

impl Settings {
    fn simclr(&self) -> Result<SimClrSettings> {
        let encoder = ResNetConfig {
            arch: self.arch.parse()?,
            stem: Stem::Cifar { padding: 1 },
            width: self.width,
        };
        let mut settings = SimClrSettings::of_protocol(
            Protocol::Sound,
            encoder,
            SIDE,
            self.batch_size,
            WEIGHT_DECAY,
            u64::from(self.seed),
        );
        settings.temperature = self.temperature;
        settings.optimization.learning_rate = self.learning_rate;
        let augmentation = &mut settings.augmentation;
        for strength in [
            &mut augmentation.jitter.brightness,
            &mut augmentation.jitter.contrast,
            &mut augmentation.jitter.saturation,
            &mut augmentation.jitter.hue,
            &mut augmentation.grayscale,
        ] {
            *strength *= self.strength;
        }
        if self.strength < 1.0 {
            augmentation.scale[0] = augmentation.scale[0].powf(self.strength);
        }
        Ok(settings)
    }
}

struct Training {
    settings: SimClrSettings,
    trainer: Trainer<SimClrNetwork, SimClr>,
    /// Recorded steps, counted over changes of the settings.
    steps: u64,
}

/// A device with its images and its training.
#[wasm_bindgen]
pub struct Session {
    device: Device,
    data: String,
    classes: Vec<String>,
    train: Split,
    /// Images that are embedded, none of which is trained on if the data set has test images.
    shown: Split,
    shown_store: ImageStore,
    training: Option<Training>,
    /// The features of `shown`, and their number per image.
    features: (Vec<f32>, usize),
    operation: Option<StepThrough>,
}

#[wasm_bindgen]
impl Session {
    /// Opens the browser's adapter. There are no images yet.
    pub async fn open() -> Result<Session> {
        console_error_panic_hook::set_once();
        let options = GpuOptions {
            adapter: AdapterChoice::Numbered(0),
            ..GpuOptions::default()
        };
        let device = Device::Gpu(Gpu::open_async(options).await?);
        let empty = Split {
            images: Vec::new().into(),
            labels: None,
            files: Vec::new(),
            height: SIDE,
            width: SIDE,
        };
        Ok(Session {
            shown_store: ImageStore::new(&device, &[], [3, SIDE, SIDE])?,
            device,
            data: String::new(),
            classes: Vec::new(),
            train: empty.clone(),
            shown: empty,
            training: None,
            features: (Vec::new(), 1),
            operation: None,
        })
    }

    /// Whether the adapter is software that runs on the CPU.
    #[wasm_bindgen(js_name = isSoftware)]
    pub fn is_software(&self) -> bool {
        self.device.as_gpu().is_some_and(Gpu::is_software)
    }

    /// Bytes held for tensors.
    pub fn memory(&self) -> f64 {
        self.device.memory().current as f64
    }

    /// Draws the images of `parallax simclr`. Shows the first `shown` test images.
    #[wasm_bindgen(js_name = drawShapes)]
    pub fn draw_shapes(&mut self, seed: u32, shown: usize) -> Result<()> {
        let dataset = shapes::generate(u64::from(seed))?;
        let first: Vec<u32> = (0..shown.min(dataset.test.len()) as u32).collect();
        let test = dataset.test.subset(&first);
        self.set_images(dataset.name, dataset.classes, dataset.train, test)
    }

    /// Takes the page's images: planes of 32 x 32 bytes, three per image. `labels` is empty, or has
    /// one index into `classes` per image. Shows `shown` of them, drawn at random because images of
    /// folders are sorted by class.
    #[wasm_bindgen(js_name = takeImages)]
    pub fn take_images(
        &mut self,
        pixels: Vec<u8>,
        labels: Vec<u32>,
        classes: Vec<String>,
        shown: usize,
    ) -> Result<()> {
        if pixels.is_empty() || !pixels.len().is_multiple_of(IMAGE_BYTES) {
            return Err(usage(
                "no image could be read; drop PNG, JPEG or WebP files",
            ));
        }
        let count = pixels.len() / IMAGE_BYTES;
        let labels = (labels.len() == count).then_some(labels);
        let train = Split {
            images: pixels.into(),
            labels,
            ..self.train.subset(&[])
        };
        let chosen = EpochSampler::new(count, shown.min(count), 0)?.batch(0);
        let shown = train.subset(&chosen);
        self.set_images("images".to_string(), classes, train, shown)
    }

    fn set_images(
        &mut self,
        data: String,
        classes: Vec<String>,
        train: Split,
        shown: Split,
    ) -> Result<()> {
        self.shown_store = ImageStore::of(&self.device, &shown)?;
        (self.data, self.classes) = (data, classes);
        (self.train, self.shown) = (train, shown);
        self.training = None;
        self.features = (Vec::new(), 1);
        Ok(())
    }

    /// The images that are embedded: planes of bytes.
    #[wasm_bindgen(js_name = shownImages)]
    pub fn shown_images(&self) -> Result<Vec<u8>> {
        Ok(self.shown.pixels()?.into_owned())
    }

    /// Their labels, or nothing if there are none.
    #[wasm_bindgen(js_name = shownLabels)]
    pub fn shown_labels(&self) -> Vec<u32> {
        self.shown.labels.clone().unwrap_or_default()
    }

    /// The names of the classes.
    pub fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }

    /// The number of images that are trained on.
    #[wasm_bindgen(js_name = trainingImages)]
    pub fn training_images(&self) -> usize {
        self.train.len()
    }

    /// Starts a training with random weights.
    pub fn start(&mut self, settings: &str) -> Result<()> {
        let settings = parsed(settings)?.simclr()?;
        let network = simclr::network(&settings, &self.device)?;
        self.set_training(settings, network)
    }

    /// Continues the training with other settings. The network and the optimiser keep their state.
    pub fn change(&mut self, settings: &str) -> Result<()> {
        let settings = parsed(settings)?.simclr()?;
        let training = self.training.as_mut();
        let training = training.ok_or_else(|| usage("there is no training yet; start one"))?;
        let before = &training.settings;
        let settings = SimClrSettings {
            encoder: before.encoder,
            seed: before.seed,
            ..settings.with_normalization(before.normalization)
        };
        training.trainer.objective = SimClr::new(settings.clone(), &self.train, &self.device)?;
        let rate = settings.optimization.learning_rate;
        training.trainer.set_learning_rate(rate);
        training.settings = settings;
        Ok(())
    }

    fn set_training(
        &mut self,
        settings: SimClrSettings,
        network: SimClrNetwork,
    ) -> Result<()> {
        let objective = SimClr::new(settings.clone(), &self.train, &self.device)?;
        let trainer = Trainer::new(network, settings.optimization, objective)?;
        self.training = Some(Training {
            settings,
            trainer,
            steps: 0,
        });
        Ok(())
    }

    fn training(&mut self) -> Result<&mut Training> {
        let training = self.training.as_mut();
        training.ok_or_else(|| usage("there is no training yet; start one"))
    }

    fn encoder(&self) -> Result<&ResNet> {
        let training = self.training.as_ref();
        let training = training.ok_or_else(|| usage("there is no training yet; start one"))?;
        Ok(&training.trainer.module.0)
    }

    /// Takes a training step and returns its loss.
    pub async fn step(&mut self) -> Result<f32> {
        let training = self.training()?;
        let pending = training.trainer.step(training.steps)?;
        let finished = training.trainer.finish_async(pending).await?;
        training.steps += 1;
        Ok(finished.loss)
    }

    /// The first `count` pairs of views of the last step: planes of bytes, all first views and then
    /// all second views.
    pub async fn views(&mut self, count: usize) -> Result<Vec<u8>> {
        let training = self.training()?;
        let step = training.steps.saturating_sub(1);
        let statistics = training.settings.augmentation.normalize;
        let objective = &mut training.trainer.objective;
        let mut samples = PartialObjective::<SimClrNetwork>::samples(objective, step);
        samples.truncate(count);
        let mut bytes = Vec::with_capacity(2 * count * IMAGE_BYTES);
        for view in objective.views_of(&samples, step)? {
            let values = view.to_vec_async::<f32>().await?;
            for (plane, values) in values.chunks_exact(SIDE * SIDE).enumerate() {
                let (mean, deviation) = statistics.map_or((0.0, 1.0), |(mean, deviation)| {
                    (mean[plane % 3], deviation[plane % 3])
                });
                let pixel = |x: &f32| ((x * deviation + mean) * 255.0).round() as u8;
                bytes.extend(values.iter().map(pixel));
            }
        }
        Ok(bytes)
    }

    /// Computes the features of the shown images in evaluation mode, row-major, one row per image.
    pub async fn embed(&mut self) -> Result<Vec<f32>> {
        let encoder = self.encoder()?;
        let mut features = Vec::new();
        for indices in batches(self.shown.len() as u32, BATCH) {
            let images = self.shown_store.gather(&indices)?;
            let images = encoder.normalization().apply(&self.device, &images)?;
            let y = encoder.forward(&Tape::inference(&self.device).constant(&images))?;
            features.extend(y.tensor().to_vec_async::<f32>().await?);
        }
        self.features = (features, encoder.feature_width());
        Ok(self.features.0.clone())
    }

    /// The features of the last [`Session::embed`] on their two principal components: x and y of
    /// each image.
    pub fn map(&self) -> Result<Vec<f32>> {
        let (features, width) = &self.features;
        let plane = pca::project(features, *width).points;
        Ok(plane.into_iter().flatten().map(|x| x as f32).collect())
    }

    /// The shown images in the order of their cosine similarity with image `index`, itself left
    /// out, and at most `count`.
    pub fn neighbours(&self, index: usize, count: usize) -> Vec<u32> {
        let (features, width) = &self.features;
        let rows: Vec<&[f32]> = features.chunks_exact(*width).collect();
        let Some(query) = rows.get(index) else {
            return Vec::new();
        };
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let similarity =
            |row: &[f32]| dot(row, query) / dot(row, row).sqrt().max(f32::MIN_POSITIVE);
        let mut found: Vec<(f32, u32)> = rows
            .iter()
            .enumerate()
            .filter(|(row, _)| *row != index)
            .map(|(row, values)| (similarity(values), row as u32))
            .collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        found.truncate(count);
        found.into_iter().map(|(_, row)| row).collect()
    }

    /// The fraction of shown images whose nearest neighbour has the same label, or nothing without
    /// labels or features.
    pub fn agreement(&self) -> Option<f64> {
        let labels = self.shown.labels.as_ref()?;
        let count = self.features.0.len() / self.features.1;
        if count < 2 || labels.len() != count {
            return None;
        }
        let agrees = |image: &usize| {
            let nearest = self.neighbours(*image, 1)[0] as usize;
            labels[nearest] == labels[*image]
        };
        Some((0..count).filter(agrees).count() as f64 / count as f64)
    }

    /// The weights of the first convolution, `[filters, 3, size, size]`.
    pub async fn filters(&self) -> Result<Vec<f32>> {
        let parameters = self.encoder()?.parameters();
        let first = parameters.first();
        let first = first.ok_or_else(|| usage("the encoder has no parameters"))?;
        Ok(first.value.to_vec_async().await?)
    }

    /// The bytes of a safetensors file with the encoder, as `parallax simclr` writes it.
    pub async fn save(&self) -> Result<Vec<u8>> {
        let encoder = self.encoder()?;
        let training = self.training.as_ref();
        let Training {
            settings, steps, ..
        } = training.ok_or_else(|| usage("there is no training yet; start one"))?;
        let origin = Origin {
            seed: settings.seed,
            step: *steps,
            batch_size: settings.batch_size,
            normalization: settings.normalization,
            ..Origin::new(
                settings.encoder,
                "simclr",
                Protocol::Sound.to_string(),
                self.data.clone(),
            )
        };
        Ok(weights::save_async(&encoder.state(), &origin.to_map()).await?)
    }

    /// Continues with the encoder of a safetensors file that Parallax wrote, and a new projector.
    /// Returns the architecture and the width of the encoder as JSON.
    pub fn load(&mut self, bytes: &[u8], name: &str, settings: &str) -> Result<String> {
        let mut settings = parsed(settings)?.simclr()?;
        let path = Path::new(name);
        let metadata = weights::metadata(bytes, path)?;
        if !metadata.contains_key("arch") {
            return Err(Error::data(
                path,
                "it has no metadata of Parallax; convert it with: parallax weights import FILE --out OUT",
            )
            .into());
        }
        let origin = Origin::from_map(&metadata, path)?;
        settings.encoder = origin.encoder;
        let settings = settings.with_normalization(origin.normalization);
        let network = simclr::network(&settings, &self.device)?;
        let width = network.0.feature_width();
        let head = origin.classes;
        let head = head.map(|classes| Linear::new("fc", width, classes, 0, &self.device));
        let head = head.transpose()?;
        let mut state = network.0.state();
        state.extend(head.iter().flat_map(Module::parameters));
        weights::load(bytes, path, &state)?;
        let found = serde_json::json!({
            "arch": origin.encoder.arch.to_string(),
            "width": origin.encoder.width,
            "stem": origin.encoder.stem.to_string(),
            "step": origin.step,
        });
        self.set_training(settings, network)?;
        Ok(found.to_string())
    }
}

fn parsed(settings: &str) -> Result<Settings> {
    serde_json::from_str(settings).map_err(|e| usage(&format!("the settings cannot be read: {e}")))
}
