//! The transforms of F(4x4, 3x3) (Lavin and Gray 2015, section 4.3) and their transposes, each of one dimension;
//! [`square`] makes two dimensions of one. They act on eight channels at once.
//!
//! The points are 0, a, -a, b, -b and infinity with a = 1 / sqrt 2 and b = sqrt 2, not the paper's a = 1 and b = 2: the
//! rounding error is a quarter of theirs (docs/rejected.md), for the same arithmetic. With N the product of a point's
//! distances from the others:
//!
//! - a row of B^T is the polynomial with the other points as its roots
//! - a row of G is 1, p, p^2 over N
//! - a column of A^T is 1, p, p^2, p^3

use std::ops::{Add, Mul, Sub};

/// Channels that a transform takes at a time: one AVX2 register.
pub(super) const LANES: usize = 8;
/// Side of a tile of outputs.
pub(super) const OUTPUTS: usize = 4;
/// Side of a tile of inputs, and of the tile's transform.
pub(super) const POINTS: usize = OUTPUTS + KERNEL - 1;
/// Products that stand for one tile.
pub(super) const PRODUCTS: usize = POINTS * POINTS;
/// Side of the kernel.
pub(super) const KERNEL: usize = 3;

const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;
/// `1 / N` of a and -a: `1 / (2 a^2 (a^2 - b^2))`.
const NA: f32 = -2.0 / 3.0;
/// `1 / N` of b and -b.
const NB: f32 = 1.0 / 6.0;

/// The same element of eight channels.
#[derive(Clone, Copy)]
pub(super) struct Lanes(pub(super) [f32; LANES]);

impl Lanes {
    pub(super) const ZERO: Lanes = Lanes([0.0; LANES]);

    #[inline(always)]
    pub(super) fn load(from: &[f32]) -> Self {
        let mut lanes = Lanes::ZERO;
        lanes.0.copy_from_slice(&from[..LANES]);
        lanes
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut result = Lanes::ZERO;
        for i in 0..LANES {
            result.0[i] = f(self.0[i], other.0[i]);
        }
        result
    }
}

impl Add for Lanes {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Lanes {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul<Lanes> for f32 {
    type Output = Lanes;
    #[inline(always)]
    fn mul(self, lanes: Lanes) -> Lanes {
        lanes.zip(lanes, |x, _| self * x)
    }
}

/// The same 64 elements with rows and lanes exchanged, in shuffles of two registers.
#[inline(always)]
pub(super) fn turned(x: [Lanes; LANES]) -> [Lanes; LANES] {
    // Of either half: pairs, then fours, of the elements of one column.
    let low = |a: Lanes, b: Lanes| {
        let (a, b) = (a.0, b.0);
        Lanes([a[0], b[0], a[1], b[1], a[4], b[4], a[5], b[5]])
    };
    let high = |a: Lanes, b: Lanes| {
        let (a, b) = (a.0, b.0);
        Lanes([a[2], b[2], a[3], b[3], a[6], b[6], a[7], b[7]])
    };
    let low_pair = |a: Lanes, b: Lanes| {
        let (a, b) = (a.0, b.0);
        Lanes([a[0], a[1], b[0], b[1], a[4], a[5], b[4], b[5]])
    };
    let high_pair = |a: Lanes, b: Lanes| {
        let (a, b) = (a.0, b.0);
        Lanes([a[2], a[3], b[2], b[3], a[6], a[7], b[6], b[7]])
    };
    let low_half = |a: Lanes, b: Lanes| {
        let (a, b) = (a.0, b.0);
        Lanes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
    };
    let high_half = |a: Lanes, b: Lanes| {
        let (a, b) = (a.0, b.0);
        Lanes([a[4], a[5], a[6], a[7], b[4], b[5], b[6], b[7]])
    };
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

/// `f X f^T`: the transform of one dimension on the columns of a square, then on its rows. (With loops: the compiler
/// leaves the closures of `map` and `from_fn` on large arrays outside, where they are not AVX2 code.)
#[inline(always)]
pub(super) fn square<const I: usize, const O: usize>(
    x: &[[Lanes; I]; I],
    f: impl Fn([Lanes; I]) -> [Lanes; O],
) -> [[Lanes; O]; O] {
    let mut half = [[Lanes::ZERO; I]; O];
    for column in 0..I {
        let mut line = [Lanes::ZERO; I];
        for row in 0..I {
            line[row] = x[row][column];
        }
        let transformed = f(line);
        for row in 0..O {
            half[row][column] = transformed[row];
        }
    }
    let mut whole = [[Lanes::ZERO; O]; O];
    for row in 0..O {
        whole[row] = f(half[row]);
    }
    whole
}

/// `B^T d`: six inputs to the six points.
#[inline(always)]
pub(super) fn input(d: [Lanes; POINTS]) -> [Lanes; POINTS] {
    let (even_a, odd_a) = (d[4] - 2.0 * d[2], A * (d[3] - 2.0 * d[1]));
    let (even_b, odd_b) = (d[4] - 0.5 * d[2], B * (d[3] - 0.5 * d[1]));
    [
        d[0] - 2.5 * d[2] + d[4],
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        d[1] - 2.5 * d[3] + d[5],
    ]
}

/// `G g`: three weights to the six points.
#[inline(always)]
pub(super) fn kernel(g: [Lanes; KERNEL]) -> [Lanes; POINTS] {
    let (even_a, odd_a) = (NA * (g[0] + 0.5 * g[2]), NA * A * g[1]);
    let (even_b, odd_b) = (NB * (g[0] + 2.0 * g[2]), NB * B * g[1]);
    [
        g[0],
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        g[2],
    ]
}

/// `G^T u`: the gradient of [`kernel`].
#[inline(always)]
pub(super) fn kernel_gradient(u: [Lanes; POINTS]) -> [Lanes; KERNEL] {
    let (even_a, odd_a) = (NA * (u[1] + u[2]), NA * A * (u[1] - u[2]));
    let (even_b, odd_b) = (NB * (u[3] + u[4]), NB * B * (u[3] - u[4]));
    [
        u[0] + even_a + even_b,
        odd_a + odd_b,
        0.5 * even_a + 2.0 * even_b + u[5],
    ]
}

/// `A^T m`: the six points to four outputs.
#[inline(always)]
pub(super) fn output(m: [Lanes; POINTS]) -> [Lanes; OUTPUTS] {
    let (even_a, odd_a) = (m[1] + m[2], A * (m[1] - m[2]));
    let (even_b, odd_b) = (m[3] + m[4], B * (m[3] - m[4]));
    [
        m[0] + even_a + even_b,
        odd_a + odd_b,
        0.5 * even_a + 2.0 * even_b,
        0.5 * odd_a + 2.0 * odd_b + m[5],
    ]
}

/// `A y`: the gradient of [`output`].
#[inline(always)]
pub(super) fn output_gradient(y: [Lanes; OUTPUTS]) -> [Lanes; POINTS] {
    let (even_a, odd_a) = (y[0] + 0.5 * y[2], A * (y[1] + 0.5 * y[3]));
    let (even_b, odd_b) = (y[0] + 2.0 * y[2], B * (y[1] + 2.0 * y[3]));
    [
        y[0],
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        y[3],
    ]
}
