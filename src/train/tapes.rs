//! The tapes that a step is recorded on.

use crate::autograd::Tape;
use crate::device::Device;
use crate::tensor::DType;

/// Gives the tapes of a step: those that it is trained with, or those of its replay, which check each operation.
#[derive(Clone)]
pub struct Tapes {
    device: Device,
    checked: bool,
    recompute: bool,
    activations: DType,
    loss_scale: f32,
}

impl Tapes {
    /// Tapes as training uses them.
    pub fn new(device: &Device) -> Self {
        Tapes {
            device: device.clone(),
            checked: false,
            recompute: false,
            activations: DType::F32,
            loss_scale: 1.0,
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

    /// The same tapes for a network whose activations are stored as `activations`, and gradients of `loss_scale` times
    /// the loss: see [`Tape::with_activations`] and [`Tape::scaling_loss`].
    pub fn with_activations(self, activations: DType, loss_scale: f32) -> Self {
        Tapes {
            activations,
            loss_scale,
            ..self
        }
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
            .with_activations(self.activations)
            .scaling_loss(self.loss_scale)
    }

    /// A tape for a forward pass alone. A checked one records none the less, since only then does it check; what it
    /// saved goes with it.
    pub fn forward_only(&self) -> Tape {
        let tape = match self.checked {
            true => Tape::checked(&self.device),
            false => Tape::inference(&self.device),
        };
        tape.with_activations(self.activations)
    }
}
