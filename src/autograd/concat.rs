//! `y = a above b`, along the first dimension. Saves the number of rows of each. Backward: `da` and `db` are the rows
//! of `dy` where a and b went.

use super::{Tape, Var};
use crate::error::Result;

/// `a` above `b` along the first dimension; the other dimensions are equal.
///
/// # Errors
/// `Error::Shape` where they are not.
pub fn concat(tape: &Tape, a: &Var, b: &Var) -> Result<Var> {
    let y = tape.device().concat(a.tensor(), b.tensor())?;
    let (needs_da, needs_db) = (a.is_tracked(), b.is_tracked());
    let rows = |x: &Var| x.shape().first().copied().unwrap_or(0);
    let (rows_a, rows_b) = (rows(a), rows(b));
    tape.record("concat", y, &[("a", a), ("b", b)], move |device, dy| {
        Ok(vec![
            needs_da.then(|| device.slice(dy, 0, rows_a)).transpose()?,
            needs_db
                .then(|| device.slice(dy, rows_a, rows_b))
                .transpose()?,
        ])
    })
}
