//! How good an encoder is: features of a split, nearest neighbours, linear evaluation, supervised training on top of it.

pub mod classifier;
pub mod features;
pub mod knn;
pub mod linear;
pub mod metrics;
