//! Row normalisation against float64.

use super::{L2Normalize, L2NormalizeBackward, Normalized};
use crate::Tensor;
use crate::testing::accuracy::{DIVISION, SQRT, U};
use crate::testing::{
    Expected, Sum, agree, check_gradients, check_reference, devices, dot, get, narrow, normal,
    normal_leaf, numbers, put, random, refused, same_bits, wide, zeros, zeros_u32,
};

/// Returns `y` and the norms.
///
/// A norm is the root of a sum of D squares: half of the relative error of that sum, and the error
/// of the root. `y` is divided by it.
fn l2_normalize(columns: usize, x: &[f64], eps: f64) -> (Expected, Expected) {
    let (mut y, mut norms) = (Expected::default(), Expected::default());
    let relative = 2.0 * (columns as f64).sqrt() * U + SQRT;
    for row in x.chunks(columns) {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(eps);
        norms.push(norm, relative * norm);
        for x in row {
            y.push(x / norm, (relative + DIVISION) * (x / norm).abs());
        }
    }
    (y, norms)
}

/// Returns `dx = (dy - y (y . dy)) / norm`, or `dy / norm` if the row was shorter than `eps`.
///
/// The bracket is a sum of two terms. The second has the error of a dot product of D terms and of a
/// product. A division follows.
fn l2_normalize_backward(
    columns: usize,
    dy: &[f64],
    (y, norm): (&[f64], &[f64]),
    eps: f64,
) -> Expected {
    let mut dx = Expected::default();
    for ((dy, y), &norm) in dy.chunks(columns).zip(y.chunks(columns)).zip(norm) {
        let along = Sum::of(y.iter().zip(dy).map(|(y, dy)| y * dy));
        for (y, dy) in y.iter().zip(dy) {
            if norm <= eps {
                dx.push(dy / norm, DIVISION * (dy / norm).abs());
                continue;
            }
            let bracket = Sum::of([*dy, -y * along.value]);
            let value = bracket.value / norm;
            let inherited = y.abs() * (along.bound() + U * along.value.abs());
            let bound = (bracket.bound() + inherited) / norm + DIVISION * value.abs();
            dx.push(value, bound);
        }
    }
    dx
}

#[test]
fn the_reference_has_the_gradient_of_its_forward_pass() {
    let (x, dy) = (numbers(114, 21), numbers(115, 21));
    // With the second eps, every row is short.
    for eps in [1e-12, 100.0] {
        let (y, norm) = l2_normalize(7, &x, eps);
        let dx = l2_normalize_backward(7, &dy, (&y.value, &norm.value), eps);
        check_reference("dx", &x, &dx.value, |x| {
            dot(&dy, &l2_normalize(7, x, eps).0.value)
        });
    }
}

#[test]
fn agreement_with_float64() {
    let mut rng = random(60);
    let shapes = [
        [1, 1],
        [3, 7],
        [5, 17],
        [65, 128],
        [257, 17],
        [2, 1000],
        [130, 129],
        [1, 64],
    ];
    for [rows, columns] in shapes {
        // With the second eps, many rows are short.
        for eps in [1e-12_f32, 0.9 * (columns as f32).sqrt()] {
            let mut x = normal(&mut rng, rows * columns);
            // Row 0 is zero, row 1 is shorter than the first eps, and the squares of row 2 are near
            // the largest f32.
            for (row, factor) in [(0, 0.0), (1, 1e-17), (2, 1e16)] {
                if rows > 2 {
                    let row = &mut x[row * columns..][..columns];
                    row.iter_mut().for_each(|x| *x *= factor);
                }
            }
            let dy = normal(&mut rng, x.len());
            let eps64 = f64::from(eps);
            let (y, norm) = l2_normalize(columns, &wide(&x), eps64);
            let (y32, norm32) = (narrow(&y.value), narrow(&norm.value));
            let of_y = (&wide(&y32)[..], &wide(&norm32)[..]);
            let dx = l2_normalize_backward(columns, &wide(&dy), of_y, eps64);
            let shape = [rows, columns];
            for (name, device) in devices::all() {
                let case = format!("of {shape:?}, eps {eps}, on {name}");
                let x = &put(&device, &x, &shape);
                let forward = device.run(L2Normalize { x, eps }).expect(name);
                agree(&format!("norm {case}"), &forward.norm, &[rows], &norm);
                agree(&format!("y {case}"), &forward.y, &shape, &y);
                let forward = &Normalized {
                    y: put(&device, &y32, &shape),
                    norm: put(&device, &norm32, &[rows]),
                };
                let dy = &put(&device, &dy, &shape);
                let back = device.run(L2NormalizeBackward { dy, forward, eps });
                agree(&format!("dx {case}"), &back.expect(name), &shape, &dx);
            }
        }
    }
}

#[test]
fn gradients() {
    let leaves = [normal_leaf(1, &[4, 6])];
    // With the second eps, every row is short and is divided by eps.
    for eps in [1e-12, 100.0] {
        check_gradients(&format!("l2_normalize, eps {eps}"), &leaves, |x| {
            x[0].l2_normalize(eps)
        });
    }
}

#[test]
fn results_are_deterministic() {
    same_bits(devices::all(), |device| {
        let x = &put(device, &normal(&mut random(90), 130 * 128), &[130, 128]);
        let eps = 1e-12;
        let forward = &device.run(L2Normalize { x, eps }).expect("rows");
        let dy = x;
        let back = device.run(L2NormalizeBackward { dy, forward, eps });
        [
            ("y", forward.y.clone()),
            ("norm", forward.norm.clone()),
            ("dx", back.expect("dx")),
        ]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let eps = 1e-12;
    for (name, device) in devices::all() {
        let forward = |x: &Tensor| device.run(L2Normalize { x, eps });
        refused(name, "dimensions", forward(&zeros(&device, &[4])));
        refused(name, "type", forward(&zeros_u32(&device, &[4, 3])));
        let backward = |dy: &[usize], y: &[usize], rows| {
            let forward = &Normalized {
                y: zeros(&device, y),
                norm: zeros(&device, &[rows]),
            };
            let dy = &zeros(&device, dy);
            device.run(L2NormalizeBackward { dy, forward, eps })
        };
        refused(name, "dy", backward(&[3, 4], &[4, 3], 4));
        refused(name, "norm", backward(&[4, 3], &[4, 3], 3));
        refused(name, "y", backward(&[4, 3], &[4, 2], 4));
        backward(&[4, 3], &[4, 3], 4).expect("arguments that fit");
    }
}

#[test]
fn a_matrix_without_elements_has_a_result_without_elements() {
    for (name, device) in devices::all() {
        for shape in [[0, 3], [3, 0]] {
            let x = &zeros(&device, &shape);
            let eps = 1e-12;
            let forward = &device.run(L2Normalize { x, eps }).expect(name);
            let back = device.run(L2NormalizeBackward {
                dy: x,
                forward,
                eps,
            });
            for y in [&forward.y, &back.expect(name)] {
                assert_eq!(y.shape(), shape, "{name}");
                assert!(get(y).is_empty(), "{name}");
            }
        }
    }
}
