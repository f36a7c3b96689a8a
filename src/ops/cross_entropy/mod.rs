//! Softmax cross-entropy of logits `[N, K]` against class indices `[N]`, as
//! `torch.nn.functional.cross_entropy`.
//!
//! Forward: `loss = mean over i of log sum_j exp(logits_ij) - logits_i,label_i`.
//! Backward: `dlogits_ij = dloss (exp(logits_ij - log_sum_exp_i) - [j = label_i]) / N`.
//! Saves logits, labels and the log-sum-exp of each row.

pub(crate) mod cases;
mod cpu;
mod gpu;
#[cfg(test)]
mod tests;

use crate::autograd::Var;
use crate::device::{Check, Op, Output, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// A mean loss over rows, with the numbers that its backward pass needs.
#[derive(Clone, Debug)]
pub struct RowLoss {
    /// `[1]`
    pub loss: Tensor,
    /// `[rows]`: the natural logarithm of the sum of exponentials of each row.
    pub log_sum_exp: Tensor,
}

impl Output for RowLoss {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![&self.loss, &self.log_sum_exp]
    }
}

/// The forward pass. A label of K or more makes the loss NaN.
pub struct CrossEntropy<'a> {
    /// f32 `[N, K]`
    pub logits: &'a Tensor,
    /// u32 `[N]`
    pub labels: &'a Tensor,
}

/// Returns N and K. Fails unless both are at least 1.
fn check_rows(check: &mut Check<'_>, logits: &Tensor, labels: &Tensor) -> Result<[usize; 2]> {
    let [n, classes] = check.matrix("logits", logits)?;
    check.tensor("labels", labels, &[n], DType::U32)?;
    if n == 0 || classes == 0 {
        let shape = logits.shape();
        return Err(check.error(format!(
            "logits have shape {shape:?}; expected at least one row and one class"
        )));
    }
    Ok([n, classes])
}

impl Op for CrossEntropy<'_> {
    const NAME: &'static str = "cross_entropy";
    type Sizes = [usize; 2];
    type Output = RowLoss;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 2]> {
        check_rows(check, self.logits, self.labels)
    }

    fn flops(&self, [n, classes]: [usize; 2]) -> u64 {
        product(&[4, n, classes])
    }
}

/// The backward pass: `dlogits [N, K]`.
pub struct CrossEntropyBackward<'a> {
    /// `[1]`
    pub dloss: &'a Tensor,
    pub logits: &'a Tensor,
    pub labels: &'a Tensor,
    /// `[N]`, from the forward pass.
    pub log_sum_exp: &'a Tensor,
}

impl Op for CrossEntropyBackward<'_> {
    const NAME: &'static str = "cross_entropy_backward";
    type Sizes = [usize; 2];
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<[usize; 2]> {
        let [n, classes] = check_rows(check, self.logits, self.labels)?;
        check.tensor("dloss", self.dloss, &[1], DType::F32)?;
        check.tensor("log_sum_exp", self.log_sum_exp, &[n], DType::F32)?;
        Ok([n, classes])
    }

    fn flops(&self, [n, classes]: [usize; 2]) -> u64 {
        product(&[3, n, classes])
    }
}

impl Var {
    /// The mean cross-entropy, `[1]`, of `logits [N, K]` against `labels`, u32 `[N]`.
    ///
    /// # Errors
    /// `Error::Shape` if the shapes do not match. A label of K or more makes the loss NaN. On a
    /// tape that checks operations, it is an error that names the label.
    pub fn cross_entropy(&self, labels: &Tensor) -> Result<Var> {
        let (logits, labels) = (self.tensor().clone(), labels.clone());
        if self.tape().is_some_and(|tape| tape.options().check)
            && let [_, classes] = *logits.shape()
            && let values = labels.to_vec::<u32>()?
            && let Some(row) = values.iter().position(|&l| l as usize >= classes)
        {
            let label = values[row];
            let message = format!(
                "the label of row {row} is {label}, and there are {classes} classes; use labels below {classes}"
            );
            return Err(Error::shape(CrossEntropy::NAME, message));
        }
        let RowLoss { loss, log_sum_exp } = self.device().run(CrossEntropy {
            logits: &logits,
            labels: &labels,
        })?;
        let inputs = [("logits", self)];
        Var::record(CrossEntropy::NAME, loss, inputs, move |device, dloss| {
            Ok([device.run(CrossEntropyBackward {
                dloss: &dloss,
                logits: &logits,
                labels: &labels,
                log_sum_exp: &log_sum_exp,
            })?])
        })
    }
}
