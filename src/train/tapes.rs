//! The tapes that a step is recorded on.

use crate::autograd::Tape;
use crate::device::Device;

/// Gives the tapes of a step: those that it is trained with, or those of its replay, which check each operation.
#[derive(Clone)]
pub struct Tapes {
    device: Device,
    checked: bool,
    recompute: bool,
}

impl Tapes {
    /// Tapes as training uses them.
    pub fn new(device: &Device) -> Self {
        Tapes {
            device: device.clone(),
            checked: false,
            recompute: false,
        }
    }

    /// Tapes that wait for each operation and fail where its result is not finite: see [`Tape::checked`].
    pub fn checked(device: &Device) -> Self {
        Tapes {
            checked: true,
            ..Tapes::new(device)
        }
    }

    /// The same tapes, on which a network's blocks are computed again on the way back where `recompute` says so: see
    /// [`Tape::recomputing`].
    pub fn recomputing(self, recompute: bool) -> Self {
        Tapes { recompute, ..self }
    }

    /// The device of every tape.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A tape that records, so that a backward pass can follow.
    pub fn recording(&self) -> Tape {
        let tape = match self.checked {
            true => Tape::checked(&self.device),
            false => Tape::new(&self.device),
        };
        tape.recomputing(self.recompute)
    }

    /// A tape for a forward pass alone. A checked one records none the less, since only then does it check; what it saved
    /// goes with it.
    pub fn forward_only(&self) -> Tape {
        match self.checked {
            true => Tape::checked(&self.device),
            false => Tape::inference(&self.device),
        }
    }
}
