//! `y = mean over rows of log sum_j exp(logits[i,j]) - logits[i, label_i]`. Saves logits, labels and each row's
//! log-sum-exp. Backward: `dlogits = dy (softmax(logits) - one_hot(labels)) / N`.

use super::{Tape, Var};
use crate::error::Result;
use crate::tensor::Tensor;

/// The mean cross-entropy, `[1]`, of `logits [N, K]` against `labels` (u32 `[N]`).
///
/// # Errors
/// `Error::Shape` where these do not fit. A label of K or more makes the loss NaN.
pub fn softmax_cross_entropy(tape: &Tape, logits: &Var, labels: &Tensor) -> Result<Var> {
    let forward = tape
        .device()
        .softmax_cross_entropy(logits.tensor(), labels)?;
    let y = forward.loss.clone();
    let (saved_logits, labels) = (logits.tensor().clone(), labels.clone());
    let inputs = [("logits", logits)];
    tape.record("softmax_cross_entropy", y, &inputs, move |device, dy| {
        let dlogits =
            device.softmax_cross_entropy_backward(dy, &saved_logits, &labels, &forward)?;
        Ok(vec![Some(dlogits)])
    })
}
