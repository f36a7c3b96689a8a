//! Parameter updates, in place: SGD as `torch.optim.SGD`, Adam as `torch.optim.Adam`, and LARS
//! (You, Gitman and Ginsburg 2017) as SimCLR uses it.
//!
//! Weight decay is added to the gradient. If the gate (u32 `[1]`) is set on the device, an update
//! changes nothing.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

pub(in crate::ops) use cpu::gate_is_set;
pub(in crate::ops) use gpu::gate_or_open;

use crate::device::{Check, Op};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// The settings of one step of SGD.
#[derive(Clone, Copy, Debug)]
pub struct SgdStep {
    pub learning_rate: f32,
    pub momentum: f32,
    pub nesterov: bool,
    pub weight_decay: f32,
    /// See [`AdamStep::gradient_scale`].
    pub gradient_scale: f32,
    /// Whether this is the first update, which sets the momentum buffer to the gradient.
    pub first: bool,
}

/// The settings of one step of Adam.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    pub learning_rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// The loss scale, a power of two, by which the gradient is divided. It keeps f16 gradients of
    /// activations from underflowing. 1 without scaling.
    pub gradient_scale: f32,
    /// Counted from 1.
    pub step: u32,
}

impl AdamStep {
    /// The bias corrections `learning_rate / (1 - beta1^t)` and `sqrt(1 - beta2^t)`, computed in
    /// float64.
    fn corrections(&self) -> [f32; 2] {
        let power = |beta: f32| 1.0 - f64::from(beta).powf(f64::from(self.step));
        let step_size = f64::from(self.learning_rate) / power(self.beta1);
        [step_size as f32, power(self.beta2).sqrt() as f32]
    }
}

/// The settings of one step of LARS.
#[derive(Clone, Copy, Debug)]
pub struct LarsStep {
    pub learning_rate: f32,
    pub momentum: f32,
    pub weight_decay: f32,
    /// The factor of the rate of a tensor.
    pub trust_coefficient: f32,
    /// Added to the divisor of the rate.
    pub eps: f32,
    /// See [`AdamStep::gradient_scale`].
    pub gradient_scale: f32,
}

/// Updates a parameter and its momentum buffer.
pub struct SgdUpdate<'a> {
    pub step: SgdStep,
    pub parameter: &'a Tensor,
    pub gradient: &'a Tensor,
    pub momentum: &'a Tensor,
    pub gate: Option<&'a Tensor>,
}

/// Updates a parameter `p` with gradient `g` and its momentum buffer `m`, which is 0 at first:
/// `m = momentum m + r (g + weight_decay p)`, `p -= learning_rate m`. The rate of the tensor is
/// `r = trust_coefficient |p| / (|g| + weight_decay |p| + eps)`, with Euclidean norms (You, Gitman
/// and Ginsburg 2017, equation 6). If `|p|` or `|g|` is 0, `r` is 1 and there is no weight decay,
/// as in solo-learn, lightly and Lightning Bolts.
pub struct LarsUpdate<'a> {
    pub step: LarsStep,
    pub parameter: &'a Tensor,
    pub gradient: &'a Tensor,
    pub momentum: &'a Tensor,
    pub gate: Option<&'a Tensor>,
}

/// Updates a parameter and its two moments.
pub struct AdamUpdate<'a> {
    pub step: AdamStep,
    pub parameter: &'a Tensor,
    pub gradient: &'a Tensor,
    pub first_moment: &'a Tensor,
    pub second_moment: &'a Tensor,
    pub gate: Option<&'a Tensor>,
}

/// Fails unless gradient and state have the shape of the parameter, and none of them share memory.
fn check_update(
    check: &mut Check<'_>,
    parameter: &Tensor,
    gradient: &Tensor,
    state: &[(&str, &Tensor)],
    gate: Option<&Tensor>,
) -> Result<()> {
    check.f32("parameter", parameter)?;
    if let Some(gate) = gate {
        check.tensor("gate", gate, &[1], DType::U32)?;
    }
    let mut others = vec![("parameter", parameter)];
    for &other in std::iter::once(&("gradient", gradient)).chain(state) {
        check.same(("parameter", parameter), other)?;
        for &earlier in &others {
            check.distinct(earlier, other)?;
        }
        others.push(other);
    }
    check.changes(parameter);
    for (_, x) in state {
        check.changes(x);
    }
    Ok(())
}

/// Fails unless gradients can be divided by `scale`.
fn check_scale(check: &Check<'_>, scale: f32) -> Result<()> {
    if scale > 0.0 && scale.is_finite() {
        return Ok(());
    }
    Err(check.error(format!(
        "the gradient scale is {scale}; expected a finite number above 0"
    )))
}

impl Op for SgdUpdate<'_> {
    const NAME: &'static str = "sgd_update";
    type Sizes = ();
    type Output = ();

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check_scale(check, self.step.gradient_scale)?;
        let state = [("momentum", self.momentum)];
        check_update(check, self.parameter, self.gradient, &state, self.gate)
    }

    fn flops(&self, _: ()) -> u64 {
        let per_element = if self.step.nesterov { 8 } else { 6 };
        per_element * self.parameter.len() as u64
    }
}

impl Op for LarsUpdate<'_> {
    const NAME: &'static str = "lars_update";
    type Sizes = ();
    type Output = ();

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check_scale(check, self.step.gradient_scale)?;
        let state = [("momentum", self.momentum)];
        check_update(check, self.parameter, self.gradient, &state, self.gate)
    }

    fn flops(&self, _: ()) -> u64 {
        // Two squares and sums, then two factors, two sums and the update.
        11 * self.parameter.len() as u64
    }
}

impl Op for AdamUpdate<'_> {
    const NAME: &'static str = "adam_update";
    type Sizes = ();
    type Output = ();

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check_scale(check, self.step.gradient_scale)?;
        if self.step.step == 0 {
            return Err(check.error("the step is 0; count steps from 1"));
        }
        let state = [
            ("first_moment", self.first_moment),
            ("second_moment", self.second_moment),
        ];
        check_update(check, self.parameter, self.gradient, &state, self.gate)
    }

    fn flops(&self, _: ()) -> u64 {
        15 * self.parameter.len() as u64
    }
}
