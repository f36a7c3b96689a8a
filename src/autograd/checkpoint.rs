//! Gradient checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): a part of a network
//! whose forward pass saves its input alone. Backward: the part is run once more, recorded this time, and gone back
//! through.

use super::{Tape, Var};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Which of the two runs of a checkpointed part is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    First,
    /// On the way back. It must give the same bits, and leave nothing behind that the first run has left already.
    Again,
}

/// `forward(x)`, of which nothing but `x` is kept for the way back. `parameters` are the tensors that `forward` makes
/// leaves of. On a checked tape both runs are checked.
///
/// # Errors
/// Those of `forward`; on the way back `Error::Shape` where it does not depend on one of the parameters.
pub fn checkpoint(
    tape: &Tape,
    x: &Var,
    parameters: &[&Tensor],
    forward: impl Fn(&Tape, &Var, Run) -> Result<Var> + 'static,
) -> Result<Var> {
    if !tape.tracks_leaves() {
        return forward(tape, x, Run::First);
    }
    let checked = tape.is_checked();
    let first = match checked {
        true => Tape::checked(tape.device()),
        false => Tape::inference(tape.device()),
    };
    let y = forward(&first, &first.constant(x.tensor()), Run::First)?;
    let leaves: Vec<Var> = parameters.iter().map(|p| tape.leaf(p)).collect();
    let mut inputs = vec![("x", x)];
    inputs.extend(leaves.iter().map(|leaf| ("a parameter", leaf)));
    let (saved_x, needs_dx) = (x.saved(), x.is_tracked());
    let parameters: Vec<Tensor> = parameters.iter().map(|&p| p.clone()).collect();
    tape.record_owning(
        "checkpoint",
        y.tensor().clone(),
        &inputs,
        move |device, dy| {
            let again = match checked {
                true => Tape::checked(device),
                false => Tape::new(device),
            };
            let x = saved_x.tensor(device)?;
            let input = match needs_dx {
                true => again.input(&x),
                false => again.constant(&x),
            };
            let y = forward(&again, &input, Run::Again)?;
            // It is at hand, so that the way back need not compute it a third time.
            y.keep();
            let gradients = again.backward_owning(y, dy)?;
            let of = |leaf: &Tensor| {
                gradients.of(leaf).cloned().ok_or_else(|| {
                    Error::shape(
                        "checkpoint",
                        format!(
                            "its result does not depend on a leaf of shape {:?}",
                            leaf.shape()
                        ),
                    )
                })
            };
            let mut all = vec![needs_dx.then(|| of(&x)).transpose()?];
            for parameter in &parameters {
                all.push(Some(of(parameter)?));
            }
            Ok(all)
        },
    )
}
