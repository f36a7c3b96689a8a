//! Row normalisation, softmax cross-entropy and NT-Xent.

use parallax::device::Device;
use parallax::device::kernels::{Normalized, RowLoss};
use parallax::device::philox::Philox;

use crate::compare::{agree, get, narrow, normal, put, put_u32, random, wide};
use crate::{devices, reference};

#[test]
fn l2_normalize_and_its_gradient() {
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
        // Under the second eps many rows count as short.
        for eps in [1e-12_f32, 0.9 * (columns as f32).sqrt()] {
            let mut x = normal(&mut rng, rows * columns);
            // Row 0 is zero, row 1 shorter than the first eps, row 2 so long that the squares are near the end of f32.
            for (row, factor) in [(0, 0.0), (1, 1e-17), (2, 1e16)] {
                if rows > 2 {
                    let row = &mut x[row * columns..][..columns];
                    row.iter_mut().for_each(|x| *x *= factor);
                }
            }
            let dy = normal(&mut rng, x.len());
            let (y, norm) =
                reference::l2_normalize::l2_normalize(columns, &wide(&x), f64::from(eps));
            let (y32, norm32) = (narrow(&y.value), narrow(&norm.value));
            let dx = reference::l2_normalize::l2_normalize_backward(
                columns,
                &wide(&dy),
                &wide(&y32),
                &wide(&norm32),
                f64::from(eps),
            );
            let shape = [rows, columns];
            for (name, device) in devices::all() {
                let case = format!("{shape:?}, eps {eps}, on {name}");
                let forward = device
                    .l2_normalize(&put(&device, &x, &shape), eps)
                    .expect(name);
                agree(
                    &format!("norm of {case}"),
                    &device,
                    &forward.norm,
                    &[rows],
                    &norm,
                );
                agree(
                    &format!("l2_normalize {case}"),
                    &device,
                    &forward.y,
                    &shape,
                    &y,
                );
                let forward = Normalized {
                    y: put(&device, &y32, &shape),
                    norm: put(&device, &norm32, &[rows]),
                };
                let back = device
                    .l2_normalize_backward(&put(&device, &dy, &shape), &forward, eps)
                    .expect(name);
                agree(
                    &format!("l2_normalize_backward {case}"),
                    &device,
                    &back,
                    &shape,
                    &dx,
                );
            }
        }
    }
}

/// Gradients of a loss that is not the last operation have a factor that is not 1.
const DLOSS: f32 = -1.7;

fn put_row_loss(device: &Device, loss: f64, log_sum_exp: &[f32]) -> RowLoss {
    RowLoss {
        loss: put(device, &[loss as f32], &[1]),
        log_sum_exp: put(device, log_sum_exp, &[log_sum_exp.len()]),
    }
}

fn softmax_cross_entropy_agrees([rows, classes]: [usize; 2], logits: &[f32], labels: &[u32]) {
    let (loss, lse) =
        reference::softmax_cross_entropy::softmax_cross_entropy(classes, &wide(logits), labels);
    let lse32 = narrow(&lse.value);
    let dlogits = reference::softmax_cross_entropy::softmax_cross_entropy_backward(
        classes,
        f64::from(DLOSS),
        &wide(logits),
        labels,
        &wide(&lse32),
    );
    let shape = [rows, classes];
    for (name, device) in devices::all() {
        let case = format!("{shape:?} on {name}");
        let (x, labels) = (
            put(&device, logits, &shape),
            put_u32(&device, labels, &[rows]),
        );
        let forward = device.softmax_cross_entropy(&x, &labels).expect(name);
        agree(
            &format!("log-sum-exp of {case}"),
            &device,
            &forward.log_sum_exp,
            &[rows],
            &lse,
        );
        agree(
            &format!("softmax_cross_entropy {case}"),
            &device,
            &forward.loss,
            &[1],
            &loss,
        );
        let forward = put_row_loss(&device, loss.value[0], &lse32);
        let dloss = put(&device, &[DLOSS], &[1]);
        let back = device
            .softmax_cross_entropy_backward(&dloss, &x, &labels, &forward)
            .expect(name);
        let case = format!("softmax_cross_entropy_backward {case}");
        agree(&case, &device, &back, &shape, &dlogits);
    }
}

fn labels(rng: &mut Philox, rows: usize, classes: usize) -> Vec<u32> {
    (0..rows).map(|_| rng.below(classes as u32)).collect()
}

#[test]
fn softmax_cross_entropy_and_its_gradient() {
    let mut rng = random(61);
    let shapes = [
        [1, 1],
        [1, 10],
        [3, 5],
        [65, 17],
        [257, 10],
        [64, 1000],
        [130, 129],
        [5, 3],
        [300, 100],
        [1, 257],
    ];
    for shape in shapes {
        let logits = normal(&mut rng, shape[0] * shape[1]);
        let labels = labels(&mut rng, shape[0], shape[1]);
        softmax_cross_entropy_agrees(shape, &logits, &labels);
    }
}

