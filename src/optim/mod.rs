//! Optimisers as torch defines them, and learning-rate schedules. Each update is one kernel a parameter.

mod adam;
mod optimizer;
mod schedule;
mod sgd;

pub use adam::{Adam, AdamOptions};
pub use optimizer::{Optimization, Optimizer, OptimizerOptions};
pub use schedule::Schedule;
pub use sgd::{Sgd, SgdOptions};

use crate::autograd::Gradients;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::Parameter;
use crate::tensor::{DType, Tensor};

/// A zero tensor for each parameter, named `PREFIX.NAME`: an optimiser's state.
fn zeros_like(device: &Device, parameters: &[&Parameter], prefix: &str) -> Result<Vec<Parameter>> {
    parameters
        .iter()
        .map(|parameter| {
            Ok(Parameter {
                name: format!("{prefix}.{}", parameter.name),
                value: device.zeros(parameter.value.shape(), DType::F32)?,
            })
        })
        .collect()
}

/// The gradient of each parameter, in their order.
///
/// # Errors
/// `Error::Usage` naming the first parameter that has none.
fn gradients_of<'a>(parameters: &[Parameter], gradients: &'a Gradients) -> Result<Vec<&'a Tensor>> {
    parameters
        .iter()
        .map(|parameter| {
            gradients.of(&parameter.value).ok_or_else(|| {
                Error::usage(format!(
                    "parameter {} has no gradient: the loss does not depend on it; leave it out of the optimiser",
                    parameter.name
                ))
            })
        })
        .collect()
}
