//! The tape: the operations of one forward pass in the order in which they ran.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::var::Var;
use crate::device::Device;
use crate::distributed::Group;
use crate::error::{Error, Result};
use crate::ops::reduce::CheckFinite;
use crate::tensor::{DType, Tensor};

/// The behaviour of layers that differ between training and evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Batch norm uses the statistics of the batch, and updates the running statistics.
    #[default]
    Training,
    /// Batch norm uses the running statistics.
    Evaluation,
}

/// The options of a forward pass and its backward pass. Layers read them from their input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassOptions {
    pub mode: Mode,
    /// The element type in which networks store activations and their gradients: f32 or f16.
    pub activations: DType,
    /// Whether products and convolutions of f32 round their factors to f16: see
    /// [`Device::round_factors`]. A trainer sets it for its device during a step; a tape alone does
    /// not.
    pub rounds_factors: bool,
    /// Whether networks save only the inputs of their blocks and recompute the other activations in
    /// the backward pass ([`Var::checkpoint`]). This saves memory and costs up to one more forward
    /// pass. Results have the same bits.
    pub recompute: bool,
    /// The factor of the loss in the backward pass. It keeps small f16 gradients from underflowing.
    pub loss_scale: f32,
    /// The weight of the batch in running statistics, as in `torch.nn.BatchNorm2d`.
    pub momentum: f32,
    /// The ranks over whose images batch norm takes its statistics in training. `None` means the
    /// images of this rank.
    pub synchronized: Option<Group>,
    /// Whether each operation fails if an input or result is not finite. This is slow, because it
    /// waits for each operation. It serves to replay a step that failed.
    pub check: bool,
}

impl PassOptions {
    /// The default options, in evaluation mode.
    fn evaluation() -> PassOptions {
        PassOptions {
            mode: Mode::Evaluation,
            ..PassOptions::default()
        }
    }
}

impl Default for PassOptions {
    fn default() -> Self {
        PassOptions {
            mode: Mode::Training,
            activations: DType::F32,
            rounds_factors: false,
            recompute: false,
            loss_scale: 1.0,
            momentum: 0.1,
            synchronized: None,
            check: false,
        }
    }
}

/// The operations that a tape records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recording {
    Nothing,
    Everything,
    /// The operations that depend on a [`Tape::input`]. Leaves are constants.
    OfInput,
}

/// Records the operations of one forward pass, so that gradients can be computed. Clones are
/// handles to the same record.
///
/// ```
/// # use parallax::{autograd::Tape, device::Device, tensor::Tensor};
/// # fn main() -> parallax::Result<()> {
/// let device = Device::cpu();
/// let weight = Tensor::from_slice(&[1.0f32, -2.0], &[2], &device)?;
/// let tape = Tape::new(&device);
/// let loss = tape.leaf(&weight).scale(3.0)?.sum()?;
/// let gradients = loss.backward()?;
/// let gradient = gradients.of(&weight).expect("the loss depends on it");
/// assert_eq!(gradient.to_vec::<f32>()?, [3.0, 3.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tape {
    inner: Rc<Inner>,
    options: PassOptions,
}

struct Inner {
    device: Device,
    recording: Recording,
    record: RefCell<Record>,
    is_spent: Cell<bool>,
}

#[derive(Default)]
struct Record {
    nodes: Vec<Node>,
    leaves: Leaves,
    updates: Vec<BufferUpdate>,
    /// The layer whose parameters were used last, for error messages.
    layer: Option<Rc<str>>,
}

/// For the id of each leaf, the shapes under which it is used, with their nodes. The first node is
/// the leaf, and the others reshape it.
pub(super) type Leaves = HashMap<u64, Vec<(Vec<usize>, usize)>>;

/// Computes the gradients of the inputs, in order, from the gradient of the result. Inputs that are
/// not tracked may have `None`.
pub(super) type Backward = Box<dyn FnOnce(&Device, Tensor) -> Result<Vec<Option<Tensor>>>>;

pub(super) struct Node {
    pub(super) operation: &'static str,
    pub(super) layer: Option<Rc<str>>,
    pub(super) inputs: Vec<Input>,
    /// `None` for a leaf.
    pub(super) backward: Option<Backward>,
}

/// An input of an operation.
pub(super) struct Input {
    pub(super) name: &'static str,
    /// The node that computed the input, if it is tracked.
    pub(super) node: Option<usize>,
    pub(super) shape: Vec<usize>,
    pub(super) dtype: DType,
}

