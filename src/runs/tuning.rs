//! Which variants of products and convolutions a training runs on a GPU: those of the table that
//! ships, those of a tuning, or those that the run began with.

use std::path::PathBuf;
use std::time::Instant;

use indicatif::ProgressBar;

use super::cache;
use super::folder::RunFolder;
use super::progress;
use super::record::variants_of;
use super::warn;
use crate::console::note;
use crate::device::gpu::variants::{LARGEST_CLASS, Operation, Variant, VariantTable};
use crate::device::{Device, Gpu};
use crate::error::Result;
use crate::nn::ResNetConfig;
use crate::ops::conv2d::ConvGeometry;
use crate::ops::tuning::Problem;
use crate::tensor::DType;

/// When a training measures variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Never,
    /// On an adapter for which no table ships.
    WhereNoTableShips,
    Always,
}

/// The shapes of a training.
pub struct TrainedNetwork {
    pub encoder: ResNetConfig,
    /// Side of the images in pixels.
    pub side: usize,
    /// Inputs and outputs of each linear layer on top.
    pub layers: Vec<[usize; 2]>,
    /// The type of activations, and whether products of f32 round their factors to f16. Variants of
    /// f16 factors are measured apart from those of f32.
    pub activations: DType,
    pub rounds_factors: bool,
    /// Images or views per pass.
    pub images: usize,
}

impl TrainedNetwork {
    /// Every product and convolution of a step, forward and back.
    ///
    /// # Errors
    /// As [`crate::nn::ResNetShape::geometries`].
    pub fn problems(&self) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        let geometries = self.encoder.shape()?.geometries(self.side)?;
        for (number, g) in geometries.into_iter().enumerate() {
            let g = ConvGeometry {
                n: self.images.max(1),
                ..g
            };
            problems.push(Problem::Conv2d(g));
            // The gradient of the images is not needed.
            if number > 0 {
                problems.push(Problem::Conv2dDx(g));
            }
            problems.push(Problem::Conv2dDw(g));
        }
        for &[inputs, outputs] in &self.layers {
            let [n, i, o] = [self.images, inputs, outputs].map(|size| size.min(LARGEST_CLASS));
            problems.push(Problem::Linear([n, o, i]));
            for (transpose_a, sizes) in [(false, [n, i, o]), (true, [o, i, n])] {
                problems.push(Problem::Gemm { transpose_a, sizes });
            }
        }
        Ok(problems)
    }
}

/// Selects the table of `gpu` for a training of `network`, and measures missing shapes as `when`
/// requires.
///
/// # Errors
/// As the tuning. A table that cannot be read or stored is a warning.
pub fn prepare(gpu: &Gpu, when: When, network: &TrainedNetwork) -> Result<()> {
    let table = gpu.variants();
    let ships = VariantTable::ships_for(&table.key.adapter);
    if when == When::Never || (when == When::WhereNoTableShips && ships) {
        gpu.use_variants(VariantTable {
            rejected: cache::rejected(&table.key),
            ..gpu.shipped_variants()
        });
        return Ok(());
    }
    let stored = cache::read_table(&table.key);
    let known = stored.as_ref().map_or(0, |table| table.classes.len());
    if let Some(stored) = stored {
        gpu.use_variants(stored);
    }
    let problems = network.problems()?;
    let started = Instant::now();
    let progress = Progress::new();
    let device = Device::from(gpu.clone());
    device.round_factors(network.rounds_factors);
    let tuned = gpu.tune(&problems, network.activations, &mut |done, all, class| {
        progress.at(done, all, &class.to_string());
    });
    device.round_factors(false);
    progress.finish();
    let mut tuned = tuned?;
    for rejected in &tuned.rejected {
        warn(&format!(
            "never picked, since its results are wrong here: {rejected}"
        ));
    }
    let measured = tuned.table.classes.len() - known;
    tuned.table.source = "tuned on this adapter".to_string();
    if measured > 0 {
        match cache::write_table(&tuned.table) {
            Ok(path) => note!(
                "tuned   {measured} shapes in {:.1} s, kept in {}",
                started.elapsed().as_secs_f64(),
                path.display()
            ),
            Err(error) => warn(&format!("the tuning is not kept: {error}")),
        }
    }
    gpu.use_variants(tuned.table);
    Ok(())
}

/// Selects the table that an earlier tuning stored, for a command that measures nothing. An adapter
/// with a shipped table keeps that table, without the variants that a self-test rejected.
pub fn use_stored(gpu: &Gpu) {
    let mut table = gpu.variants();
    if VariantTable::ships_for(&table.key.adapter) {
        table.rejected = cache::rejected(&table.key);
        gpu.use_variants(table);
    } else if let Some(stored) = cache::read_table(&table.key) {
        gpu.use_variants(stored);
    }
}

/// Stores that these variants compute wrong results on `gpu`, so that no later command selects
/// them. Returns the file.
///
/// # Errors
/// As [`cache::write_table`].
pub fn reject(gpu: &Gpu, variants: &[(Operation, Variant)]) -> Result<PathBuf> {
    let mut table = gpu.variants();
    table = cache::read_table(&table.key).unwrap_or(table);
    table.reject(variants.iter().copied());
    cache::write_table(&table)
}

/// Selects the table that the run in `folder` began with, so that it ends with the same bits.
///
/// # Errors
/// As reading the run's configuration.
pub fn resume(gpu: &Gpu, folder: &RunFolder) -> Result<()> {
    let now = gpu.variants().key;
    let Some(mut table) = variants_of(folder)? else {
        warn(
            "the run's configuration has no table of variants; the one that ships is used, and bits may differ",
        );
        return Ok(());
    };
    let rejected = cache::rejected(&now);
    if rejected != table.rejected {
        warn(
            "a self-test has rejected kernel variants since the run began, and they are not used; bits may differ from here on",
        );
        table.rejected = rejected;
    }
    if let Some(difference) = table.key.difference(&now) {
        warn(&format!(
            "the run began under other conditions, so that its bits may differ from here on: {difference}"
        ));
    }
    gpu.use_variants(table);
    Ok(())
}

/// The progress of a tuning: a bar on a terminal, otherwise a line at the start.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new() -> Self {
        Progress(progress::bar("{bar:30} tuning {pos}/{len}  {msg}", 1))
    }

    fn at(&self, done: usize, all: usize, class: &str) {
        match &self.0 {
            Some(bar) => {
                bar.set_length(all as u64);
                bar.set_position(done as u64);
                bar.set_message(class.to_string());
            }
            None if done == 0 => note!(
                "tuning  the kernels for {all} shapes, once for this adapter; --no-tune leaves it out"
            ),
            None => {}
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
