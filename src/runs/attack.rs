//! Attacks on a classifier over several strengths, from the request to the summary.

use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;

use super::folder::RunFolder;
use super::record::{AttackFacts, Facts, shortest};
use super::result::{
    AccuracyProtocol, AttackMetrics, AttackPoint, PicturedImage, RunResult, Start,
};
use super::settings::Attack;
use super::spec::RunSpec;
use super::unfinished::{UNFINISHED, resumable};
use super::weights_file::{Loaded, state};
use crate::augment::ImageStore;
use crate::autograd::{Tape, Var};
use crate::console::say;
use crate::data::{Dataset, Split, batches};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate::attack::{AttackSettings, Method, Units, in_units, network_input, perturb};
use crate::evaluate::features::logits;
use crate::evaluate::metrics::{accuracy, predictions};
use crate::evaluate::partial::{Partial, as_classes, as_values, complete_in_group};
use crate::interrupt;
use crate::nn::weights::digest;
use crate::nn::{Linear, Module};
use crate::objectives::Protocol;
use crate::ops::uniform::NoiseKey;
use crate::tensor::Tensor;

/// Images of one attack.
const BATCH: u32 = 128;
/// The name in [`Partial`] of the last strength's values if its images are saved: a prediction and
/// the pixels per image.
const LAST: &str = "last eps";
/// Number of images in the picture.
pub const PICTURED: usize = 8;

/// An attack whose files were read and checked.
pub struct AttackRequest<'a> {
    pub spec: &'a RunSpec,
    /// The settings of `spec`.
    pub settings: &'a Attack,
    /// The classifier.
    pub loaded: Loaded,
    pub method: Method,
    /// The strengths, in the protocol's units.
    pub eps: Vec<f32>,
    pub dataset: Dataset,
}

/// The images of the strongest attack, clean and adversarial, for a picture or a file: all images if
/// they are saved, otherwise those of the first batch.
pub struct Adversarial {
    /// `[N, 3, H, W]` in the attack's units.
    pub clean: Tensor,
    pub adversarial: Tensor,
    pub labels: Vec<u32>,
}

/// How the classes of a data set are matched with those of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MatchClasses {
    // By their names. The data set may lack classes of the classifier.
    Name,
    // By the order of their names. There must be as many.
    Order,
}

impl MatchClasses {
    /// The data set with the labels of the classifier. Earlier versions stored no names in a file;
    /// its classes are matched by order.
    ///
    /// # Errors
    /// `Error::Usage` for a file without a classifier, or for classes that do not match.
    pub fn apply(self, loaded: &Loaded, dataset: Dataset) -> Result<Dataset> {
        let names = &loaded.origin.class_names;
        if self == MatchClasses::Name && loaded.head.is_some() && !names.is_empty() {
            return dataset.relabelled(names, &loaded.source).map_err(|error| {
                Error::usage(format!(
                    "{error}; --match-classes-by order takes the classes in their order"
                ))
            });
        }
        head(loaded, &dataset)?;
        Ok(dataset)
    }
}

/// The head of a classifier of `dataset`'s classes.
///
/// # Errors
/// `Error::Usage` for a file without a classifier, or of another number of classes.
pub fn head<'a>(loaded: &'a Loaded, dataset: &Dataset) -> Result<&'a Linear> {
    let classes = dataset.classes.len();
    match &loaded.head {
        Some(head) if loaded.origin.classes == Some(classes) => Ok(head),
        _ => Err(Error::usage(format!(
            "{} holds no classifier of the {classes} classes of {}; attack a model.safetensors that supervised or \
             finetune wrote",
            loaded.source, dataset.name
        ))),
    }
}