/// An update of a buffer, such as a running mean, that a forward pass requests. The caller of the
/// pass applies it after the backward pass.
#[derive(Clone)]
pub struct BufferUpdate {
    values: Vec<Tensor>,
    apply: Rc<ApplyUpdate>,
    running: Option<Rc<RunningStatistics>>,
}

/// The running statistics that an update changes. Its values are mean and variance of a batch with
/// `count` elements per channel.
pub(crate) struct RunningStatistics {
    pub(crate) mean: Tensor,
    pub(crate) variance: Tensor,
    pub(crate) count: usize,
    pub(crate) momentum: f32,
}

/// The tensors are those of the update. The last argument is a gate (u32 `[1]`): if it is set on
/// the device, the update has no effect. A step sets it if a gradient is not finite.
type ApplyUpdate = dyn Fn(&Device, &[Tensor], Option<&Tensor>) -> Result<()>;

impl BufferUpdate {
    /// An update that depends on the pass through `values` alone, such as the statistics of a
    /// batch.
    pub fn new(
        values: Vec<Tensor>,
        apply: impl Fn(&Device, &[Tensor], Option<&Tensor>) -> Result<()> + 'static,
    ) -> Self {
        BufferUpdate {
            values,
            apply: Rc::new(apply),
            running: None,
        }
    }

    /// Marks an update of running statistics, so that one kernel can apply several.
    pub(crate) fn of_running(self, statistics: RunningStatistics) -> Self {
        BufferUpdate {
            running: Some(Rc::new(statistics)),
            ..self
        }
    }

    pub(crate) fn running(&self) -> Option<&RunningStatistics> {
        self.running.as_deref()
    }

    pub fn values(&self) -> &[Tensor] {
        &self.values
    }

    /// The update of the same buffer by the values of another pass.
    pub fn with_values(&self, values: Vec<Tensor>) -> Self {
        BufferUpdate {
            values,
            ..self.clone()
        }
    }

    /// Updates the buffer, unless the gate (u32 `[1]`) is set on the device.
    ///
    /// # Errors
    /// Those of the update.
    pub fn apply(&self, device: &Device, gate: Option<&Tensor>) -> Result<()> {
        (self.apply)(device, &self.values, gate)
    }
}

impl Tape {
    /// A tape for training: records every operation.
    pub fn new(device: &Device) -> Tape {
        Tape::with(device, PassOptions::default())
    }

    /// A tape that records every operation, with these options.
    pub fn with(device: &Device, options: PassOptions) -> Tape {
        Tape::open(device, Recording::Everything, options)
    }

    /// A tape for a forward pass without a backward pass. Records nothing unless `options.check` is
    /// set.
    pub fn forward_only(device: &Device, options: PassOptions) -> Tape {
        let recording = if options.check {
            Recording::Everything
        } else {
            Recording::Nothing
        };
        Tape::open(device, recording, options)
    }

    /// A tape for evaluation, which records nothing.
    pub fn inference(device: &Device) -> Tape {
        Tape::open(device, Recording::Nothing, PassOptions::evaluation())
    }

    /// A tape in evaluation mode for gradients of inputs. It records the operations that depend on
    /// a [`Tape::input`]. Parameters get no gradients.
    pub fn of_input(device: &Device) -> Tape {
        Tape::open(device, Recording::OfInput, PassOptions::evaluation())
    }

    fn open(device: &Device, recording: Recording, options: PassOptions) -> Tape {
        Tape {
            inner: Rc::new(Inner {
                device: device.clone(),
                recording,
                record: RefCell::default(),
                is_spent: Cell::new(false),
            }),
            options,
        }
    }

    /// A handle to the same record with another mode.
    pub fn in_mode(&self, mode: Mode) -> Tape {
        Tape {
            inner: self.inner.clone(),
            options: PassOptions {
                mode,
                ..self.options
            },
        }
    }

    /// The device of the operations.
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    pub fn options(&self) -> PassOptions {
        self.options
    }

    /// Whether [`Tape::leaf`] returns values whose gradient is computed.
    pub fn tracks_leaves(&self) -> bool {
        self.inner.recording == Recording::Everything
    }

    /// A value whose gradient is needed, such as a parameter. It is a constant unless the tape
    /// [tracks leaves](Tape::tracks_leaves). A tensor that is used twice is one leaf, whose
    /// gradients are added, also if its shapes differ ([`Tensor::reshape`]).
    pub fn leaf(&self, tensor: &Tensor) -> Var {
        match self.inner.recording {
            Recording::Everything => self.tracked(tensor),
            Recording::Nothing | Recording::OfInput => self.constant(tensor),
        }
    }

