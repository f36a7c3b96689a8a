//! A pretraining run, SimCLR's or RotNet's, from its request to its summary.

use std::time::{Duration, Instant};

use super::folder::RunFolder;
use super::image_size::check_image_size;
use super::memory::StepSize;
use super::result::{PretrainingSummary, chance_loss, final_mean};
use super::spec::{DataConfig, RunConfig, TrainingConfig, Versions, shortest};
use super::training::{Plan, Trained, remove_checkpoints, synchronized, train};
use super::tuning::TrainedNetwork;
use super::unfinished::{UNFINISHED, resumable};
use super::weights_file::{Origin, WeightsFile, WeightsRecord, pack};
use crate::autograd::PassOptions;
use crate::console::note;
use crate::data::{DataKind, Dataset, Split};
use crate::device::Device;
use crate::distributed;
use crate::error::{Error, Result};
use crate::evaluate::features;
use crate::evaluate::knn::{self, Vote};
use crate::evaluate::partial::Partial;
use crate::evaluate::rotation::rotation_accuracy;
use crate::nn::weights::digest;
use crate::nn::{Linear, Module, Projector, ResNet, ResNetConfig};
use crate::objectives::Protocol;
use crate::objectives::rotnet::{self, ROTATIONS, RotNet, RotNetSettings, check_square};
use crate::objectives::simclr::{self, SimClr, SimClrSettings};
use crate::optim::Optimization;
use crate::tensor::DType;
use crate::train::micro_batch::in_parts;
use crate::train::{PartialObjective, Trainer};

/// What is learned, with its settings.
#[derive(Clone, Debug)]
pub enum Pretext {
    SimClr(SimClrSettings),
    RotNet(RotNetSettings),
}

