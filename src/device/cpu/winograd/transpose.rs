//! Transposes by 8 x 8 blocks of floats, in shuffles.

use super::super::vectorised::vectorised;

/// Side of a block.
pub(super) const SIDE: usize = 8;

type Eight = [f32; SIDE];

/// The first eight of a slice.
#[inline(always)]
pub(super) fn eight(from: &[f32]) -> Eight {
    let mut eight = [0.0; SIDE];
    eight.copy_from_slice(&from[..SIDE]);
    eight
}

/// `to [columns, rows] = from [rows, columns]^T`, with rows of `from_width` and of `to_width`.
pub(super) fn transpose(
    from: &[f32],
    rows: usize,
    columns: usize,
    from_width: usize,
    to: &mut [f32],
    to_width: usize,
) {
    let (whole_rows, whole_columns) = (rows / SIDE * SIDE, columns / SIDE * SIDE);
    vectorised(
        #[inline(always)]
        || {
            for i in (0..whole_rows).step_by(SIDE) {
                for j in (0..whole_columns).step_by(SIDE) {
                    let mut block = [[0.0; SIDE]; SIDE];
                    for (r, line) in block.iter_mut().enumerate() {
                        *line = eight(&from[(i + r) * from_width + j..]);
                    }
                    for (c, line) in turned(block).iter().enumerate() {
                        to[(j + c) * to_width + i..][..SIDE].copy_from_slice(line);
                    }
                }
                for j in whole_columns..columns {
                    for r in 0..SIDE {
                        to[j * to_width + i + r] = from[(i + r) * from_width + j];
                    }
                }
            }
            for i in whole_rows..rows {
                for j in 0..columns {
                    to[j * to_width + i] = from[i * from_width + j];
                }
            }
        },
    );
}

/// The same 64 elements with rows and lanes exchanged, in shuffles of two registers.
#[inline(always)]
pub(super) fn turned(x: [Eight; SIDE]) -> [Eight; SIDE] {
    // Of either half: pairs, then fours, of the elements of one column.
    let low = |a: Eight, b: Eight| [a[0], b[0], a[1], b[1], a[4], b[4], a[5], b[5]];
    let high = |a: Eight, b: Eight| [a[2], b[2], a[3], b[3], a[6], b[6], a[7], b[7]];
    let low_pair = |a: Eight, b: Eight| [a[0], a[1], b[0], b[1], a[4], a[5], b[4], b[5]];
    let high_pair = |a: Eight, b: Eight| [a[2], a[3], b[2], b[3], a[6], a[7], b[6], b[7]];
    let low_half = |a: Eight, b: Eight| [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
    let high_half = |a: Eight, b: Eight| [a[4], a[5], a[6], a[7], b[4], b[5], b[6], b[7]];
    let pairs = [
        low(x[0], x[1]),
        high(x[0], x[1]),
        low(x[2], x[3]),
        high(x[2], x[3]),
        low(x[4], x[5]),
        high(x[4], x[5]),
        low(x[6], x[7]),
        high(x[6], x[7]),
    ];
    let fours = [
        low_pair(pairs[0], pairs[2]),
        high_pair(pairs[0], pairs[2]),
        low_pair(pairs[1], pairs[3]),
        high_pair(pairs[1], pairs[3]),
        low_pair(pairs[4], pairs[6]),
        high_pair(pairs[4], pairs[6]),
        low_pair(pairs[5], pairs[7]),
        high_pair(pairs[5], pairs[7]),
    ];
    [
        low_half(fours[0], fours[4]),
        low_half(fours[1], fours[5]),
        low_half(fours[2], fours[6]),
        low_half(fours[3], fours[7]),
        high_half(fours[0], fours[4]),
        high_half(fours[1], fours[5]),
        high_half(fours[2], fours[6]),
        high_half(fours[3], fours[7]),
    ]
}
