//! Matrix transposition, between pixels by channels and channels by pixels.

use super::vector::{SIDE, Vector, Vectorized, run};

/// `to [columns, rows] = from [rows, columns]^T`. The rows have strides of `from_width` and
/// `to_width`.
pub(super) fn transpose(
    (from, from_width): (&[f32], usize),
    [rows, columns]: [usize; 2],
    (to, to_width): (&mut [f32], usize),
) {
    run(Transpose {
        from,
        from_width,
        rows,
        columns,
        to,
        to_width,
    });
}

struct Transpose<'a> {
    from: &'a [f32],
    from_width: usize,
    rows: usize,
    columns: usize,
    to: &'a mut [f32],
    to_width: usize,
}

impl Vectorized for Transpose<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (from, from_width) = (self.from, self.from_width);
        let (to, to_width) = (self.to, self.to_width);
        let whole_rows = self.rows / SIDE * SIDE;
        let whole_columns = self.columns / SIDE * SIDE;
        for j in (0..whole_columns).step_by(SIDE) {
            for i in (0..whole_rows).step_by(SIDE) {
                let (from, to) = (&from[i * from_width + j..], &mut to[j * to_width + i..]);
                V::transpose(from, from_width, to, to_width);
            }
        }
        for i in 0..self.rows {
            let rest = if i < whole_rows { whole_columns } else { 0 };
            for j in rest..self.columns {
                to[j * to_width + i] = from[i * from_width + j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::vector::{REGISTERS, run_with};
    use super::*;

    #[test]
    fn whole_squares_and_the_rest() {
        for [rows, columns] in [[8, 8], [16, 24], [7, 9], [17, 8], [8, 3], [40, 49]] {
            let (from_width, to_width) = (columns + 2, rows + 1);
            let from: Vec<f32> = (0..rows * from_width).map(|i| i as f32).collect();
            for register in REGISTERS {
                let mut to = vec![-1.0; columns * to_width];
                let transpose = Transpose {
                    from: &from,
                    from_width,
                    rows,
                    columns,
                    to: &mut to,
                    to_width,
                };
                if !run_with(register, transpose) {
                    continue;
                }
                for (at, &found) in to.iter().enumerate() {
                    let (column, row) = (at / to_width, at % to_width);
                    let expected = if row < rows {
                        from[row * from_width + column]
                    } else {
                        -1.0
                    };
                    assert_eq!(found, expected, "{register}: {rows} x {columns}, {at}");
                }
            }
        }
    }
}
