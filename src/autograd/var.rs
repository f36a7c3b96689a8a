//! Values with gradients.

use std::collections::HashMap;
use std::rc::Rc;

use super::gradients::{Completed, Gradients, accumulate};
use super::recompute::{Recompute, Saved};
use super::tape::{Input, Mode, Tape};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A tensor, with the operation that computed it if gradients flow through it. Cheap to clone.
///
/// The operations of [`crate::ops`] are methods of `Var`. They run at once, and are recorded if the
/// value is on a tape.
#[derive(Clone)]
pub struct Var {
    tensor: Tensor,
    tape: Option<Tape>,
    /// The node of the tape that computed the value, if a gradient flows through it.
    node: Option<usize>,
    /// The recomputation of the value, which operations save instead of the tensor.
    recompute: Option<Rc<Recompute>>,
}

impl From<Tensor> for Var {
    /// A value outside of any tape. Operations on it are not recorded.
    fn from(tensor: Tensor) -> Var {
        Var {
            tensor,
            tape: None,
            node: None,
            recompute: None,
        }
    }
}

impl Var {
    pub(super) fn on(tape: &Tape, tensor: Tensor, node: Option<usize>) -> Var {
        Var {
            tensor,
            tape: Some(tape.clone()),
            node,
            recompute: None,
        }
    }

    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    pub fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    pub fn device(&self) -> Device {
        self.tensor.device()
    }

    /// The tape of the value, if it is on one.
    pub fn tape(&self) -> Option<&Tape> {
        self.tape.as_ref()
    }

    /// The mode of the tape. Without a tape, it is [`Mode::Evaluation`].
    pub fn mode(&self) -> Mode {
        let tape = self.tape.as_ref();
        tape.map_or(Mode::Evaluation, |tape| tape.options().mode)
    }

    /// Whether a gradient flows back through this value.
    pub fn is_tracked(&self) -> bool {
        self.node.is_some()
    }

    /// A tensor in which the backward pass stores the gradient of this value, if a place was
    /// prepared for it ([`Tensor::in_slot`]). Operations pass it to
    /// [`Device::run_into`](crate::device::Device::run_into).
    pub(crate) fn gradient_slot(&self) -> Option<Tensor> {
        self.is_tracked().then(|| self.tensor.in_slot()).flatten()
    }

    /// The value in the form in which operations save it for the backward pass. A clone of the
    /// tensor would keep a value in memory that can be recomputed.
    pub(crate) fn saved(&self) -> Saved {
        match &self.recompute {
            Some(recompute) => Saved::Recompute(recompute.clone()),
            None => Saved::Tensor(self.tensor.clone()),
        }
    }

    /// Keeps the tensor, so that the backward pass does not recompute it.
    pub(super) fn keep(&self) {
        if let Some(recompute) = &self.recompute {
            recompute.keep(&self.tensor);
        }
    }

    /// The same value. Operations save `recompute` instead of the tensor.
    pub(crate) fn recomputed_by(self, recompute: Rc<Recompute>) -> Var {
        Var {
            recompute: Some(recompute),
            ..self
        }
    }

