//! A pretraining run, SimCLR's or RotNet's, from its request to its summary.

use std::time::{Duration, Instant};

use super::folder::RunFolder;
use super::follow::Follow;
use super::image_size::check_image_size;
use super::memory::StepSize;
use super::pictures::Views;
use super::record::{DataFacts, Facts, TrainingFacts};
use super::result::{
    AccuracyProtocol, Evaluations, ONLINE_TOP1, PretrainingMetrics, RunResult, TrainingMetrics,
    chance_loss,
};
use super::settings::{
    Common, OptimizerSettings, Pretraining, RotNet as RotNetRun, SimClr as SimClrRun,
    TrainingSettings,
};
use super::spec::RunSpec;
use super::training::{Extent, Plan, Trained, divided, pass_options, train};
use super::tuning::TrainedNetwork;
use super::unfinished::{UNFINISHED, resumable};
use super::weights_file::{Origin, WeightsFile, WeightsRecord, pack};
use crate::augment::{ImageStore, RandomBlur};
use crate::console::note;
use crate::data::{Dataset, Split};
use crate::device::Device;
use crate::distributed;
use crate::error::{Error, Result};
use crate::evaluate::features;
use crate::evaluate::knn::{self, Vote};
use crate::evaluate::online::Sample;
use crate::evaluate::partial::Partial;
use crate::evaluate::rotation::rotation_accuracy;
use crate::nn::weights::digest;
use crate::nn::{Linear, Module, Normalization, Projector, ResNet, ResNetConfig};
use crate::objectives::Protocol;
use crate::objectives::rotnet::{self, ROTATIONS, RotNet, RotNetSettings, check_square};
use crate::objectives::simclr::{self, SimClr, SimClrSettings};
use crate::optim::Optimization;
use crate::train::data_parallel::at_once;
use crate::train::micro_batch::in_parts;
use crate::train::{PartialObjective, Trainer};

/// Side in pixels of SimCLR's views, if the settings give no size of the images.
pub const VIEW_SIZE: usize = 32;

/// The task of a pretraining, with the settings of the run and of its objective.
pub struct Pretext<'a> {
    pub pretraining: &'a Pretraining,
    pub training: &'a TrainingSettings,
    pub steps: u64,
    pub batch_size: usize,
    /// The network that is trained.
    pub encoder: ResNetConfig,
    optimization: Optimization,
    /// Fraction of the test images of RotNet's rotation accuracy.
    pub rotation_fraction: f64,
    pub method: Method,
}

/// The settings of an objective.
pub enum Method {
    SimClr(SimClrSettings),
    RotNet(RotNetSettings),
}

impl<'a> Pretext<'a> {
    /// The same pretraining with this normalisation of images.
    pub fn with_normalization(mut self, normalization: Normalization) -> Self {
        self.method = match self.method {
            Method::SimClr(settings) => Method::SimClr(settings.with_normalization(normalization)),
            Method::RotNet(settings) => Method::RotNet(RotNetSettings {
                normalization,
                ..settings
            }),
        };
        self
    }

    fn normalization(&self) -> Normalization {
        match &self.method {
            Method::SimClr(settings) => settings.normalization,
            Method::RotNet(settings) => settings.normalization,
        }
    }

    /// The settings of SimCLR under the run's protocol.
    ///
    /// # Errors
    /// `Error::Usage` if the network is not possible, or the batch has too few images.
    pub fn simclr(common: &Common, run: &'a SimClrRun) -> Result<Self> {
        let (pretraining, training) = (&run.pretraining, &run.training);
        let batch_size = training.batch_size;
        if batch_size < 2 {
            return Err(Error::usage(format!(
                "the batch size is {batch_size}; SimCLR contrasts images with each other, use --batch-size 2 or more"
            )));
        }
        let mut settings = SimClrSettings::of_protocol(
            common.protocol,
            pretraining.encoder.config()?,
            common.data.size.unwrap_or(VIEW_SIZE),
            batch_size,
            training.weight_decay as f32,
            common.seed,
        );
        optimize(
            &mut settings.optimization,
            &training.optimization,
            training.steps,
        )?;
        settings.optimization.learning_rate = training.learning_rate;
        settings.augmentation.blur = training.blur.then(RandomBlur::default);
        settings.micro_batch = training.every.micro_batch;
        settings.temperature = training.temperature as f32;
        let pretext = Pretext {
            pretraining,
            training: &training.every,
            steps: training.steps,
            batch_size,
            encoder: settings.encoder,
            optimization: settings.optimization,
            rotation_fraction: 1.0,
            method: Method::SimClr(settings),
        };
        let asked = pretraining.images.normalization;
        Ok(pretext.with_normalization(asked.unwrap_or_default()))
    }

