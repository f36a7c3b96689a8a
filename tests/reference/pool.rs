//! Max-pool and the global average.

use parallax::device::shapes::Pool2d;

use super::accuracy::DIVISION;
use super::{Expected, Sum};

/// The maximum of each window, and where in its plane it stands: the first of several equal ones. A window with a NaN
/// gives NaN, at the first NaN.
pub fn max_pool2d(
    [n, c, h, w]: [usize; 4],
    [oh, ow]: [usize; 2],
    pool: Pool2d,
    x: &[f64],
) -> (Expected, Vec<u32>) {
    let (mut y, mut argmax) = (Vec::new(), Vec::new());
    for plane in x.chunks(h * w).take(n * c) {
        for i in 0..oh {
            for j in 0..ow {
                let mut best: Option<usize> = None;
                for u in 0..pool.kernel {
                    for v in 0..pool.kernel {
                        let (row, column) = (i * pool.stride + u, j * pool.stride + v);
                        if row < pool.padding || column < pool.padding {
                            continue;
                        }
                        let (row, column) = (row - pool.padding, column - pool.padding);
                        if row >= h || column >= w {
                            continue;
                        }
                        let here = row * w + column;
                        let better = match best {
                            None => true,
                            Some(best) if plane[best].is_nan() => false,
                            Some(best) => plane[here] > plane[best] || plane[here].is_nan(),
                        };
                        if better {
                            best = Some(here);
                        }
                    }
                }
                let best = best.expect("padding is at most half of the kernel");
                y.push(plane[best]);
                argmax.push(best as u32);
            }
        }
    }
    (Expected::exact(y), argmax)
}

/// Each dy added where its maximum stood; K is the number of windows with that maximum.
pub fn max_pool2d_backward(
    [n, c, h, w]: [usize; 4],
    [oh, ow]: [usize; 2],
    dy: &[f64],
    argmax: &[u32],
) -> Expected {
    let mut sums = vec![Sum::default(); n * c * h * w];
    for (i, (dy, &at)) in dy.iter().zip(argmax).enumerate() {
        sums[i / (oh * ow) * h * w + at as usize].add(*dy);
    }
    sums.into_iter().collect()
}

/// The mean of each plane: a sum of H W terms, and a division.
pub fn global_average_pool(plane: usize, x: &[f64]) -> Expected {
    let mut y = Expected::default();
    for plane_of_x in x.chunks(plane) {
        let sum = Sum::of(plane_of_x.iter().copied());
        let mean = sum.value / plane as f64;
        y.push(mean, sum.bound() / plane as f64 + DIVISION * mean.abs());
    }
    y
}

pub fn global_average_pool_backward(plane: usize, dy: &[f64]) -> Expected {
    let spread = |dy: &f64| std::iter::repeat_n(dy / plane as f64, plane);
    Expected::elementwise(dy.iter().flat_map(spread).collect())
}