    /// Records the result `y` of an operation on `inputs`, which have names for error messages.
    /// Each method that is an operation calls this last. `backward` takes the gradient of `y` and
    /// computes one gradient per input. Gradients of inputs that are not tracked are dropped.
    ///
    /// `backward` must not own a [`Var`], which would keep the tape alive.
    ///
    /// # Errors
    /// `Error::Shape` if tracked inputs are on different tapes, or if `y` is not on the device of
    /// the tape; `Error::NonFinite` on a tape that checks operations. An input that is not tracked
    /// is a constant, whether it is on this tape, another one or none.
    pub fn record<const N: usize>(
        operation: &'static str,
        y: Tensor,
        inputs: [(&'static str, &Var); N],
        backward: impl FnOnce(&Device, Tensor) -> Result<[Tensor; N]> + 'static,
    ) -> Result<Var> {
        Var::record_some(operation, y, &inputs, move |device, dy| {
            Ok(backward(device, dy)?.map(Some).into())
        })
    }

    /// As [`Var::record`], for an operation that omits the gradients of inputs that are not
    /// tracked.
    ///
    /// # Errors
    /// As [`Var::record`].
    pub fn record_some(
        operation: &'static str,
        y: Tensor,
        inputs: &[(&'static str, &Var)],
        backward: impl FnOnce(&Device, Tensor) -> Result<Vec<Option<Tensor>>> + 'static,
    ) -> Result<Var> {
        // A constant may be on another tape, or on none.
        let tracked = || inputs.iter().filter(|(_, input)| input.is_tracked());
        let tape_of = |(_, input): &(&'static str, &Var)| input.tape.clone();
        let tape = tracked()
            .find_map(tape_of)
            .or_else(|| inputs.iter().find_map(tape_of));
        let Some(tape) = tape else {
            return Ok(Var::from(y));
        };
        for (name, input) in tracked() {
            if !input.tape.as_ref().is_some_and(|own| own.is_same(&tape)) {
                let message =
                    format!("{name} was recorded on another tape; use one tape per forward pass");
                return Err(Error::shape(operation, message));
            }
        }
        if !tape.device().holds(&y) {
            let message = format!(
                "the result is on {} and the tape is on {}; put values on a tape of their own device",
                y.device().name_beside(tape.device()),
                tape.device().name()
            );
            return Err(Error::shape(operation, message));
        }
        for (name, input) in inputs {
            let what = format!("input {name}");
            tape.check_finite(operation, None, &what, &input.tensor)?;
        }
        tape.check_finite(operation, None, "the result", &y)?;
        if tracked().next().is_none() {
            return Ok(Var::on(&tape, y, None));
        }
        let inputs = inputs
            .iter()
            .map(|(name, input)| Input {
                name,
                node: input.node,
                shape: input.shape().to_vec(),
                dtype: input.tensor.dtype(),
            })
            .collect();
        let node = tape.push(operation, inputs, Box::new(backward))?;
        Ok(Var::on(&tape, y, Some(node)))
    }

    /// The gradients of this value, `[1]`, with respect to all leaves, multiplied by the loss scale
    /// of the tape. A tape allows one backward pass, which frees the record.
    ///
    /// # Errors
    /// `Error::Shape` if the value does not have one element or depends on no leaf;
    /// `Error::NonFinite` on a tape that checks operations.
    pub fn backward(self) -> Result<Gradients> {
        let dy = self.scaled_one()?;
        self.backward_from(dy)
    }

    /// The gradient of a loss with respect to itself, multiplied by the loss scale of the tape.
    pub(crate) fn scaled_one(&self) -> Result<Tensor> {
        if self.tensor.len() != 1 {
            let shape = self.shape();
            let message = format!("the loss has shape {shape:?}; expected one element");
            return Err(Error::shape("backward", message));
        }
        let tape = self.tape.as_ref();
        let scale = tape.map_or(1.0, |tape| tape.options().loss_scale);
        Tensor::from_slice(&[scale], self.shape(), &self.device())
    }

    /// The gradients of `sum(self * dy)` with respect to all leaves. `dy` is the gradient of this
    /// value, and has its shape and type. Saved tensors are freed after the backward pass of their
    /// operation.
    ///
    /// # Errors
    /// As [`Var::backward`].
    pub fn backward_from(self, dy: Tensor) -> Result<Gradients> {
        self.backward_onto(dy, None, &mut |_, _| Ok(()))
    }

    /// As [`Var::backward_from`]. The gradients are added to `earlier` ones, and each sum is given to
    /// `completed` during the pass, once no operation that remains uses its leaf.
    ///
    /// # Errors
    /// As [`Var::backward`], and those of `completed`. `Error::Usage` if the loss scales differ.
    pub(crate) fn backward_onto(
        self,
        dy: Tensor,
        earlier: Option<Gradients>,
        completed: Completed<'_>,
    ) -> Result<Gradients> {
        let (Some(tape), Some(last)) = (self.tape.clone(), self.node) else {
            let message = "the loss depends on no leaf of a tape, so there is no gradient";
            return Err(Error::shape("backward", message));
        };
        dy.expect("backward", "dy", self.shape(), self.tensor.dtype())?;
        drop(self);
        let (mut nodes, leaves) = tape.spend()?;
        let device = tape.device();
        let scale = tape.options().loss_scale;
        let mut sums = earlier.unwrap_or_else(|| Gradients::new(scale));
        sums.check_scale(scale)?;
        // The first node of a leaf is the leaf.
        let leaves: HashMap<usize, _> = leaves
            .into_iter()
            .map(|(leaf, shapes)| (shapes[0].1, (leaf, shapes)))
            .collect();
        let mut slots: Vec<Option<Tensor>> = vec![None; nodes.len()];
        slots[last] = Some(dy);
        // In reverse order, every use of a result comes before the operation that computed it, and
        // every use of a leaf before the leaf, so its gradient is complete there. Dropping a node
        // frees its saved tensors.
        while let Some(node) = nodes.pop() {
            let index = nodes.len();
            let Some(dy) = slots[index].take() else {
                continue;
            };
            let Some(backward) = node.backward else {
                if let Some((leaf, shapes)) = leaves.get(&index) {
                    let all = shapes.iter().map(|(shape, _)| dy.reshape(shape));
                    let added = all.collect::<Result<Vec<_>>>()?;
                    drop(dy);
                    let sum = sums.add_leaf(device, *leaf, &added)?;
                    completed(*leaf, &sum)?;
                }
                continue;
            };
            let gradients = backward(device, dy)?;
            if gradients.len() != node.inputs.len() {
                let message = format!(
                    "its backward pass returned {} gradients for {} inputs",
                    gradients.len(),
                    node.inputs.len()
                );
                return Err(Error::shape(node.operation, message));
            }
            for (input, gradient) in node.inputs.iter().zip(gradients) {
                let Some(target) = input.node else { continue };
                let Some(gradient) = gradient else {
                    let message =
                        format!("its backward pass returned no gradient for {}", input.name);
                    return Err(Error::shape(node.operation, message));
                };
                let what = format!("the gradient of {}", input.name);
                gradient.expect(node.operation, &what, &input.shape, input.dtype)?;
                tape.check_finite(node.operation, node.layer.as_deref(), &what, &gradient)?;
                slots[target] = Some(accumulate(device, slots[target].take(), gradient)?);
            }
        }
        Ok(sums)
    }
}
