//! The tape: operations in the order in which they ran, walked backwards for gradients.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::saved::{Again, Saved};
use crate::device::{Device, read_u32, upload_f32};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Which operation of which tape made a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NodeId {
    tape: u64,
    index: usize,
}

/// A tensor and, if gradients flow through it, the operation that made it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Var {
    tensor: Tensor,
    node: Option<NodeId>,
    /// How operations that save this value get it without keeping it.
    again: Option<Rc<Again>>,
}

impl Var {
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    pub fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    /// The value as an operation keeps it for its backward pass.
    pub(super) fn saved(&self) -> Saved {
        match &self.again {
            Some(again) => Saved::Again(again.clone()),
            None => Saved::Tensor(self.tensor.clone()),
        }
    }

    /// Keeps the value for operations that would compute it again.
    pub(super) fn keep(&self) {
        if let Some(again) = &self.again {
            again.keep(&self.tensor);
        }
    }

    /// The same value, which operations that save it compute again by `again`.
    pub(super) fn computed_again_by(self, again: Rc<Again>) -> Var {
        Var {
            again: Some(again),
            ..self
        }
    }

    /// Whether a gradient flows back through this value.
    pub fn is_tracked(&self) -> bool {
        self.node.is_some()
    }
}

/// How an operation goes back: from the gradient of its result to one gradient for each input, in their order; `None`
/// for an input that is not tracked. It owns what the operation saved and the gradient, and runs once.
pub type Backward = Box<dyn FnOnce(&Device, Tensor) -> Result<Vec<Option<Tensor>>>>;

/// An input: its name in the operation, and the node that made it if it is tracked.
struct Input {
    name: &'static str,
    node: Option<usize>,
    shape: Vec<usize>,
    dtype: DType,
}

struct Node {
    operation: &'static str,
    /// The layer that was entered last, for messages of a checked tape.
    layer: Option<Rc<str>>,
    inputs: Vec<Input>,
    /// `None` for a leaf.
    backward: Option<Backward>,
}

/// What tells a leaf from others: its tensor and the shape under which it is used.
type LeafKey = (u64, Vec<usize>);

fn leaf_key(tensor: &Tensor) -> LeafKey {
    (tensor.id(), tensor.shape().to_vec())
}

#[derive(Default)]
struct Record {
    nodes: Vec<Node>,
    leaves: HashMap<LeafKey, usize>,
    layer: Option<Rc<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recording {
    Nothing,
    Operations,
    /// Operations on the way of [`Tape::input`] alone: leaves are constants.
    OfInput,
    /// Operations, and each one's results are checked for values that are not finite.
    Checked,
}

/// Records the operations of one forward pass, and goes back through them once.
///
/// ```
/// # use parallax::{autograd, autograd::Tape, device::{Device, cpu::CpuDevice, read_f32, upload_f32}};
/// # fn main() -> parallax::Result<()> {
/// let device: Device = std::sync::Arc::new(CpuDevice::new());
/// let parameter = upload_f32(&device, &[1.0, -2.0], &[2])?;
/// let tape = Tape::new(&device);
/// let x = tape.leaf(&parameter);
/// let loss = autograd::sum(&tape, &autograd::scale(&tape, 3.0, &x)?)?;
/// let gradients = tape.backward(&loss)?;
/// let dx = gradients.of(&parameter).expect("the loss depends on it");
/// assert_eq!(read_f32(&device, dx)?, [3.0, 3.0]);
/// # Ok(())
/// # }
/// ```
pub struct Tape {
    id: u64,
    device: Device,
    recording: Recording,
    recomputes: bool,
    activations: DType,
    loss_scale: f32,
    record: RefCell<Record>,
}

impl Tape {
    /// A tape that records, so that [`Tape::backward`] can follow.
    pub fn new(device: &Device) -> Self {
        Tape::with(device, Recording::Operations)
    }

    /// The same tape; where `recomputes` says so, networks save the inputs of their blocks alone on it and compute the
    /// rest once more on the way back ([`super::checkpoint`]): the same bits, with less memory and another forward
    /// pass.
    pub fn recomputing(self, recomputes: bool) -> Self {
        Tape { recomputes, ..self }
    }