    /// The settings of RotNet under the run's protocol.
    ///
    /// # Errors
    /// `Error::Usage` if the network is not possible.
    pub fn rotnet(common: &Common, run: &'a RotNetRun) -> Result<Self> {
        let (pretraining, training) = (&run.pretraining, &run.training);
        let network = pretraining.encoder.config()?;
        let mut settings = RotNetSettings::of_protocol(
            common.protocol,
            network,
            training.batch_size,
            training.weight_decay as f32,
            common.seed,
        );
        if common.protocol == Protocol::Sound {
            settings.encoder.stem = network.stem;
        }
        optimize(
            &mut settings.optimization,
            &training.optimization,
            training.steps,
        )?;
        settings.optimization.learning_rate = training.learning_rate;
        settings.micro_batch = training.every.micro_batch;
        let pretext = Pretext {
            pretraining,
            training: &training.every,
            steps: training.steps,
            batch_size: training.batch_size,
            encoder: settings.encoder,
            optimization: settings.optimization,
            rotation_fraction: training.rotation_fraction,
            method: Method::RotNet(settings),
        };
        let asked = pretraining.images.normalization;
        Ok(pretext.with_normalization(asked.unwrap_or_default()))
    }

    /// The size of a step on `dataset`.
    ///
    /// # Errors
    /// `Error::Usage` if the network is not possible.
    pub fn step_size(&self, dataset: &Dataset) -> Result<StepSize> {
        let width = self.encoder.shape()?.feature_width;
        let (images, batch_size) = (dataset.pretraining(), self.batch_size);
        let group = distributed::current();
        let (views_per_image, side, head_parameters) = match &self.method {
            Method::SimClr(settings) => {
                let parameters = Projector::parameter_count(width);
                (2, settings.augmentation.size, parameters)
            }
            Method::RotNet(_) => {
                let parameters = Linear::parameter_count(width, ROTATIONS);
                (ROTATIONS, images.height, parameters)
            }
        };
        Ok(StepSize {
            encoder: self.encoder,
            side,
            views_per_image,
            batch_size,
            micro_batch: at_once(batch_size, self.training.micro_batch, group),
            recompute: self.training.recompute,
            activations: self.training.precision,
            optimizer: self.optimization.optimizer,
            head_parameters,
            image_bytes: ImageStore::bytes_held(images, batch_size),
        })
    }

    /// The shapes of a step on `dataset`.
    ///
    /// # Errors
    /// As [`Pretext::step_size`].
    pub fn trained_network(&self, dataset: &Dataset) -> Result<TrainedNetwork> {
        let step = self.step_size(dataset)?;
        let width = step.encoder.shape()?.feature_width;
        let images = in_parts(step.batch_size, step.micro_batch).unwrap_or(step.batch_size);
        let (layers, passes) = match &self.method {
            Method::SimClr(settings) => (
                Projector::layers(width).to_vec(),
                if settings.separate_passes { 1 } else { 2 },
            ),
            Method::RotNet(_) => (vec![[width, ROTATIONS]], ROTATIONS),
        };
        Ok(TrainedNetwork {
            encoder: step.encoder,
            side: step.side,
            layers,
            activations: step.activations,
            rounds_factors: self.training.rounds_factors(),
            images: passes * images,
        })
    }

    /// Fails if the images of `dataset`, or the views of them, do not fit the task.
    ///
    /// # Errors
    /// `Error::Usage` for RotNet on images that are not square; `Error::Data` for images that are
    /// too small.
    pub fn check_images(&self, command: &str, dataset: &Dataset) -> Result<()> {
        let split = dataset.pretraining();
        let (size, padding) = match &self.method {
            Method::SimClr(settings) => ([settings.augmentation.size; 2], 0),
            Method::RotNet(settings) => {
                check_square(split)?;
                let padding = settings.augmentation.padding as usize;
                ([split.width, split.height], padding)
            }
        };
        check_image_size(command, size, &self.encoder, padding)
    }

    /// Fails if the batch cannot be split into chunks of `--micro-batch` images.
    ///
    /// # Errors
    /// As [`crate::train::micro_batch::check`].
    pub fn check_micro_batch(&self, dataset: &Dataset) -> Result<()> {
        match &self.method {
            Method::SimClr(settings) => settings.check_micro_batch(),
            Method::RotNet(settings) => settings.check_micro_batch(dataset.pretraining().height),
        }
    }

