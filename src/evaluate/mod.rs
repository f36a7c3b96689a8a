//! How good an encoder is: features of a split, nearest neighbours, linear evaluation, supervised training on top of
//! it, attacks on it.

pub mod attack;
pub mod classifier;
pub mod features;
pub mod knn;
pub mod linear;
pub mod metrics;
pub mod partial;
pub mod rotation;