/// Measures the classifier's accuracy under the attack at each strength. Then calls `leave` with
/// the result and its images, to write other files into the folder, and writes the summary into
/// `folder`. A stopped run is resumed from the values that it stored. If the run has ended, its
/// summary is read instead.
///
/// # Errors
/// `Error::Guard` if an attack of strength 0 changes the accuracy; `Error::Usage` for a file
/// without a classifier or with another number of classes; `Error::Stopped` if a stop is requested;
/// otherwise those of the parts.
pub fn run(
    device: &Device,
    request: &AttackRequest<'_>,
    folder: &RunFolder,
    leave: impl FnOnce(&RunResult<AttackMetrics>, &Adversarial) -> Result<()>,
) -> Result<RunResult<AttackMetrics>> {
    let started = Instant::now();
    let AttackRequest {
        spec,
        settings,
        loaded,
        dataset,
        ..
    } = request;
    let (protocol, seed) = (spec.common.protocol, spec.common.seed);
    let encoder = &loaded.encoder;
    let head = head(loaded, dataset)?;
    let split = dataset.test_part(settings.attack.fraction, seed)?;
    let labels = dataset.labels_of(&split, "test")?.to_vec();
    let facts = Facts {
        attack: Some(AttackFacts {
            eps: request.eps.iter().copied().map(shortest).collect(),
            images: split.len(),
        }),
        ..Facts::of_loaded(device, dataset, loaded)
    };
    folder.write_config(&facts.to_toml(spec)?)?;
    if let Some(summary) = folder.summary()? {
        return Ok(summary);
    }
    folder.keep();
    let key = || digest(&state(encoder, Some(head)));
    let place = (folder.path(), UNFINISHED);
    let Measured {
        clean: clean_predictions,
        found,
        curve,
        images,
    } = resumable(place, &key, |partial| {
        measure(device, request, head, &split, &labels, partial)
    })?;
    let clean_top1 = accuracy(&clean_predictions, &labels);
    let name = |class: u32| dataset.classes[class as usize].clone();
    let pictured = (0..PICTURED.min(labels.len()))
        .map(|i| PicturedImage {
            class: name(labels[i]),
            predicted_clean: name(clean_predictions[i]),
            predicted_adversarial: name(found[i]),
        })
        .collect();
    let normalization = encoder.normalization();
    let attacked = AccuracyProtocol::offline("classifier", dataset.test.height, normalization)
        .on(None, labels.len());
    let metrics = AttackMetrics {
        start: Start::new(loaded),
        method: settings.attack.method.to_string(),
        iterations: match request.method {
            Method::Fgsm => None,
            Method::Pgd { iterations } => Some(iterations),
        },
        units: match protocol {
            Protocol::Sound => "pixels from 0 to 1".to_string(),
            Protocol::Paper => "normalised pixels".to_string(),
        },
        images: labels.len(),
        classes: dataset.classes.clone(),
        absent_classes: dataset.absent_classes(),
        clean_top1,
        curve,
        pictured,
    };
    let summary = RunResult::new(spec, facts, started, [("clean_top1", attacked)], metrics);
    leave(&summary, &images)?;
    folder.write_summary(&summary)?;
    Ok(summary)
}

/// Results of an attack at several strengths.
struct Measured {
    /// The predictions for the clean images.
    clean: Vec<u32>,
    /// The predictions under the last strength.
    found: Vec<u32>,
    curve: Vec<AttackPoint>,
    images: Adversarial,
}

