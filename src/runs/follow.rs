//! Observes a training: evaluations at intervals, TensorBoard's files, and the page of the run.

use super::folder::{METRICS, RunFolder, StepMetrics};
use super::page;
use super::pictures::{Pictures, Views};
use super::result::ONLINE_TOP1;
use super::tensorboard::{Projection, Sprite, TensorBoard};
use super::warn;
use crate::console::note;
use crate::data::Dataset;
use crate::device::Device;
use crate::drawing::picture::Picture;
use crate::error::Result;
use crate::evaluate::online::Sample;
use crate::nn::ResNet;

/// Side in pixels of a picture of TensorBoard's images.
const SIDE: usize = 64;

/// Follows the training of a module of type `M`.
pub struct Follow<'a, M> {
    device: &'a Device,
    encoder: fn(&M) -> &ResNet,
    sample: Sample,
    views: Vec<Vec<Picture>>,
    evaluate_every: Option<u64>,
    tensorboard: bool,
    /// Opened at the first event.
    board: Option<TensorBoard>,
    last: Option<Pictures>,
}

impl<'a, M> Follow<'a, M> {
    /// Follows the encoder of a module on a sample of `dataset`.
    ///
    /// # Errors
    /// As [`Sample::new`] and [`Views::draw`].
    pub fn new(
        device: &'a Device,
        encoder: fn(&M) -> &ResNet,
        (dataset, seed): (&Dataset, u64),
        views: Views,
        tensorboard: bool,
    ) -> Result<Self> {
        let split = dataset.pretraining();
        Ok(Follow {
            device,
            encoder,
            sample: Sample::new(dataset, seed, views.side(split))?,
            views: views.draw(split, seed)?,
            evaluate_every: None,
            tensorboard,
            board: None,
            last: None,
        })
    }

    /// Evaluates the encoder after every `every` steps, if it is given.
    pub fn evaluating(self, every: Option<u64>) -> Self {
        Follow {
            evaluate_every: every,
            ..self
        }
    }

    /// Whether the encoder is evaluated after this number of steps.
    pub(super) fn is_due(&self, step: u64) -> bool {
        self.evaluate_every
            .is_some_and(|every| step.is_multiple_of(every))
    }

    /// Evaluates the encoder after `step` steps, and returns the accuracy of nearest neighbours.
    /// Nothing of the training changes.
    pub(super) fn evaluate(&mut self, module: &M, step: u64) -> Result<Option<f64>> {
        let (encoder, views) = ((self.encoder)(module), self.views.clone());
        let pictures = Pictures::new(self.device, encoder, &self.sample, views, step)?;
        let top1 = pictures.top1;
        self.last = Some(pictures);
        Ok(top1)
    }

    /// Describes an evaluation, with its protocol.
    pub(super) fn words(&self, top1: f64) -> String {
        format!(
            "k-nearest-neighbour accuracy {:.1} % (online, k = {}, {} training and {} test images)",
            100.0 * top1,
            self.sample.k(),
            self.sample.bank.len(),
            self.sample.queries.len()
        )
    }

    /// Records the metrics of a step, and the last evaluation if it is of this step.
    pub(super) fn record(&mut self, folder: &RunFolder, metrics: &StepMetrics) -> Result<()> {
        if let Some(board) = self.board(folder, metrics.step)? {
            scalars(board, metrics)?;
        }
        if self.is_evaluated(metrics.step) {
            self.show(folder)?;
            self.write_page(folder)
        } else {
            Ok(())
        }
    }

    /// Whether the last evaluation is of this step.
    fn is_evaluated(&self, step: u64) -> bool {
        self.last.as_ref().is_some_and(|last| last.step == step)
    }

    /// Records the results of a run that has ended. A failure is a warning, because the results are
    /// already written.
    pub(super) fn finish(
        &mut self,
        folder: &RunFolder,
        module: &M,
        step: u64,
        results: &[(&str, Option<f64>)],
    ) {
        let mut finish = || -> Result<()> {
            if let Some(board) = self.board(folder, step + 1)? {
                for (name, value) in results {
                    if let Some(value) = value {
                        board.scalar(name, step, *value as f32)?;
                    }
                }
            }
            if !self.is_evaluated(step) {
                if let Err(error) = self.evaluate(module, step) {
                    note!("no pictures in {}: {error}", page::PAGE);
                    return page::write(folder, Err(&error.to_string()));
                }
                self.show(folder)?;
            }
            self.write_page(folder)
        };
        if let Err(error) = finish() {
            warn(&format!(
                "the run has ended, but its page or its files for TensorBoard are not whole: {error}"
            ));
        }
    }

