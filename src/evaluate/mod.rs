//! Evaluation of encoders: features, nearest neighbours, linear evaluation, rotations and attacks.

pub mod attack;
pub mod features;
pub mod knn;
pub mod linear;
pub mod metrics;
pub mod partial;
pub mod pca;
pub mod rotation;
