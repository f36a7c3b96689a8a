//! `y = max(a + b, 0)`, the end of a residual block. Saves y. Backward: `da = db = dy where y > 0, else 0`.

use super::{Tape, Var};
use crate::error::Result;

/// The rectified sum of two values of one shape.
///
/// # Errors
/// `Error::Shape` where the shapes differ.
pub fn add_relu(tape: &Tape, a: &Var, b: &Var) -> Result<Var> {
    let y = tape.device().add_relu(a.tensor(), b.tensor())?;
    let (needs_da, needs_db) = (a.is_tracked(), b.is_tracked());
    let saved_y = y.clone();
    tape.record("add_relu", y, &[("a", a), ("b", b)], move |device, dy| {
        let dsum = device.relu_backward(dy, &saved_y)?;
        Ok(vec![
            needs_da.then(|| dsum.clone()),
            needs_db.then(|| dsum.clone()),
        ])
    })
}
