//! `config.toml`: everything that a run was told or resolved.

use serde::Serialize;

/// The configuration of a SimCLR run.
#[derive(Clone, Debug, Serialize)]
pub struct SimClrConfig {
    pub command: String,
    pub protocol: String,
    /// `random`, or the file that the weights came from.
    pub init: String,
    pub seed: u64,
    pub device: String,
    pub arch: String,
    pub width: f64,
    pub stem_padding: usize,
    pub separate_passes: bool,
    pub batch_size: usize,
    pub steps: u64,
    pub learning_rate: f64,
    /// `constant`, or `step`: a tenth every 1,000 steps.
    pub schedule: String,
    pub weight_decay: f64,
    pub temperature: f64,
    pub data: DataConfig,
    pub augmentation: AugmentationConfig,
    pub versions: Versions,
}

/// What was trained on.
#[derive(Clone, Debug, Serialize)]
pub struct DataConfig {
    pub name: String,
    /// SHA-256 over all pixels and labels.
    pub digest: String,
    pub pretraining_images: usize,
    pub train_images: usize,
    pub test_images: usize,
}

/// How views are made.
#[derive(Clone, Debug, Serialize)]
pub struct AugmentationConfig {
    pub size: usize,
    pub jitter: [f32; 4],
    pub jitter_probability: f32,
    pub grayscale_probability: f32,
    pub flip_probability: f32,
    pub normalized: bool,
    pub one_draw_per_batch: bool,
}

/// What computed it.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    pub parallax: String,
    pub wgpu: String,
    pub os: String,
    pub processor: String,
    pub threads: usize,
}

impl Versions {
    /// Those of this process.
    pub fn current() -> Self {
        Versions {
            parallax: env!("CARGO_PKG_VERSION").to_string(),
            wgpu: env!("PARALLAX_WGPU_VERSION").to_string(),
            os: std::env::consts::OS.to_string(),
            processor: std::env::consts::ARCH.to_string(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}
