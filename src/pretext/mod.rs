//! The self-supervised objectives.

mod protocol;
pub mod simclr;

pub use protocol::Protocol;
