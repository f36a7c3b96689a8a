//! Convolution and its two gradients, all from one loop over the products of the definition. K is the number of
//! products that an output really has: those with padding are left out.

use parallax::device::shapes::ConvGeometry;

use super::{Expected, Sum};

/// Calls `product(x index, w index, y index)` for every product of the convolution.
fn for_each_product(g: &ConvGeometry, mut product: impl FnMut(usize, usize, usize)) {
    for n in 0..g.n {
        for o in 0..g.o {
            for i in 0..g.oh {
                for j in 0..g.ow {
                    let y = ((n * g.o + o) * g.oh + i) * g.ow + j;
                    for c in 0..g.c {
                        for u in 0..g.kh {
                            for v in 0..g.kw {
                                let (row, column) = (i * g.stride + u, j * g.stride + v);
                                let inside = (g.padding..g.padding + g.h).contains(&row)
                                    && (g.padding..g.padding + g.w).contains(&column);
                                if inside {
                                    let (row, column) = (row - g.padding, column - g.padding);
                                    let x = ((n * g.c + c) * g.h + row) * g.w + column;
                                    let w = ((o * g.c + c) * g.kh + u) * g.kw + v;
                                    product(x, w, y);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub fn conv2d(g: &ConvGeometry, x: &[f64], w: &[f64]) -> Expected {
    let mut sums = vec![Sum::default(); g.n * g.o * g.oh * g.ow];
    for_each_product(g, |xi, wi, yi| sums[yi].add(x[xi] * w[wi]));
    sums.into_iter().collect()
}

pub fn conv2d_dx(g: &ConvGeometry, dy: &[f64], w: &[f64]) -> Expected {
    let mut sums = vec![Sum::default(); g.n * g.c * g.h * g.w];
    for_each_product(g, |xi, wi, yi| sums[xi].add(dy[yi] * w[wi]));
    sums.into_iter().collect()
}

pub fn conv2d_dw(g: &ConvGeometry, dy: &[f64], x: &[f64]) -> Expected {
    let mut sums = vec![Sum::default(); g.o * g.c * g.kh * g.kw];
    for_each_product(g, |xi, wi, yi| sums[wi].add(dy[yi] * x[xi]));
    sums.into_iter().collect()
}