#[test]
fn softmax_cross_entropy_of_logits_between_minus_80_and_80() {
    let mut rng = random(62);
    for shape in [[7, 2], [65, 10], [33, 129]] {
        let logits: Vec<f32> = (0..shape[0] * shape[1])
            .map(|_| [-80.0, 80.0, 79.5, 0.0][rng.below(4) as usize])
            .collect();
        let labels = labels(&mut rng, shape[0], shape[1]);
        softmax_cross_entropy_agrees(shape, &logits, &labels);
    }
}

#[test]
fn a_label_out_of_range_makes_the_loss_nan() {
    let logits = normal(&mut random(63), 65 * 10);
    for (row, label) in [(0, 10), (64, u32::MAX), (33, 11)] {
        let mut labels = vec![9; 65];
        labels[row] = label;
        for (name, device) in devices::all() {
            let (x, labels) = (
                put(&device, &logits, &[65, 10]),
                put_u32(&device, &labels, &[65]),
            );
            let forward = device.softmax_cross_entropy(&x, &labels).expect(name);
            let loss = get(&device, &forward.loss);
            assert!(
                loss[0].is_nan(),
                "label {label} in row {row} on {name}: {loss:?}"
            );
        }
    }
}

/// Random rows of length 1, rounded to f32.
fn unit_rows(rng: &mut Philox, rows: usize, columns: usize) -> Vec<f32> {
    let x = wide(&normal(rng, rows * columns));
    narrow(
        &reference::l2_normalize::l2_normalize(columns, &x, 1e-12)
            .0
            .value,
    )
}

fn nt_xent_agrees(what: &str, [rows, columns]: [usize; 2], z: &[f32], temperature: f32) {
    let t = f64::from(temperature);
    let (loss, lse) = reference::nt_xent::nt_xent(columns, &wide(z), t);
    let lse32 = narrow(&lse.value);
    let dz =
        reference::nt_xent::nt_xent_backward(columns, f64::from(DLOSS), &wide(z), t, &wide(&lse32));
    let shape = [rows, columns];
    for (name, device) in devices::all() {
        let case = format!("{what} {shape:?}, temperature {temperature}, on {name}");
        let z = put(&device, z, &shape);
        let forward = device.nt_xent(&z, temperature).expect(name);
        agree(
            &format!("log-sum-exp of {case}"),
            &device,
            &forward.log_sum_exp,
            &[rows],
            &lse,
        );
        agree(
            &format!("nt_xent {case}"),
            &device,
            &forward.loss,
            &[1],
            &loss,
        );
        let forward = put_row_loss(&device, loss.value[0], &lse32);
        let dloss = put(&device, &[DLOSS], &[1]);
        let back = device
            .nt_xent_backward(&dloss, &z, temperature, &forward)
            .expect(name);
        agree(
            &format!("nt_xent_backward {case}"),
            &device,
            &back,
            &shape,
            &dz,
        );
    }
}

#[test]
fn nt_xent_and_its_gradient() {
    let mut rng = random(64);
    for rows in [2, 4, 6, 64, 130, 514, 516] {
        for columns in [1, 7, 128] {
            let z = unit_rows(&mut rng, rows, columns);
            for temperature in [0.05, 0.5, 1.0] {
                nt_xent_agrees("random rows", [rows, columns], &z, temperature);
            }
        }
    }
    // More rows than two tiles have columns.
    let z = unit_rows(&mut rng, 1030, 3);
    nt_xent_agrees("random rows", [1030, 3], &z, 0.1);
}

#[test]
fn nt_xent_of_equal_views_and_of_collapsed_rows() {
    let mut rng = random(65);
    for (rows, columns) in [(6, 7), (130, 128)] {
        let half = unit_rows(&mut rng, rows / 2, columns);
        let views = [half.clone(), half].concat();
        nt_xent_agrees("equal views", [rows, columns], &views, 0.1);
        let row = unit_rows(&mut rng, 1, columns);
        nt_xent_agrees("equal rows", [rows, columns], &row.repeat(rows), 0.1);
        // Probabilities that are no normal floats.
        nt_xent_agrees("cold", [rows, columns], &views, 0.01);
    }
}

#[test]
fn nan_among_the_rows_makes_nt_xent_nan() {
    let mut rng = random(66);
    for (rows, at) in [(2, 0), (2, 1), (130, 64), (1030, 700)] {
        let mut z = unit_rows(&mut rng, rows, 7);
        z[at * 7 + 3] = f32::NAN;
        for (name, device) in devices::all() {
            let z = put(&device, &z, &[rows, 7]);
            let loss = device.nt_xent(&z, 0.5).expect(name).loss;
            let loss = get(&device, &loss);
            assert!(
                loss[0].is_nan(),
                "{rows} rows, NaN in row {at}, on {name}: {loss:?}"
            );
        }
    }
}
