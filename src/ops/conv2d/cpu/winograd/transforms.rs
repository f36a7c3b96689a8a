//! The transforms of F(4x4, 3x3) (Lavin and Gray 2015, section 4.3) and their transposes in one
//! dimension. [`square`] applies them in two dimensions. A transform processes one register of
//! channels.
//!
//! The interpolation points are 0, a, -a, b, -b and infinity with a = 1 / sqrt 2 and b = sqrt 2.
//! The paper has a = 1 and b = 2, which give four times the rounding error (docs/rejected.md) for
//! the same number of operations. For a point p, with N the product of its distances to the other
//! points:
//!
//! - a row of B^T has the coefficients of the polynomial whose roots are the other points
//! - a row of G is (1, p, p^2) / N
//! - a column of A^T is (1, p, p^2, p^3)

use super::vector::Vector;

/// Side of a tile of outputs.
pub(super) const OUTPUTS: usize = 4;
/// Side of a tile of inputs, and of a transformed tile.
pub(super) const POINTS: usize = OUTPUTS + KERNEL - 1;
/// Products per tile.
pub(super) const PRODUCTS: usize = POINTS * POINTS;
/// Side of the kernel.
pub(super) const KERNEL: usize = 3;

const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;
/// `1 / N` of a and -a, `1 / (2 a^2 (a^2 - b^2))`.
const NA: f32 = -2.0 / 3.0;
/// `1 / N` of b and -b.
const NB: f32 = 1.0 / 6.0;

/// `f X f^T`: applies a transform to the columns of a square, then to its rows.
///
/// `f` must be a closure with `#[inline(always)]`, and the code uses loops. The compiler does not
/// inline functions passed by name, nor the closures of `map` and `from_fn` on large arrays, and
/// would compile them without wide registers.
#[inline(always)]
pub(super) fn square<V: Vector, const I: usize, const O: usize>(
    x: &[[V; I]; I],
    f: impl Fn([V; I]) -> [V; O],
) -> [[V; O]; O] {
    let zero = V::splat(0.0);
    let mut half = [[zero; I]; O];
    for column in 0..I {
        let mut line = [zero; I];
        for row in 0..I {
            line[row] = x[row][column];
        }
        let transformed = f(line);
        for row in 0..O {
            half[row][column] = transformed[row];
        }
    }
    let mut whole = [[zero; O]; O];
    for row in 0..O {
        whole[row] = f(half[row]);
    }
    whole
}

/// `B^T d`, from six inputs to six points.
#[inline(always)]
pub(super) fn input<V: Vector>(d: [V; POINTS]) -> [V; POINTS] {
    let (even_a, odd_a) = (d[4].add_scaled(-2.0, d[2]), d[3].add_scaled(-2.0, d[1]));
    let (even_b, odd_b) = (d[4].add_scaled(-0.5, d[2]), d[3].add_scaled(-0.5, d[1]));
    [
        d[0].add(d[4]).add_scaled(-2.5, d[2]),
        even_a.add_scaled(A, odd_a),
        even_a.add_scaled(-A, odd_a),
        even_b.add_scaled(B, odd_b),
        even_b.add_scaled(-B, odd_b),
        d[1].add(d[5]).add_scaled(-2.5, d[3]),
    ]
}

/// `G g`, from three weights to six points.
#[inline(always)]
pub(super) fn kernel<V: Vector>(g: [V; KERNEL]) -> [V; POINTS] {
    let even_a = g[0].add_scaled(0.5, g[2]).scale(NA);
    let even_b = g[0].add_scaled(2.0, g[2]).scale(NB);
    [
        g[0],
        even_a.add_scaled(NA * A, g[1]),
        even_a.add_scaled(-NA * A, g[1]),
        even_b.add_scaled(NB * B, g[1]),
        even_b.add_scaled(-NB * B, g[1]),
        g[2],
    ]
}

/// `G^T u`, the gradient of [`kernel`].
#[inline(always)]
pub(super) fn kernel_gradient<V: Vector>(u: [V; POINTS]) -> [V; KERNEL] {
    let (even_a, odd_a) = (u[1].add(u[2]), u[1].sub(u[2]));
    let (even_b, odd_b) = (u[3].add(u[4]), u[3].sub(u[4]));
    [
        u[0].add_scaled(NA, even_a).add_scaled(NB, even_b),
        odd_a.scale(NA * A).add_scaled(NB * B, odd_b),
        u[5].add_scaled(0.5 * NA, even_a)
            .add_scaled(2.0 * NB, even_b),
    ]
}

/// `A^T m`, from six points to four outputs.
#[inline(always)]
pub(super) fn output<V: Vector>(m: [V; POINTS]) -> [V; OUTPUTS] {
    let (even_a, odd_a) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (even_b, odd_b) = (m[3].add(m[4]), m[3].sub(m[4]));
    [
        m[0].add(even_a).add(even_b),
        odd_a.scale(A).add_scaled(B, odd_b),
        even_a.scale(0.5).add_scaled(2.0, even_b),
        m[5].add_scaled(0.5 * A, odd_a).add_scaled(2.0 * B, odd_b),
    ]
}

