//! `y = a + b`. Saves nothing. Backward: `da = dy`, `db = dy`.

use super::{Tape, Var};
use crate::error::Result;

/// The element-wise sum of two values of one shape.
///
/// # Errors
/// `Error::Shape` where the shapes differ.
pub fn add(tape: &Tape, a: &Var, b: &Var) -> Result<Var> {
    let y = tape.device().add(a.tensor(), b.tensor())?;
    let (needs_da, needs_db) = (a.is_tracked(), b.is_tracked());
    tape.record("add", y, &[("a", a), ("b", b)], move |_, dy| {
        Ok(vec![
            needs_da.then(|| dy.clone()),
            needs_db.then(|| dy.clone()),
        ])
    })
}
