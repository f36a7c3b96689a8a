//! Copies of rows.

use super::{Concat, Slice};
use crate::error::Result;
use crate::testing::{Expected, Tester, normal, normal_leaf, size, wide};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    concat_and_slice_copy_rows(tester)?;
    gradients(tester)
}

fn concat_and_slice_copy_rows(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(5);
    // Rows above, rows below, shape of a row.
    let cases: [(usize, usize, &[usize]); 8] = [
        (1, 1, &[]),
        (5, 3, &[]),
        (1, 2, &[3]),
        (7, 1, &[17]),
        (2, 2, &[3, 5, 7]),
        (64, 65, &[129]),
        (1, 63, &[4, 4]),
        (150, 3, &[129]),
    ];
    for (above, below, row) in cases {
        let shape = |rows: usize| [&[rows], row].concat();
        let columns: usize = row.iter().product();
        let a = normal(&mut rng, above * columns);
        let b = normal(&mut rng, below * columns);
        let joined = [a.clone(), b.clone()].concat();
        let rows = above + below;
        let start = size(&mut rng, 0, rows as u32 - 1);
        let count = size(&mut rng, 1, (rows - start) as u32);
        for on in tester.all() {
            let case = format!("{above} and {below} rows of {row:?}");
            let (a, b) = (&on.put(&a, &shape(above))?, &on.put(&b, &shape(below))?);
            let y = &on.run(Concat { a, b })?;
            let expected = Expected::exact(wide(&joined));
            on.agree(&case, y, &shape(rows), &expected)?;
            for (start, count) in [(0, above), (above, below), (start, count)] {
                let part = on.run(Slice { x: y, start, count })?;
                let elements = &joined[start * columns..][..count * columns];
                let expected = Expected::exact(wide(elements));
                let case = format!("{start} + {count} of {case}");
                on.agree(&case, &part, &shape(count), &expected)?;
            }
        }
    }
    Ok(())
}

fn gradients(tester: &Tester) -> Result<()> {
    let leaves = [normal_leaf(1, &[2, 3, 2]), normal_leaf(2, &[3, 3, 2])];
    tester.gradients("concat", &leaves, |x| x[0].concat(&x[1]))?;
    for (start, count) in [(0, 5), (0, 2), (2, 3), (1, 3)] {
        let case = format!("{start} + {count}");
        tester.gradients(&case, &[normal_leaf(1, &[5, 3])], |x| {
            x[0].slice(start, count)
        })?;
    }
    tester.gradients("reshape", &[normal_leaf(1, &[3, 4])], |x| {
        x[0].reshape(&[2, 6])
    })
}