    /// The same tape; networks store their activations, and the gradients of these, as `activations` on it: f32 or f16.
    pub fn with_activations(self, activations: DType) -> Self {
        Tape {
            activations,
            ..self
        }
    }

    /// The same tape, whose [`Tape::backward`] gives the gradients of `loss_scale` times the loss: what f16 gradients
    /// of activations need, which would round to zero where they are small.
    pub fn scaling_loss(self, loss_scale: f32) -> Self {
        Tape { loss_scale, ..self }
    }

    /// A tape that records nothing: operations compute their result and save nothing, and there is no backward pass.
    pub fn inference(device: &Device) -> Self {
        Tape::with(device, Recording::Nothing)
    }

    /// A tape that records what depends on a [`Tape::input`] alone: leaves are constants, so that no gradient of a
    /// parameter is computed.
    pub fn of_input(device: &Device) -> Self {
        Tape::with(device, Recording::OfInput)
    }

    /// A tape that records, and after each operation, forward and backward, waits for its result and fails with
    /// `Error::NonFinite` if it holds NaN or an infinity. Slow: made to replay a step that went wrong.
    pub fn checked(device: &Device) -> Self {
        Tape::with(device, Recording::Checked)
    }

    fn with(device: &Device, recording: Recording) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Tape {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            device: device.clone(),
            recording,
            recomputes: false,
            activations: DType::F32,
            loss_scale: 1.0,
            record: RefCell::default(),
        }
    }

    /// The device on which operations of this tape run.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A value whose gradient is wanted. The same tensor asked for twice is the same leaf, so that two forward passes
    /// with the same parameters add up their gradients.
    pub fn leaf(&self, tensor: &Tensor) -> Var {
        match self.tracks_leaves() {
            true => self.tracked(tensor),
            false => self.constant(tensor),
        }
    }

    /// Whether [`Tape::leaf`] gives values whose gradient is computed.
    pub fn tracks_leaves(&self) -> bool {
        matches!(self.recording, Recording::Operations | Recording::Checked)
    }

    /// Whether it is a tape of [`Tape::checked`].
    pub(super) fn is_checked(&self) -> bool {
        self.recording == Recording::Checked
    }

    /// Whether blocks are computed again: see [`Tape::recomputing`].
    pub fn recomputes(&self) -> bool {
        self.recomputes
    }

    /// How networks store their activations: see [`Tape::with_activations`].
    pub fn activations(&self) -> DType {
        self.activations
    }

    /// An input, such as images, whose gradient is wanted: like a leaf, and on a tape of [`Tape::of_input`] the only
    /// one.
    pub fn input(&self, tensor: &Tensor) -> Var {
        match self.recording {
            Recording::Nothing => self.constant(tensor),
            _ => self.tracked(tensor),
        }
    }

    fn tracked(&self, tensor: &Tensor) -> Var {
        let mut record = self.record.borrow_mut();
        let Record { nodes, leaves, .. } = &mut *record;
        let index = *leaves.entry(leaf_key(tensor)).or_insert_with(|| {
            nodes.push(Node {
                operation: "leaf",
                layer: None,
                inputs: Vec::new(),
                backward: None,
            });
            nodes.len() - 1
        });
        Var {
            tensor: tensor.clone(),
            node: Some(NodeId {
                tape: self.id,
                index,
            }),
            again: None,
        }
    }

    /// A value through which no gradient flows.
    pub fn constant(&self, tensor: &Tensor) -> Var {
        Var {
            tensor: tensor.clone(),
            node: None,
            again: None,
        }
    }

    /// Says that the operations that follow belong to the layer of this name, for messages of a checked tape.
    pub fn enter_layer(&self, name: &str) {
        if self.recording == Recording::Checked {
            self.record.borrow_mut().layer = Some(name.into());
        }
    }