    /// Floating-point operations of a training step: three times the encoder's forward pass over
    /// every view.
    fn flops_per_step(&self, dataset: &Dataset) -> Result<u64> {
        let step = self.step_size(dataset)?;
        let views = (step.views_per_image * step.batch_size) as u64;
        Ok(3 * views * step.encoder.shape()?.flops(step.side)?)
    }

    /// The views that the network is trained on.
    pub fn views(&self) -> Views {
        match &self.method {
            Method::SimClr(settings) => Views::SimClr(settings.augmentation),
            Method::RotNet(settings) => Views::RotNet(settings.augmentation),
        }
    }

    /// The chance level of the loss.
    fn chance_loss(&self) -> f64 {
        match &self.method {
            Method::SimClr(settings) => chance_loss(settings.batch_size),
            Method::RotNet(_) => (ROTATIONS as f64).ln(),
        }
    }
}

/// Replaces the protocol's optimiser and schedule by the requested ones.
fn optimize(optimization: &mut Optimization, asked: &OptimizerSettings, steps: u64) -> Result<()> {
    optimization.optimizer = asked.rule(optimization.optimizer);
    optimization.schedule = asked.schedule(optimization.schedule, steps)?;
    Ok(())
}

/// A pretraining whose files were read and checked.
pub struct PretrainingRequest<'a> {
    pub spec: &'a RunSpec,
    pub pretext: Pretext<'a>,
    /// The weights to start from.
    pub init: Option<WeightsFile>,
    /// Whether the trained and the untrained encoder are evaluated by their nearest neighbours at
    /// the end.
    pub knn: bool,
    /// Measurements that the data does not allow.
    pub left_out: Vec<String>,
    /// The images on which RotNet's accuracy is measured; `None` means all test images.
    pub rotation_test: Option<Split>,
    pub dataset: Dataset,
    /// Which parts of the run are executed.
    pub extent: Extent,
}

impl PretrainingRequest<'_> {
    /// The name of the protocol in results.
    fn protocol_label(&self) -> String {
        match (self.spec.common.protocol, &self.init) {
            (Protocol::Paper, None) => "paper protocol, random start".to_string(),
            (protocol, _) => protocol.to_string(),
        }
    }

    /// Which tensors of the initial weights were used, converted or left out.
    fn weights(&self) -> WeightsRecord {
        let file = self.init.as_ref();
        file.map(WeightsFile::record).unwrap_or_default()
    }

    fn origin(&self, step: u64) -> Origin {
        let (encoder, command) = (self.pretext.encoder, self.spec.command());
        let data = self.dataset.name.clone();
        Origin {
            seed: self.spec.common.seed,
            step,
            batch_size: self.pretext.batch_size,
            normalization: self.pretext.normalization(),
            ..Origin::new(encoder, command, self.protocol_label(), data)
        }
    }

    /// The evaluations and pages of the training.
    fn follow<'d, H>(&self, device: &'d Device) -> Result<Follow<'d, Network<H>>> {
        let (pretext, seed) = (&self.pretext, self.spec.common.seed);
        let tensorboard = pretext.training.tensorboard;
        let (images, views) = ((&self.dataset, seed), pretext.views());
        let follow = Follow::new(
            device,
            |network: &Network<H>| &network.0,
            images,
            views,
            tensorboard,
        )?;
        Ok(follow.evaluating(pretext.pretraining.evaluate_every))
    }

    /// The protocol of the evaluations during the training, if there are any: those that are asked
    /// for, or, of a resumed run, an accuracy that was `measured` before.
    fn online_protocol(&self, measured: Option<f64>) -> Result<Evaluations> {
        let (pretext, seed) = (&self.pretext, self.spec.common.seed);
        if pretext.pretraining.evaluate_every.is_none() && measured.is_none() {
            return Ok(Evaluations::new());
        }
        let side = pretext.views().side(self.dataset.pretraining());
        let sample = Sample::new(&self.dataset, seed, side)?;
        let protocol = AccuracyProtocol::online(&sample, pretext.normalization());
        Ok(Evaluations::from([(ONLINE_TOP1.to_string(), protocol)]))
    }

    fn facts(&self, device: &Device) -> Result<Facts> {
        let Self {
            pretext, dataset, ..
        } = self;
        let mut training =
            TrainingFacts::new(pretext.batch_size, pretext.steps, &pretext.optimization);
        let augmentation = match &pretext.method {
            Method::SimClr(settings) => {
                training.separate_passes = Some(settings.separate_passes);
                (&settings.augmentation).into()
            }
            Method::RotNet(settings) => {
                let rotated = self.rotation_test.as_ref().unwrap_or(&dataset.test).len();
                training.rotation_images = Some(rotated).filter(|&images| images > 0);
                (&settings.augmentation).into()
            }
        };
        let random = Facts::new(device, dataset, pretext.encoder);
        let init = self.init.as_ref();
        Ok(Facts {
            init: init.map_or(random.init, |file| file.path().display().to_string()),
            weights: self.weights(),
            training: Some(training),
            data: DataFacts {
                left_out: self.left_out.clone(),
                ..random.data
            },
            augmentation: Some(augmentation),
            evaluations: self.online_protocol(None)?,
            ..random
        })
    }
}