/// Attacks the images of `split` at each strength, starting after the values in `partial`.
fn measure(
    device: &Device,
    request: &AttackRequest<'_>,
    head: &Linear,
    split: &Split,
    labels: &[u32],
    partial: &mut Partial,
) -> Result<Measured> {
    let encoder = &request.loaded.encoder;
    let classes = request.dataset.classes.len();
    let clean_logits = partial.entry("clean".to_string()).or_default();
    logits(device, (encoder, head), classes, split, clean_logits)?;
    let clean_predictions = predictions(clean_logits, classes);

    let store = ImageStore::of(device, split)?;
    let size = (split.len(), BATCH);
    let pixels = 3 * split.height * split.width;
    let classifier = |units: Units, images: &Var| {
        let x = network_input(units, encoder.normalization(), images)?;
        (encoder, head).forward(&x)
    };
    // The clean and the adversarial images of a batch.
    let attacked = |settings: &AttackSettings, batch: usize, indices: &[u32]| -> Result<_> {
        let clean = in_units(device, settings.units, &store.gather_in_order(indices)?)?;
        let targets: Vec<u32> = indices.iter().map(|&i| labels[i as usize]).collect();
        let targets = Tensor::from_slice(&targets, &[targets.len()], device)?;
        // The same noise, scaled, at every strength, and another one for each batch.
        let key = NoiseKey {
            seed: request.spec.common.seed,
            stream: batch as u64,
        };
        let attack = |images: &Var| classifier(settings.units, images);
        let x = perturb(device, attack, &clean, &targets, settings, key)?;
        Ok([clean, x])
    };
    let mut curve = Vec::new();
    let mut last = None;
    for (number, &eps) in request.eps.iter().enumerate() {
        let settings =
            AttackSettings::of_protocol(request.spec.common.protocol, request.method, eps)?;
        let is_last = number + 1 == request.eps.len();
        let is_kept = is_last && request.settings.attack.save;
        let (name, width) = if is_kept {
            (LAST.to_string(), 1 + pixels)
        } else {
            (format!("eps {number}"), 1)
        };
        let values = partial.entry(name).or_default();
        let is_done = values.len() == split.len() * width;
        complete_in_group(values, size, width, |batch, indices| {
            let [_, x] = attacked(&settings, batch, indices)?;
            let tape = Tape::inference(device);
            let scores = classifier(settings.units, &tape.constant(&x))?;
            let scores = scores.tensor().to_vec::<f32>()?;
            let found = as_values(&predictions(&scores, classes));
            if !is_kept {
                return Ok(found);
            }
            let images = x.to_vec::<f32>()?;
            let rows = found.iter().zip(images.chunks(pixels));
            Ok(rows
                .flat_map(|(class, image)| [&[*class], image].concat())
                .collect())
        })?;
        let found: Vec<f32> = values.iter().step_by(width).copied().collect();
        let found = as_classes(&found);
        let top1 = accuracy(&found, labels);
        if eps == 0.0 && found != clean_predictions {
            let clean_top1 = accuracy(&clean_predictions, labels);
            return Err(Error::Guard(format!(
                "an attack of eps 0 gives an accuracy of {top1} and clean images one of {clean_top1}, or other \
                 predictions; the attack sees another network or other images than the evaluation"
            )));
        }
        say!("eps {eps:<8} top-1 {:.1} %", 100.0 * top1);
        curve.push(AttackPoint {
            eps: shortest(eps),
            top1,
        });
        last = is_last.then_some((found, settings));
        if !is_done && !is_last {
            let (done, all) = (number + 1, request.eps.len());
            interrupt::check(|| format!("after {done} of {all} strengths of the attack"))?;
        }
    }
    let Some((found, settings)) = last else {
        return Err(Error::usage("there is no eps to attack with; give --eps"));
    };
    let images = match partial.remove(LAST) {
        Some(rows) if request.settings.attack.save => {
            let rows = rows.chunks(1 + pixels).flat_map(|row| &row[1..]);
            let moved: Vec<f32> = rows.copied().collect();
            let mut clean = Vec::with_capacity(moved.len());
            for indices in batches(split.len() as u32, BATCH) {
                let x = in_units(device, settings.units, &store.gather_in_order(&indices)?)?;
                clean.extend(x.to_vec::<f32>()?);
            }
            let shape = [split.len(), 3, split.height, split.width];
            Adversarial {
                clean: Tensor::from_slice(&clean, &shape, device)?,
                adversarial: Tensor::from_slice(&moved, &shape, device)?,
                labels: labels.to_vec(),
            }
        }
        _ => {
            let first: Vec<u32> = (0..BATCH.min(split.len() as u32)).collect();
            let [clean, adversarial] = attacked(&settings, 0, &first)?;
            Adversarial {
                clean,
                adversarial,
                labels: labels[..first.len()].to_vec(),
            }
        }
    };
    Ok(Measured {
        clean: clean_predictions,
        found,
        curve,
        images,
    })
}