    /// Records that `operation` made `y` from `inputs`, given with their names: what every operation calls last. If no
    /// input is tracked, `backward` is dropped with all that it saved.
    ///
    /// # Errors
    /// `Error::Shape` where an input belongs to another tape; `Error::NonFinite` on a checked tape.
    pub fn record(
        &self,
        operation: &'static str,
        y: Tensor,
        inputs: &[(&'static str, &Var)],
        backward: impl FnOnce(&Device, &Tensor) -> Result<Vec<Option<Tensor>>> + 'static,
    ) -> Result<Var> {
        self.record_owning(operation, y, inputs, move |device, dy| {
            backward(device, &dy)
        })
    }

    /// As [`Tape::record`], for an operation that frees the gradient of its result before it is done.
    ///
    /// # Errors
    /// As [`Tape::record`].
    pub(super) fn record_owning(
        &self,
        operation: &'static str,
        y: Tensor,
        inputs: &[(&'static str, &Var)],
        backward: impl FnOnce(&Device, Tensor) -> Result<Vec<Option<Tensor>>> + 'static,
    ) -> Result<Var> {
        for (name, input) in inputs {
            if input.node.is_some_and(|node| node.tape != self.id) {
                return Err(Error::shape(
                    operation,
                    format!("{name} was recorded on another tape; use one tape for a forward pass"),
                ));
            }
        }
        if self.recording == Recording::Checked {
            let layer = self.record.borrow().layer.clone();
            for (name, input) in inputs {
                let what = format!("input {name}");
                self.check(operation, &layer, &what, &input.tensor)?;
            }
            self.check(operation, &layer, "the result", &y)?;
        }
        if inputs.iter().all(|(_, input)| input.node.is_none()) {
            return Ok(self.constant(&y));
        }
        let mut record = self.record.borrow_mut();
        let node = Node {
            operation,
            layer: record.layer.clone(),
            inputs: inputs
                .iter()
                .map(|(name, input)| Input {
                    name,
                    node: input.node.map(|node| node.index),
                    shape: input.shape().to_vec(),
                    dtype: input.tensor.dtype(),
                })
                .collect(),
            backward: Some(Box::new(backward)),
        };
        record.nodes.push(node);
        Ok(Var {
            tensor: y,
            node: Some(NodeId {
                tape: self.id,
                index: record.nodes.len() - 1,
            }),
            again: None,
        })
    }

    /// The gradients of `loss`, `[1]`, with respect to every leaf that it depends on, times the loss scale where the
    /// tape has one ([`Tape::scaling_loss`]).
    ///
    /// # Errors
    /// `Error::Shape` where the loss is not one element or depends on no leaf of this tape; `Error::NonFinite` on a
    /// checked tape.
    pub fn backward(self, loss: &Var) -> Result<Gradients> {
        if loss.tensor.len() != 1 {
            return Err(Error::shape(
                "backward",
                format!(
                    "the loss has shape {:?}; expected one element",
                    loss.shape()
                ),
            ));
        }
        let dloss = upload_f32(&self.device, &[self.loss_scale], loss.shape())?;
        self.backward_from(loss, &dloss)
    }

    /// The gradients of `sum(y * dy)` with respect to every leaf that `y` depends on: `dy` is the gradient of `y` and
    /// has its shape and type. Saved tensors are freed as their operation has gone back.
    ///
    /// # Errors
    /// As [`Tape::backward`].
    pub fn backward_from(self, y: &Var, dy: &Tensor) -> Result<Gradients> {
        self.backward_owning(y.clone(), dy.clone())
    }

    /// As [`Tape::backward_from`]; `y` is freed at once and `dy` as soon as it was used, where nothing else holds them.
    ///
    /// # Errors
    /// As [`Tape::backward`].
    pub(super) fn backward_owning(self, y: Var, dy: Tensor) -> Result<Gradients> {
        let Some(last) = y.node.filter(|node| node.tape == self.id) else {
            return Err(Error::shape(
                "backward",
                "the loss depends on no leaf of this tape, so there is no gradient",
            ));
        };
        dy.expect("backward", "dy", y.shape(), y.tensor.dtype())?;
        drop(y);
        let Record {
            mut nodes, leaves, ..
        } = self.record.take();
        let mut slots: Vec<Option<Tensor>> = vec![None; nodes.len()];
        slots[last.index] = Some(dy);
        // An operation's inputs are older than it is: when its turn comes, all of its gradient has arrived. Nodes are
        // dropped on the way, those that the loss does not depend on too.
        while let Some(node) = nodes.pop() {
            let index = nodes.len();
            let Some(backward) = node.backward else {
                continue;
            };
            let Some(dy) = slots[index].take() else {
                continue;
            };
            let gradients = backward(&self.device, dy)?;
            if gradients.len() != node.inputs.len() {
                return Err(Error::shape(
                    node.operation,
                    format!(
                        "its backward pass returned {} gradients for {} inputs",
                        gradients.len(),
                        node.inputs.len()
                    ),
                ));
            }
            for (input, gradient) in node.inputs.iter().zip(gradients) {
                let Some(target) = input.node else { continue };
                let Some(gradient) = gradient else {
                    return Err(Error::shape(
                        node.operation,
                        format!("its backward pass gave no gradient for {}", input.name),
                    ));
                };
                gradient.expect(node.operation, input.name, &input.shape, input.dtype)?;
                if self.recording == Recording::Checked {
                    let what = format!("the gradient of {}", input.name);
                    self.check(node.operation, &node.layer, &what, &gradient)?;
                }
                accumulate(&self.device, &mut slots[target], gradient)?;
            }
        }
        let by_leaf = leaves
            .into_iter()
            .filter_map(|(key, index)| Some((key, slots[index].take()?)))
            .collect();
        Ok(Gradients {
            by_leaf,
            scale: self.loss_scale,
        })
    }

    /// Waits for `x` and fails if it holds a value that is not finite.
    fn check(
        &self,
        operation: &str,
        layer: &Option<Rc<str>>,
        what: &str,
        x: &Tensor,
    ) -> Result<()> {
        if matches!(x.dtype(), DType::U32 | DType::U8) {
            return Ok(());
        }
        let flag = self.device.zeros(&[1], DType::U32)?;
        self.device.check_finite(x, &flag)?;
        if read_u32(&self.device, &flag)? == [0] {
            return Ok(());
        }
        let place = match layer {
            Some(layer) => format!("{operation} (in or after layer {layer})"),
            None => operation.to_string(),
        };
        Err(Error::NonFinite(format!(
            "{place}: {what}, of shape {:?}, holds NaN or an infinity",
            x.shape()
        )))
    }
}

/// Adds `gradient` to what is in `slot`. A tensor that an operation returned may be another node's gradient too (an
/// addition hands its own to both operands): only one that nothing else shares is changed.
fn accumulate(device: &Device, slot: &mut Option<Tensor>, gradient: Tensor) -> Result<()> {
    *slot = Some(match slot.take() {
        None => gradient,
        Some(sum) if sum.is_unshared() => {
            device.axpy(1.0, &gradient, &sum)?;
            sum
        }
        Some(sum) => device.add(&sum, &gradient)?,
    });
    Ok(())
}

/// What a backward pass found: one gradient a leaf.
#[derive(Debug)]
pub struct Gradients {
    by_leaf: HashMap<LeafKey, Tensor>,
    scale: f32,
}

impl Gradients {
    /// The gradient of a leaf, by the tensor that was made one; `None` if the loss does not depend on it.
    pub fn of(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.by_leaf.get(&leaf_key(leaf))
    }

    /// How many times too large they are: the loss scale of their tape, which an optimiser divides by.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// All gradients, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.by_leaf.values()
    }

    /// Adds the gradients of another backward pass, leaf by leaf: those of a sum of two losses that were recorded on
    /// two tapes. A leaf that one of them alone depends on keeps its gradient.
    ///
    /// # Errors
    /// `Error::Device` where memory is short; `Error::Usage` where the two are not equally scaled.
    pub fn add(&mut self, device: &Device, other: Gradients) -> Result<()> {
        if other.scale != self.scale {
            return Err(Error::usage(format!(
                "gradients of {} times a loss cannot be added to those of {} times a loss; record both on tapes of one \
                 loss scale",
                other.scale, self.scale
            )));
        }
        for (key, gradient) in other.by_leaf {
            let mut sum = self.by_leaf.remove(&key);
            accumulate(device, &mut sum, gradient)?;
            self.by_leaf.extend(sum.map(|sum| (key, sum)));
        }
        Ok(())
    }
}
