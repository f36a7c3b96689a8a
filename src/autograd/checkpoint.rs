//! Gradient checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): a
//! part of a network saves only its input. The backward pass runs the part again, records it, and
//! computes its gradients. `--recompute` uses it for residual blocks. The recomputation of
//! normalised activations, which is always on, is in `recompute.rs`.

use std::collections::HashSet;

use super::{Tape, Var};
use crate::error::{Error, Result};
use crate::ops::copy::CopyTensor;
use crate::tensor::Tensor;

impl Var {
    /// Computes `forward(self)` and saves only the input for the backward pass. `parameters` are
    /// all tensors that `forward` uses as leaves. Buffers are updated once, although `forward` runs
    /// twice.
    ///
    /// # Errors
    /// Those of `forward`. In the backward pass, `Error::Shape` if the result does not depend on
    /// one of the parameters, or depends on a leaf that is not one of them.
    pub fn checkpoint(
        &self,
        parameters: &[&Tensor],
        forward: impl Fn(&Var) -> Result<Var> + 'static,
    ) -> Result<Var> {
        let Some(tape) = self.tape().filter(|tape| tape.tracks_leaves()) else {
            return forward(self);
        };
        let options = tape.options();
        let first = Tape::forward_only(tape.device(), options);
        let y = forward(&first.constant(self.tensor()))?;
        for update in first.take_buffer_updates() {
            tape.update_buffer(update);
        }
        // A parameter that is listed twice is one leaf, which has one gradient.
        let mut listed = HashSet::new();
        let parameters = parameters.iter().filter(|p| listed.insert(p.id()));
        let parameters: Vec<Tensor> = parameters.map(|&p| p.clone()).collect();
        let leaves: Vec<Var> = parameters.iter().map(|p| tape.leaf(p)).collect();
        let mut inputs = vec![("x", self)];
        inputs.extend(leaves.iter().map(|leaf| ("a parameter", leaf)));
        let (saved_x, needs_dx) = (self.saved(), self.is_tracked());
        let y = y.tensor().clone();
        Var::record_some("checkpoint", y, &inputs, move |device, dy| {
            // The second run also requests updates of buffers. They are dropped with its tape.
            let second = Tape::with(device, options);
            let mut x = saved_x.tensor(device)?;
            if listed.contains(&x.id()) {
                // The input has a gradient of its own.
                x = device.run(CopyTensor { x: &x })?;
            }
            let y = if needs_dx {
                forward(&second.input(&x))?
            } else {
                forward(&second.constant(&x))?
            };
            // Without this, the backward pass of the last operation would compute y a third time.
            y.keep();
            let gradients = y.backward_from(dy)?;
            let of = |leaf: &Tensor| {
                gradients.of(leaf).cloned().ok_or_else(|| {
                    let shape = leaf.shape();
                    let message = format!(
                        "the result does not depend on a parameter or input of shape {shape:?}"
                    );
                    Error::shape("checkpoint", message)
                })
            };
            let mut all = vec![needs_dx.then(|| of(&x)).transpose()?];
            for parameter in &parameters {
                all.push(Some(of(parameter)?));
            }
            let unlisted = gradients.iter().count() - all.iter().flatten().count();
            if unlisted > 0 {
                let message = format!(
                    "the result depends on {unlisted} tensors that are not listed; list every parameter"
                );
                return Err(Error::shape("checkpoint", message));
            }
            Ok(all)
        })
    }
}