impl Pretext {
    /// The command that asks for it.
    pub fn command(&self) -> &'static str {
        match self {
            Pretext::SimClr(_) => "simclr",
            Pretext::RotNet(_) => "rotnet",
        }
    }

    /// The network that is trained.
    pub fn encoder(&self) -> &ResNetConfig {
        match self {
            Pretext::SimClr(settings) => &settings.encoder,
            Pretext::RotNet(settings) => &settings.encoder,
        }
    }

    fn batch_size(&self) -> usize {
        match self {
            Pretext::SimClr(settings) => settings.batch_size,
            Pretext::RotNet(settings) => settings.batch_size,
        }
    }

    fn micro_batch(&self) -> Option<usize> {
        match self {
            Pretext::SimClr(settings) => settings.micro_batch,
            Pretext::RotNet(settings) => settings.micro_batch,
        }
    }

    fn optimization(&self) -> Optimization {
        match self {
            Pretext::SimClr(settings) => settings.optimization,
            Pretext::RotNet(settings) => settings.optimization,
        }
    }

    fn seed(&self) -> u64 {
        match self {
            Pretext::SimClr(settings) => settings.seed,
            Pretext::RotNet(settings) => settings.seed,
        }
    }

    /// The size of a step on `dataset`, with activations of the type `activations`. With
    /// `recompute`, the backward pass recomputes blocks.
    ///
    /// # Errors
    /// `Error::Usage` if the network is not possible.
    pub fn step_size(
        &self,
        dataset: &Dataset,
        recompute: bool,
        activations: DType,
    ) -> Result<StepSize> {
        let width = self.encoder().shape()?.feature_width;
        let images = dataset.pretraining();
        let (views_per_image, side, head_parameters) = match self {
            Pretext::SimClr(settings) => {
                let parameters = Projector::parameter_count(width);
                (2, settings.augmentation.size, parameters)
            }
            Pretext::RotNet(_) => {
                let parameters = Linear::parameter_count(width, ROTATIONS);
                (ROTATIONS, images.height, parameters)
            }
        };
        Ok(StepSize {
            encoder: *self.encoder(),
            side,
            views_per_image,
            batch_size: self.batch_size(),
            micro_batch: self.micro_batch(),
            recompute,
            activations,
            optimizer: self.optimization().optimizer,
            head_parameters,
            image_bytes: images.images.len(),
        })
    }

    /// What a step on `dataset` passes through the network.
    ///
    /// # Errors
    /// As [`Pretext::step_size`].
    pub fn trained_network(&self, dataset: &Dataset) -> Result<TrainedNetwork> {
        let step = self.step_size(dataset, false, DType::F32)?;
        let width = step.encoder.shape()?.feature_width;
        let images = in_parts(step.batch_size, step.micro_batch).unwrap_or(step.batch_size);
        let (layers, passes) = match self {
            Pretext::SimClr(settings) => (
                Projector::layers(width).to_vec(),
                if settings.separate_passes { 1 } else { 2 },
            ),
            Pretext::RotNet(_) => (vec![[width, ROTATIONS]], ROTATIONS),
        };
        Ok(TrainedNetwork {
            encoder: step.encoder,
            side: step.side,
            layers,
            images: passes * images,
        })
    }

    /// Fails if the batch has too few images for the objective.
    ///
    /// # Errors
    /// `Error::Usage` that gives the smallest batch.
    pub fn check_batch_size(&self) -> Result<()> {
        match self {
            Pretext::SimClr(SimClrSettings { batch_size, .. }) if *batch_size < 2 => {
                Err(Error::usage(format!(
                    "the batch size is {batch_size}; SimCLR contrasts images with each other, use --batch-size 2 or more"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Fails if the images of `dataset`, or the views of them, do not fit the task.
    ///
    /// # Errors
    /// `Error::Usage` for RotNet on images that are not square; `Error::Data` for images that are
    /// too small.
    pub fn check_images(&self, dataset: &Dataset) -> Result<()> {
        let split = dataset.pretraining();
        let (size, padding) = match self {
            Pretext::SimClr(settings) => ([settings.augmentation.size; 2], 0),
            Pretext::RotNet(settings) => {
                check_square(split)?;
                let padding = settings.augmentation.padding as usize;
                ([split.width, split.height], padding)
            }
        };
        check_image_size(self.command(), size, self.encoder(), padding)
    }

    /// Fails where the batch cannot be cut into chunks of `--micro-batch` images.
    ///
    /// # Errors
    /// As [`crate::train::micro_batch::check`].
    pub fn check_micro_batch(&self, dataset: &Dataset) -> Result<()> {
        match self {
            Pretext::SimClr(settings) => settings.check_micro_batch(),
            Pretext::RotNet(settings) => settings.check_micro_batch(dataset.pretraining().height),
        }
    }

    /// Floating-point operations of a training step: three times the encoder's forward pass over
    /// every view.
    fn flops_per_step(&self, dataset: &Dataset) -> Result<u64> {
        let step = self.step_size(dataset, false, DType::F32)?;
        let views = (step.views_per_image * step.batch_size) as u64;
        Ok(3 * views * step.encoder.shape()?.flops(step.side)?)
    }

    /// The loss of a network that says nothing.
    fn chance_loss(&self) -> f64 {
        match self {
            Pretext::SimClr(settings) => chance_loss(settings.batch_size),
            Pretext::RotNet(_) => (ROTATIONS as f64).ln(),
        }
    }
}

/// What a run is asked to do.
pub struct PretrainingRequest {
    pub protocol: Protocol,
    pub pretext: Pretext,
    pub steps: u64,
    /// Steps between two saved encoders.
    pub save_every: Option<u64>,
    /// At least so long between two checkpoints.
    pub checkpoint_every: Duration,
    /// The weights to start from.
    pub init: Option<WeightsFile>,
    /// Whether the trained and the untrained encoder are evaluated by their nearest neighbours at
    /// the end.
    pub knn: bool,
    /// Measurements that the data does not allow.
    pub left_out: Vec<String>,
    /// The images on which RotNet's accuracy is measured; `None` means all test images.
    pub rotation_test: Option<Split>,
    /// Whether the backward pass recomputes blocks.
    pub recompute: bool,
    /// How the network's activations are stored in training; evaluations are in f32.
    pub precision: DType,
    /// Whether the first steps are measured.
    pub profile: bool,
    pub data: DataKind,
    pub dataset: Dataset,
}

impl PretrainingRequest {
    /// The protocol as results name it.
    fn protocol_label(&self) -> String {
        match (self.protocol, &self.init) {
            (Protocol::Paper, None) => "paper protocol, random start".to_string(),
            (protocol, _) => protocol.to_string(),
        }
    }

    /// What was made of the weights to start from.
    fn weights(&self) -> WeightsRecord {
        let file = self.init.as_ref();
        file.map(WeightsFile::record).unwrap_or_default()
    }

    fn origin(&self, step: u64) -> Origin {
        Origin {
            encoder: *self.pretext.encoder(),
            command: self.pretext.command().to_string(),
            protocol: self.protocol_label(),
            data: self.dataset.name.clone(),
            seed: self.pretext.seed(),
            step,
            batch_size: self.pretext.batch_size(),
            classes: None,
            class_names: Vec::new(),
            label_fraction: None,
            pretrained_by: None,
        }
    }

    fn config(&self, device: &Device) -> RunConfig {
        let pretext = &self.pretext;
        let training = TrainingConfig {
            micro_batch: pretext.micro_batch(),
            precision: self.precision.to_string(),
            ..TrainingConfig::new(pretext.batch_size(), self.steps, &pretext.optimization())
        };
        let (training, augmentation) = match pretext {
            Pretext::SimClr(settings) => (
                TrainingConfig {
                    temperature: Some(shortest(settings.temperature)),
                    separate_passes: Some(settings.separate_passes),
                    ..training
                },
                (&settings.augmentation).into(),
            ),
            Pretext::RotNet(settings) => {
                let rotated = self.rotation_test.as_ref();
                let training = TrainingConfig {
                    rotation_images: match rotated.unwrap_or(&self.dataset.test).len() {
                        0 => None,
                        images => Some(images),
                    },
                    ..training
                };
                (training, (&settings.augmentation).into())
            }
        };
        RunConfig {
            command: pretext.command().to_string(),
            protocol: self.protocol_label(),
            init: match &self.init {
                Some(file) => file.path().display().to_string(),
                None => "random".to_string(),
            },
            weights: self.weights(),
            knn: None,
            seed: pretext.seed(),
            device: device.name(),
            classes: self.dataset.classes.clone(),
            resolution: None,
            variants: device.variants(),
            encoder: (*pretext.encoder()).into(),
            training: Some(training),
            attack: None,
            data: DataConfig {
                left_out: self.left_out.clone(),
                ..DataConfig::new(self.data, &self.dataset)
            },
            augmentation: Some(augmentation),
            versions: Versions::current(),
        }
    }
}

/// Pretrains, evaluates, and writes all results into `folder`. An interrupted run is resumed from
/// its checkpoint. If the run has ended, its summary is read instead.
///
/// # Errors
/// `Error::Stopped` if a stop is requested; otherwise those of the parts: a batch that does not fit
/// the data, a loss that is not finite, a file that cannot be written.
pub fn run(
    device: &Device,
    request: &PretrainingRequest,
    mut folder: RunFolder,
) -> Result<PretrainingSummary> {
    let started = Instant::now();
    folder.write_config(&request.config(device).to_toml()?)?;
    if let Some(summary) = folder.summary()? {
        return Ok(summary);
    }
    let split = request.dataset.pretraining();
    match &request.pretext {
        Pretext::SimClr(settings) => {
            let objective = SimClr::new(settings.clone(), split, device)?;
            let network = simclr::network(settings, device)?;
            let trained = pretrain(device, request, (network, objective), &mut folder)?;
            judge(device, request, trained, &folder, started, |_, _| Ok(None))
        }
        Pretext::RotNet(settings) => {
            let objective = RotNet::new(settings.clone(), split, device)?;
            let network = rotnet::network(settings, device)?;
            let trained = pretrain(device, request, (network, objective), &mut folder)?;
            judge(
                device,
                request,
                trained,
                &folder,
                started,
                |network, partial| {
                    let told = request.rotation_test.as_ref();
                    let told = told.unwrap_or(&request.dataset.test);
                    if told.is_empty() {
                        return Ok(None);
                    }
                    let found = partial.entry("rotations".to_string()).or_default();
                    let accuracy = rotation_accuracy(device, network, told, found)?;
                    Ok(Some((accuracy, told.len())))
                },
            )
        }
    }
}

fn plan(request: &PretrainingRequest) -> Plan {
    Plan {
        steps: request.steps,
        images_per_step: request.pretext.batch_size(),
        chance_loss: request.pretext.chance_loss(),
        save_every: request.save_every,
        stop_when_flat: None,
        checkpoint_every: request.checkpoint_every,
    }
}

/// An encoder with the head of its pretraining.
type Network<H> = (ResNet, H);

fn pretrain<H: Module, O: PartialObjective<Network<H>>>(
    device: &Device,
    request: &PretrainingRequest,
    (network, objective): (Network<H>, O),
    folder: &mut RunFolder,
) -> Result<(Trained, Network<H>)> {
    if let Some(file) = &request.init {
        file.fill(&network.0, None)?;
    }
    let pretext = &request.pretext;
    let mut trainer =
        Trainer::new(network, pretext.optimization(), objective)?.with_options(PassOptions {
            recompute: request.recompute,
            activations: request.precision,
            synchronized: synchronized(request.protocol),
            ..PassOptions::default()
        })?;
    if let Some(images) = in_parts(pretext.batch_size(), pretext.micro_batch()) {
        trainer = trainer.with_micro_batch(images);
    }
    if distributed::current().size() > 1 {
        trainer = trainer.with_group(distributed::current());
    }
    let encoder = |(encoder, _): &Network<H>, step| pack(encoder, None, &request.origin(step));
    let trained = train(
        device,
        &mut trainer,
        &plan(request),
        folder,
        encoder,
        request.profile,
    )?;
    let bytes = encoder(&trainer.module, request.steps)?;
    folder.write("encoder.safetensors", &bytes)?;
    Ok((trained, trainer.module))
}

/// Evaluates the trained network and writes the summary. `rotations` returns RotNet's accuracy and
/// the number of images that it was measured on.
fn judge<H: Module>(
    device: &Device,
    request: &PretrainingRequest,
    (trained, network): (Trained, Network<H>),
    folder: &RunFolder,
    started: Instant,
    rotations: impl FnOnce(&Network<H>, &mut Partial) -> Result<Option<(f64, usize)>>,
) -> Result<PretrainingSummary> {
    let (pretext, dataset) = (&request.pretext, &request.dataset);
    let key = || digest(&network.state());
    let (rotation, neighbours, before) = resumable((folder.path(), UNFINISHED), &key, |partial| {
        let rotation = rotations(&network, partial)?;
        if !request.knn {
            return Ok((rotation, None, None));
        }
        note!("evaluating the trained and the untrained encoder by their nearest neighbours");
        let (encoder, vote) = (&network.0, Vote::default());
        let data = (dataset, dataset.train.height);
        let trained = (&mut *partial, "trained");
        let trained = knn::neighbour_accuracy(device, encoder, data, vote, trained)?;
        let untrained = judge_untrained(device, request, partial)?;
        Ok((rotation, Some(trained), Some(untrained.top1)))
    })?;
    let summary = PretrainingSummary {
        command: pretext.command().to_string(),
        protocol: request.protocol_label(),
        data: dataset.name.clone(),
        device: device.name(),
        arch: pretext.encoder().arch.to_string(),
        width: pretext.encoder().width,
        stem: pretext.encoder().stem.to_string(),
        kept_random: request.weights().kept_random,
        seed: pretext.seed(),
        batch_size: pretext.batch_size(),
        precision: request.precision.to_string(),
        steps: request.steps,
        flops_per_step: pretext.flops_per_step(&request.dataset)?,
        chance_loss: pretext.chance_loss(),
        first_loss: trained.losses.first().copied().unwrap_or(f32::NAN),
        final_loss: trained.losses.last().copied().unwrap_or(f32::NAN),
        final_loss_mean: final_mean(&trained.losses).unwrap_or(f64::NAN),
        rotation_accuracy: rotation.map(|(accuracy, _)| accuracy),
        rotation_images: rotation.map(|(_, images)| images),
        knn_k: neighbours.as_ref().map(|n| n.k),
        knn_top1: neighbours.as_ref().map(|n| n.top1),
        knn_top1_untrained: before,
        absent_classes: match request.knn {
            true => dataset.absent_classes(),
            false => Vec::new(),
        },
        seconds: trained.seconds,
        total_seconds: started.elapsed().as_secs_f64(),
        images_per_second: trained.images_per_second(&plan(request)),
        peak_bytes: trained.peak_bytes,
        peak_bytes_total: device.memory().peak,
        parallax_version: env!("CARGO_PKG_VERSION").to_string(),
    };
    folder.write_summary(&summary)?;
    remove_checkpoints(folder)?;
    Ok(summary)
}

/// Evaluates the encoder that the training started from by its nearest neighbours.
fn judge_untrained(
    device: &Device,
    request: &PretrainingRequest,
    partial: &mut Partial,
) -> Result<knn::NeighbourAccuracy> {
    let (pretext, dataset) = (&request.pretext, &request.dataset);
    let untrained = ResNet::new(pretext.encoder(), pretext.seed(), device)?;
    if let Some(file) = &request.init {
        file.fill(&untrained, None)?;
    } else {
        features::set_running_statistics(device, &untrained, &dataset.train)?;
    }
    let (data, partial) = ((dataset, dataset.train.height), (partial, "untrained"));
    knn::neighbour_accuracy(device, &untrained, data, Vote::default(), partial)
}