    /// TensorBoard's file, for events of `step` and later ones. Those of an earlier process are
    /// dropped from this step on.
    fn board(&mut self, folder: &RunFolder, step: u64) -> Result<Option<&mut TensorBoard>> {
        if !self.tensorboard || !folder.writes() {
            return Ok(None);
        }
        if self.board.is_none() {
            let is_first = !TensorBoard::is_in(folder.path());
            let mut board = TensorBoard::open(folder.path())?;
            if !is_first {
                board.resume_at(step)?;
            } else if step > 1 {
                // The option is new: the steps before are in the file of metrics.
                let text = folder.read(METRICS)?.unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let lines = text.lines().map(serde_json::from_str::<StepMetrics>);
                for metrics in lines.flatten().filter(|metrics| metrics.step < step) {
                    scalars(&mut board, &metrics)?;
                }
            }
            // A run that starts over drops them too.
            if is_first || step == 1 {
                let sheet = Picture::sheet(&self.views, SIDE, 2);
                board.image("views", step, sheet.size(), &sheet.rgb)?;
            }
            self.board = Some(board);
        }
        Ok(self.board.as_mut())
    }

    /// Writes the page with the pictures of the last evaluation.
    fn write_page(&self, folder: &RunFolder) -> Result<()> {
        match &self.last {
            Some(pictures) => page::write(folder, Ok(pictures)),
            None => Ok(()),
        }
    }

    /// Writes the pictures of the last evaluation for TensorBoard.
    fn show(&mut self, folder: &RunFolder) -> Result<()> {
        let Some(pictures) = &self.last else {
            return Ok(());
        };
        if let Some(board) = &mut self.board {
            let rows = pictures.neighbours.iter().map(|(query, found)| {
                let found = found.iter().map(|(_, shown)| &shown.picture);
                std::iter::once(&query.picture)
                    .chain(found)
                    .cloned()
                    .collect()
            });
            let sheet = Picture::sheet(&rows.collect::<Vec<_>>(), SIDE, 2);
            board.image(
                "nearest neighbours",
                pictures.step,
                sheet.size(),
                &sheet.rgb,
            )?;
            project(folder, pictures)?;
        }
        Ok(())
    }
}

/// Writes the metrics of a step to TensorBoard's file.
fn scalars(board: &mut TensorBoard, metrics: &StepMetrics) -> Result<()> {
    board.scalar("loss", metrics.step, metrics.loss)?;
    board.scalar("learning_rate", metrics.step, metrics.learning_rate)?;
    if let Some(scale) = metrics.loss_scale {
        board.scalar("loss_scale", metrics.step, scale)?;
    }
    match metrics.online_knn_top1 {
        Some(top1) => board.scalar(ONLINE_TOP1, metrics.step, top1 as f32),
        None => Ok(()),
    }
}

/// Writes the features of the test images for TensorBoard's projector.
fn project(folder: &RunFolder, pictures: &Pictures) -> Result<()> {
    let (queries, embedding) = (&pictures.queries, &pictures.embedding);
    let columns = (queries.len() as f64).sqrt().ceil() as usize;
    let pixels = queries.pixels()?;
    let all: Vec<Picture> = pixels
        .chunks_exact(queries.image_bytes())
        .map(|image| Picture::of_bytes(image, queries.height, queries.width))
        .collect();
    let rows: Vec<Vec<Picture>> = all.chunks(columns.max(1)).map(<[_]>::to_vec).collect();
    let side = queries.height.min(SIDE);
    Projection {
        name: "features",
        vectors: &embedding.queries,
        width: embedding.width,
        columns: &[("class", pictures.labels())],
        sprite: Some(Sprite {
            png: Picture::sheet(&rows, side, 0).png(),
            side,
        }),
    }
    .write(folder.path())
}
