//! The experiments of the paper: the grid of jobs, the paper's numbers, and the report.

pub mod grid;
pub mod numbers;
pub mod report;
