//! Matrix products and the linear layer.

use parallax::device::kernels::Gemm;

use crate::compare::{agree, normal, put, random, size, wide};
use crate::{devices, reference};

/// The four transpositions.
fn transpositions() -> [Gemm; 4] {
    [(false, false), (false, true), (true, false), (true, true)].map(|(a, b)| Gemm {
        transpose_a: a,
        transpose_b: b,
    })
}

fn gemm_agrees(stream: u32, sizes: &[[usize; 3]]) {
    let mut rng = random(stream);
    for &[m, n, k] in sizes {
        let (a, b) = (normal(&mut rng, m * k), normal(&mut rng, k * n));
        for options in transpositions() {
            let expected = reference::gemm::gemm(options, [m, n, k], &wide(&a), &wide(&b));
            let a_shape = if options.transpose_a { [k, m] } else { [m, k] };
            let b_shape = if options.transpose_b { [n, k] } else { [k, n] };
            for (name, device) in devices::all_variants() {
                // One row must fit a binding.
                if name == devices::SLICED && 4 * k.max(n) + 256 > devices::SMALL_BINDING {
                    continue;
                }
                let (da, db) = (put(&device, &a, &a_shape), put(&device, &b, &b_shape));
                let c = device.gemm(options, &da, &db).expect(name);
                let case = format!("gemm {m} x {n} x {k} {options:?} on {name}");
                agree(&case, &device, &c, &[m, n], &expected);
            }
        }
    }
}

#[test]
fn gemm_of_thin_and_tiny_matrices() {
    let sizes = [
        [1, 1, 1],
        [1, 1, 129],
        [1, 129, 1],
        [129, 1, 1],
        [3, 5, 7],
        [17, 1, 64],
        [1, 17, 64],
        [5, 257, 17],
        [257, 17, 5],
        [31, 33, 1000],
        // More terms than one dispatch adds up.
        [2, 3, 70_001],
    ];
    gemm_agrees(20, &sizes);
}

#[test]
fn gemm_across_tile_borders() {
    let sizes = [
        [63, 65, 64],
        [64, 64, 64],
        [65, 63, 129],
        [129, 130, 33],
        [128, 128, 16],
        [257, 129, 65],
        // Ragged edges of the CPU's tiles.
        [130, 259, 12],
        [257, 513, 5],
        // The ragged edges of the largest tile, and an odd number of terms.
        [250, 123, 37],
        [250, 124, 37],
        // Columns, and but for the last rows, of whole vec4s: with ragged edges of the tile.
        [68, 72, 4],
        [128, 64, 132],
        [20, 8, 64],
        [66, 136, 36],
    ];
    gemm_agrees(21, &sizes);
}

#[test]
fn gemm_of_random_sizes() {
    let mut rng = random(22);
    let sizes: Vec<[usize; 3]> = (0..8)
        .map(|_| std::array::from_fn(|_| size(&mut rng, 1, 150)))
        .collect();
    gemm_agrees(23, &sizes);
}

#[test]
fn linear() {
    let mut rng = random(24);
    let mut sizes = vec![
        [1, 1, 1],
        [1, 128, 10],
        [7, 17, 5],
        [64, 64, 64],
        [65, 129, 63],
        [257, 33, 130],
        [2, 1000, 3],
        // Inputs and outputs of whole vec4s.
        [67, 36, 72],
    ];
    sizes.extend((0..4).map(|_| std::array::from_fn(|_| size(&mut rng, 1, 150))));
    for [n, i, o] in sizes {
        let (x, w) = (normal(&mut rng, n * i), normal(&mut rng, o * i));
        let bias = normal(&mut rng, o);
        let expected = reference::gemm::linear([n, i, o], &wide(&x), &wide(&w), &wide(&bias));
        for (name, device) in devices::all_variants() {
            let (dx, dw) = (put(&device, &x, &[n, i]), put(&device, &w, &[o, i]));
            let y = device
                .linear(&dx, &dw, &put(&device, &bias, &[o]))
                .expect(name);
            let case = format!("linear {n} x {i} to {o} on {name}");
            agree(&case, &device, &y, &[n, o], &expected);
        }
    }
}
