//! Runs: their configuration, their folder, their training, and what they found.

pub mod adapter_cache;
pub mod attack;
pub mod classification;
pub mod config;
pub mod encoder_file;
pub mod grid;
pub mod knn;
pub mod linear;
pub mod memory;
pub mod pretraining;
mod probe;
pub mod profile;
pub mod progress;
pub mod report;
pub mod run_folder;
pub mod summary;
pub mod training;
pub mod tuning;
pub mod unfinished;

/// Says on stderr what does not stop a run.
fn warn(message: &str) {
    eprintln!("parallax: warning: {}", message.replace('\n', " "));
}
