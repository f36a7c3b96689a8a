//! Runs: their configuration, folder, training, checkpoints and results.

pub mod attack;
pub mod cache;
pub mod checkpoint;
pub mod classify;
pub mod config_file;
pub mod data_cache;
pub mod folder;
pub mod follow;
pub mod image_size;
pub mod knn;
pub mod linear;
pub mod lock;
pub mod memory;
pub mod numpy;
pub mod onnx;
pub mod page;
pub mod pictures;
pub mod pretrain;
pub(crate) mod probe;
pub mod profile;
pub mod progress;
pub mod reading;
pub mod recipes;
pub mod record;
pub mod result;
pub mod safetensors_file;
pub mod settings;
pub mod spec;
pub mod state_dict;
pub mod tensorboard;
pub mod training;
pub mod tuning;
pub mod unfinished;
pub mod values;
pub mod weights_file;
pub mod whole_file;

use crate::console;

/// Prints a warning on stderr.
fn warn(message: &str) {
    console::error(format_args!(
        "parallax: warning: {}",
        message.replace('\n', " ")
    ));
}
