//! Modules: networks and their parts.

use std::collections::{HashMap, HashSet};

use crate::autograd::Var;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A named tensor of a module: a learned parameter, or a buffer such as a running mean. Clones
/// share the tensor. Optimisers and [`weights::load`](super::weights::load) change it in place.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The name in torchvision, for example `layer1.0.conv1.weight`.
    pub name: String,
    pub value: Tensor,
}

impl Parameter {
    /// A parameter with these values on `device`.
    ///
    /// # Errors
    /// `Error::Shape` if the number of values is not that of the shape; `Error::Device` if memory
    /// is short.
    pub fn new(
        name: impl Into<String>,
        values: &[f32],
        shape: &[usize],
        device: &Device,
    ) -> Result<Self> {
        Ok(Parameter {
            name: name.into(),
            value: Tensor::from_slice(values, shape, device)?,
        })
    }
}

/// A network, or a part of one.
pub trait Module {
    /// The output for `x`. A layer reads the options of the pass from `x`.
    ///
    /// # Errors
    /// `Error::Shape` if `x` has a wrong shape; `Error::Device` if memory is short.
    fn forward(&self, x: &Var) -> Result<Var>;

    /// The learned parameters, in the order of the layers. Each is listed once, however often the
    /// module uses it, and has a name of its own.
    fn parameters(&self) -> Vec<&Parameter>;

    /// The tensors that are not learned, such as running statistics. A module with a batch norm
    /// returns the buffers of it here ([`buffers`]); otherwise files of weights lack them.
    fn buffers(&self) -> Vec<&Parameter> {
        Vec::new()
    }

    /// Parameters, then buffers: the tensors that a file of weights stores.
    fn state(&self) -> Vec<&Parameter> {
        let mut state = self.parameters();
        state.extend(self.buffers());
        state
    }
}

impl<M: Module + ?Sized> Module for &M {
    fn forward(&self, x: &Var) -> Result<Var> {
        (**self).forward(x)
    }

    fn parameters(&self) -> Vec<&Parameter> {
        (**self).parameters()
    }

    fn buffers(&self) -> Vec<&Parameter> {
        (**self).buffers()
    }
}

/// The composition: `A`, then `B`.
impl<A: Module, B: Module> Module for (A, B) {
    fn forward(&self, x: &Var) -> Result<Var> {
        self.1.forward(&self.0.forward(x)?)
    }

    fn parameters(&self) -> Vec<&Parameter> {
        parameters([&self.0 as &dyn Module, &self.1])
    }

    fn buffers(&self) -> Vec<&Parameter> {
        buffers([&self.0 as &dyn Module, &self.1])
    }
}

/// The parameters of several modules, in their order.
pub fn parameters<'a>(modules: impl IntoIterator<Item = &'a dyn Module>) -> Vec<&'a Parameter> {
    modules.into_iter().flat_map(Module::parameters).collect()
}

/// The buffers of several modules, in their order.
pub fn buffers<'a>(modules: impl IntoIterator<Item = &'a dyn Module>) -> Vec<&'a Parameter> {
    modules.into_iter().flat_map(Module::buffers).collect()
}

/// Fails if two of `parameters` have the same name or share their elements. A file could not tell
/// them apart, and an optimiser would update the elements twice per step.
pub(crate) fn check_distinct(parameters: &[&Parameter]) -> Result<()> {
    let (mut names, mut tensors) = (HashSet::new(), HashMap::new());
    for parameter in parameters {
        let name = &parameter.name;
        if let Some(other) = tensors.insert(parameter.value.id(), name) {
            return Err(Error::usage(format!(
                "parameters '{other}' and '{name}' share one tensor; list a tensor once, however often the module \
                 uses it"
            )));
        }
        if !names.insert(name) {
            return Err(Error::usage(format!(
                "two parameters are named '{name}'; give each parameter a name of its own"
            )));
        }
    }
    Ok(())
}

impl Var {
    /// Puts `parameter` on the tape of this value. Layers access their weights with this method.
    pub fn parameter(&self, parameter: &Parameter) -> Var {
        let Some(tape) = self.tape() else {
            return Var::from(parameter.value.clone());
        };
        let layer = parameter.name.rsplit_once('.');
        tape.enter_layer(layer.map_or(&parameter.name, |(layer, _)| layer));
        tape.leaf(&parameter.value)
    }
}