/// Pretrains, evaluates, and writes all results into `folder`. An interrupted run is resumed from
/// its checkpoint. If the run has ended, its summary is read instead. Without an
/// evaluation, there is no summary.
///
/// # Errors
/// `Error::Stopped` if a stop is requested; otherwise those of the parts: a batch that does not fit
/// the data, a loss that is not finite, a file that cannot be written.
pub fn run(
    device: &Device,
    request: &PretrainingRequest<'_>,
    mut folder: RunFolder,
) -> Result<Option<RunResult<PretrainingMetrics>>> {
    let started = Instant::now();
    folder.write_config(&request.facts(device)?.to_toml(request.spec)?)?;
    if let Some(summary) = folder.summary()? {
        return Ok(Some(summary));
    }
    let split = request.dataset.pretraining();
    match &request.pretext.method {
        Method::SimClr(settings) => {
            let objective = SimClr::new(settings.clone(), split, device)?;
            let start = (simclr::network(settings, device)?, objective);
            train_and_evaluate(device, request, start, &mut folder, started, |_, _| {
                Ok(None)
            })
        }
        Method::RotNet(settings) => {
            let objective = RotNet::new(settings.clone(), split, device)?;
            let start = (rotnet::network(settings, device)?, objective);
            let rotations = |network: &Network<Linear>, partial: &mut Partial| {
                let told = request.rotation_test.as_ref();
                let told = told.unwrap_or(&request.dataset.test);
                if told.is_empty() {
                    return Ok(None);
                }
                let found = partial.entry("rotations".to_string()).or_default();
                let accuracy = rotation_accuracy(device, network, told, found)?;
                Ok(Some((accuracy, told.len())))
            };
            train_and_evaluate(device, request, start, &mut folder, started, rotations)
        }
    }
}

/// Trains a network on its objective, and evaluates it as [`evaluate`] does.
fn train_and_evaluate<H: Module, O: PartialObjective<Network<H>>>(
    device: &Device,
    request: &PretrainingRequest<'_>,
    start: (Network<H>, O),
    folder: &mut RunFolder,
    started: Instant,
    rotations: impl FnOnce(&Network<H>, &mut Partial) -> Result<Option<(f64, usize)>>,
) -> Result<Option<RunResult<PretrainingMetrics>>> {
    let mut follow = request.follow(device)?;
    let (trained, network) = pretrain(device, request, start, &mut follow, folder)?;
    if let Extent::Steps(_) = request.extent {
        return Ok(None);
    }
    let trained = (trained, &network);
    let summary = evaluate(device, request, trained, folder, started, rotations)?;
    let results = [
        ("knn_top1", summary.metrics.knn_top1),
        ("knn_top1_untrained", summary.metrics.knn_top1_untrained),
        ("rotation_accuracy", summary.metrics.rotation_accuracy),
    ];
    if request.extent == Extent::Whole {
        follow.finish(folder, &network, request.pretext.steps, &results);
    }
    Ok(Some(summary))
}

fn plan(request: &PretrainingRequest<'_>) -> Plan {
    let training = request.pretext.training;
    Plan {
        steps: request.extent.steps(request.pretext.steps),
        images_per_step: request.pretext.batch_size,
        chance_loss: request.pretext.chance_loss(),
        save_every: training.save_every,
        keep_checkpoints: training.keep_checkpoints,
        stop_when_flat: None,
        checkpoint_every: Duration::from_secs(training.checkpoint_every),
    }
}

/// An encoder with the head of its pretraining.
type Network<H> = (ResNet, H);

