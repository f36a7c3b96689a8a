//! How good an encoder is: features of a split, nearest neighbours, linear evaluation, attacks.

pub mod attack;
pub mod features;
pub mod knn;
pub mod linear;
pub mod metrics;
pub mod partial;
pub mod rotation;
