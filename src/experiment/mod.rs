//! Runs: their configuration, their folder, and what they found.

pub mod config;
pub mod progress;
pub mod run_folder;
pub mod simclr;
pub mod summary;
