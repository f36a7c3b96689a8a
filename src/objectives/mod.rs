//! The self-supervised objectives.

mod protocol;
pub mod rotnet;
pub mod simclr;

pub use protocol::Protocol;
