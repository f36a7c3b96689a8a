//! The objectives SimCLR, RotNet and supervised classification, for any encoder.

pub mod classifier;
mod protocol;
pub mod rotnet;
pub mod simclr;

pub use protocol::Protocol;