    /// An input whose gradient is needed, such as images. It is a constant if the tape records
    /// nothing.
    pub fn input(&self, tensor: &Tensor) -> Var {
        match self.inner.recording {
            Recording::Nothing => self.constant(tensor),
            Recording::Everything | Recording::OfInput => self.tracked(tensor),
        }
    }

    /// A value without a gradient.
    pub fn constant(&self, tensor: &Tensor) -> Var {
        Var::on(self, tensor.clone(), None)
    }

    fn tracked(&self, tensor: &Tensor) -> Var {
        let mut record = self.inner.record.borrow_mut();
        let Record { nodes, leaves, .. } = &mut *record;
        let shapes = leaves.entry(tensor.id()).or_default();
        let known = shapes.iter().find(|(shape, _)| shape == tensor.shape());
        if let Some(&(_, index)) = known {
            return Var::on(self, tensor.clone(), Some(index));
        }
        nodes.push(match shapes.first().cloned() {
            None => Node {
                operation: "leaf",
                layer: None,
                inputs: Vec::new(),
                backward: None,
            },
            Some((shape, leaf)) => Node {
                operation: "reshape",
                layer: None,
                inputs: vec![Input {
                    name: "x",
                    node: Some(leaf),
                    shape: shape.clone(),
                    dtype: tensor.dtype(),
                }],
                backward: Some(Box::new(move |_, dy| Ok(vec![Some(dy.reshape(&shape)?)]))),
            },
        });
        let index = nodes.len() - 1;
        shapes.push((tensor.shape().to_vec(), index));
        Var::on(self, tensor.clone(), Some(index))
    }

    /// Requests an update of a buffer.
    pub fn update_buffer(&self, update: BufferUpdate) {
        self.inner.record.borrow_mut().updates.push(update);
    }

    /// Removes and returns the requested updates of buffers, in order. Apply them after the
    /// backward pass, which may read the buffers.
    pub fn take_buffer_updates(&self) -> Vec<BufferUpdate> {
        std::mem::take(&mut self.inner.record.borrow_mut().updates)
    }

    /// Sets the layer of the operations that follow, for the error messages of checks.
    pub(crate) fn enter_layer(&self, name: &str) {
        if self.options.check {
            self.inner.record.borrow_mut().layer = Some(name.into());
        }
    }

    /// Whether both are handles to the same record.
    pub(crate) fn is_same(&self, other: &Tape) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }

    /// Appends a node and returns its index.
    pub(super) fn push(
        &self,
        operation: &'static str,
        inputs: Vec<Input>,
        backward: Backward,
    ) -> Result<usize> {
        if self.inner.is_spent.get() {
            let message = "the backward pass of this tape has run; record a new forward pass";
            return Err(Error::shape(operation, message));
        }
        let mut record = self.inner.record.borrow_mut();
        let node = Node {
            operation,
            layer: record.layer.clone(),
            inputs,
            backward: Some(backward),
        };
        record.nodes.push(node);
        Ok(record.nodes.len() - 1)
    }

    /// Removes and returns the recorded nodes and leaves for the backward pass.
    pub(super) fn spend(&self) -> Result<(Vec<Node>, Leaves)> {
        if self.inner.is_spent.replace(true) {
            let message = "the backward pass of this tape has run; record a new forward pass";
            return Err(Error::shape("backward", message));
        }
        let mut record = self.inner.record.borrow_mut();
        let nodes = std::mem::take(&mut record.nodes);
        Ok((nodes, std::mem::take(&mut record.leaves)))
    }

    /// If the tape checks operations, waits for `x` and fails if it has a value that is not finite.
    /// `layer` is the layer of `operation` if it differs from the last one entered.
    pub(super) fn check_finite(
        &self,
        operation: &str,
        layer: Option<&str>,
        what: &str,
        x: &Tensor,
    ) -> Result<()> {
        if !self.options.check || matches!(x.dtype(), DType::U32 | DType::U8) {
            return Ok(());
        }
        let device = &self.inner.device;
        let flag = Tensor::zeros(&[1], DType::U32, device)?;
        device.run(CheckFinite { x, flag: &flag })?;
        if flag.to_vec::<u32>()? == [0] {
            return Ok(());
        }
        let entered = self.inner.record.borrow().layer.clone();
        let place = match layer.or(entered.as_deref()) {
            Some(layer) => format!("{operation} (in or after layer {layer})"),
            None => operation.to_string(),
        };
        Err(Error::NonFinite(format!(
            "{place}: {what}, of shape {:?}, has a value that is NaN or infinite",
            x.shape()
        )))
    }
}
