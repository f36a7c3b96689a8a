//! The experiments of the paper: the grid of jobs, the paper's numbers, and the report.

pub mod grid;
mod numbers;
pub mod report;