fn pretrain<H: Module, O: PartialObjective<Network<H>>>(
    device: &Device,
    request: &PretrainingRequest<'_>,
    (network, objective): (Network<H>, O),
    follow: &mut Follow<'_, Network<H>>,
    folder: &mut RunFolder,
) -> Result<(Trained, Network<H>)> {
    if let Some(file) = &request.init {
        file.fill(&network.0, None)?;
    }
    let (pretext, training) = (&request.pretext, request.pretext.training);
    let options = pass_options(request.spec.common.protocol, training);
    let trainer = Trainer::new(network, pretext.optimization, objective)?.with_options(options)?;
    let mut trainer = divided(trainer, pretext.batch_size, training.micro_batch);
    let encoder = |(encoder, _): &Network<H>, step| pack(encoder, None, &request.origin(step));
    let trained = train(
        device,
        &mut trainer,
        &plan(request),
        folder,
        encoder,
        follow,
        training.profile,
    )?;
    let bytes = encoder(&trainer.module, plan(request).steps)?;
    folder.write("encoder.safetensors", &bytes)?;
    Ok((trained, trainer.module))
}

/// Evaluates the trained network and writes the summary. `rotations` returns RotNet's accuracy and
/// the number of images that it was measured on.
fn evaluate<H: Module>(
    device: &Device,
    request: &PretrainingRequest<'_>,
    (trained, network): (Trained, &Network<H>),
    folder: &RunFolder,
    started: Instant,
    rotations: impl FnOnce(&Network<H>, &mut Partial) -> Result<Option<(f64, usize)>>,
) -> Result<RunResult<PretrainingMetrics>> {
    let (pretext, dataset) = (&request.pretext, &request.dataset);
    let key = || digest(&network.state());
    let (rotation, neighbours, before) = resumable((folder.path(), UNFINISHED), &key, |partial| {
        let rotation = rotations(network, partial)?;
        if !request.knn {
            return Ok((rotation, None, None));
        }
        note!("evaluating the trained and the untrained encoder by their nearest neighbours");
        let (encoder, vote) = (&network.0, Vote::default());
        let data = (dataset, dataset.train.height);
        let trained = (&mut *partial, "trained");
        let trained = knn::neighbour_accuracy(device, encoder, data, vote, trained)?;
        let untrained = evaluate_untrained(device, request, partial)?;
        Ok((rotation, Some(trained), Some(untrained.top1)))
    })?;
    let normalization = pretext.normalization();
    let mut evaluations = Vec::new();
    if let Some(found) = &neighbours {
        let vote = (found.k, knn::TEMPERATURE);
        let side = dataset.train.height;
        let protocol = AccuracyProtocol::neighbours(dataset, vote, side, normalization);
        evaluations.push(("knn_top1", protocol.clone()));
        evaluations.push(("knn_top1_untrained", protocol));
    }
    if let Some((_, images)) = rotation {
        let protocol = AccuracyProtocol::offline("rotations", dataset.test.height, normalization);
        evaluations.push(("rotation_accuracy", protocol.on(None, images)));
    }
    let precision = pretext.training.precision_label();
    let metrics = PretrainingMetrics {
        stem: pretext.encoder.stem.to_string(),
        flops_per_step: pretext.flops_per_step(&request.dataset)?,
        training: TrainingMetrics::new(&plan(request), &trained, precision),
        rotation_accuracy: rotation.map(|(accuracy, _)| accuracy),
        rotation_images: rotation.map(|(_, images)| images),
        knn_k: neighbours.as_ref().map(|n| n.k),
        knn_top1: neighbours.as_ref().map(|n| n.top1),
        knn_top1_untrained: before,
        online_knn_top1: trained.online_top1,
        absent_classes: if request.knn {
            dataset.absent_classes()
        } else {
            Vec::new()
        },
        peak_bytes_total: device.memory().peak,
    };
    let facts = Facts {
        evaluations: request.online_protocol(trained.online_top1)?,
        ..request.facts(device)?
    };
    let summary = RunResult {
        protocol: request.protocol_label(),
        ..RunResult::new(request.spec, facts, started, evaluations, metrics)
    };
    folder.write_summary(&summary)?;
    request.extent.remove_checkpoints(folder)?;
    Ok(summary)
}

/// Evaluates the encoder that the training started from by its nearest neighbours.
fn evaluate_untrained(
    device: &Device,
    request: &PretrainingRequest<'_>,
    partial: &mut Partial,
) -> Result<knn::NeighbourAccuracy> {
    let (pretext, dataset) = (&request.pretext, &request.dataset);
    let normalization = pretext.normalization();
    let seed = request.spec.common.seed;
    let untrained = ResNet::new(&pretext.encoder, seed, device)?.with_normalization(normalization);
    if let Some(file) = &request.init {
        file.fill(&untrained, None)?;
    } else {
        features::set_running_statistics(device, &untrained, &dataset.train)?;
    }
    let (data, partial) = ((dataset, dataset.train.height), (partial, "untrained"));
    knn::neighbour_accuracy(device, &untrained, data, Vote::default(), partial)
}