/// `A y`, the gradient of [`output`].
#[inline(always)]
pub(super) fn output_gradient<V: Vector>(y: [V; OUTPUTS]) -> [V; POINTS] {
    let (even_a, odd_a) = (y[0].add_scaled(0.5, y[2]), y[1].add_scaled(0.5, y[3]));
    let (even_b, odd_b) = (y[0].add_scaled(2.0, y[2]), y[1].add_scaled(2.0, y[3]));
    [
        y[0],
        even_a.add_scaled(A, odd_a),
        even_a.add_scaled(-A, odd_a),
        even_b.add_scaled(B, odd_b),
        even_b.add_scaled(-B, odd_b),
        y[3],
    ]
}

#[cfg(test)]
mod tests {
    use super::super::vector::{REGISTERS, Vectorized, run_with};
    use super::*;
    use crate::philox::Philox;

    /// Floats of the widest register.
    const LANES: usize = 16;

    /// One element of `LANES` tiles.
    type Element = [f32; LANES];

    /// Tiles of the forward pass and of the weight gradient.
    struct Tile<'a> {
        d: &'a [Element; PRODUCTS],
        g: &'a [Element; KERNEL * KERNEL],
        dy: &'a [Element; OUTPUTS * OUTPUTS],
        y: &'a mut [Element; OUTPUTS * OUTPUTS],
        dg: &'a mut [Element; KERNEL * KERNEL],
    }

    #[inline(always)]
    fn load<V: Vector, const S: usize>(from: &[Element], lane: usize) -> [[V; S]; S] {
        let mut square = [[V::splat(0.0); S]; S];
        for (x, from) in square.as_flattened_mut().iter_mut().zip(from) {
            *x = V::from_slice(&from[lane..]);
        }
        square
    }

    #[inline(always)]
    fn product<V: Vector>(
        mut a: [[V; POINTS]; POINTS],
        b: [[V; POINTS]; POINTS],
    ) -> [[V; POINTS]; POINTS] {
        for (a, b) in a.as_flattened_mut().iter_mut().zip(b.as_flattened()) {
            *a = a.mul(*b);
        }
        a
    }

    impl Vectorized for Tile<'_> {
        #[inline(always)]
        fn run<V: Vector>(self) {
            for lane in (0..LANES).step_by(V::LANES) {
                let (d, g, dy) = (
                    load::<V, POINTS>(self.d, lane),
                    load::<V, KERNEL>(self.g, lane),
                    load::<V, OUTPUTS>(self.dy, lane),
                );
                let v = square(
                    &d,
                    #[inline(always)]
                    |d| input(d),
                );
                let u = square(
                    &g,
                    #[inline(always)]
                    |g| kernel(g),
                );
                let dm = square(
                    &dy,
                    #[inline(always)]
                    |dy| output_gradient(dy),
                );
                let y = square(
                    &product(v, u),
                    #[inline(always)]
                    |m| output(m),
                );
                let dg = square(
                    &product(v, dm),
                    #[inline(always)]
                    |du| kernel_gradient(du),
                );
                for (to, y) in self.y.iter_mut().zip(y.as_flattened()) {
                    y.to_slice(&mut to[lane..]);
                }
                for (to, dg) in self.dg.iter_mut().zip(dg.as_flattened()) {
                    dg.to_slice(&mut to[lane..]);
                }
            }
        }
    }

    #[test]
    fn a_tile_is_a_convolution_with_every_register() {
        let mut rng = Philox::new(12, [0; 3]);
        let mut element = || -> Element {
            let mut element = [0.0; LANES];
            element.iter_mut().for_each(|x| *x = rng.normal());
            element
        };
        let (mut d, mut g, mut dy) = (
            [[0.0; LANES]; PRODUCTS],
            [[0.0; LANES]; KERNEL * KERNEL],
            [[0.0; LANES]; OUTPUTS * OUTPUTS],
        );
        d.fill_with(&mut element);
        g.fill_with(&mut element);
        dy.fill_with(&mut element);
        for register in REGISTERS {
            let (mut y, mut dg) = ([[0.0; LANES]; 16], [[0.0; LANES]; 9]);
            let tile = Tile {
                d: &d,
                g: &g,
                dy: &dy,
                y: &mut y,
                dg: &mut dg,
            };
            if !run_with(register, tile) {
                continue;
            }
            for lane in 0..LANES {
                let of = |x: &[Element], at: usize| f64::from(x[at][lane]);
                let (mut expected_y, mut expected_dg) = ([0.0; 16], [0.0; 9]);
                for (output, tap) in (0..16).flat_map(|output| (0..9).map(move |tap| (output, tap)))
                {
                    let (row, column) = (output / 4 + tap / 3, output % 4 + tap % 3);
                    let d = of(&d, row * POINTS + column);
                    expected_y[output] += d * of(&g, tap);
                    expected_dg[tap] += d * of(&dy, output);
                }
                let found = y.iter().zip(expected_y).chain(dg.iter().zip(expected_dg));
                for (at, (found, expected)) in found.enumerate() {
                    let found = f64::from(found[lane]);
                    // Sums of up to 16 products of numbers of about 1.
                    assert!(
                        (found - expected).abs() < 2e-5,
                        "{register}, {at}: {found}, expected {expected}"
                    );
                }
            }
        }
    }
}
