//! Element-wise kernels, copies and joins.

use parallax::device::philox::Philox;

use crate::compare::{agree, bits, get, normal, put, random, size, wide};
use crate::devices;
use crate::reference::{self, Expected};

/// Around vectors of four and eight and workgroups of 64 and 256; beyond a small binding; and some at random.
fn counts(rng: &mut Philox) -> Vec<usize> {
    let mut counts = vec![
        1, 2, 3, 4, 5, 8, 63, 64, 65, 129, 255, 256, 257, 1023, 40_000, 40_001,
    ];
    counts.extend((0..4).map(|_| size(rng, 1, 5000)));
    counts
}

#[test]
fn add() {
    let mut rng = random(1);
    for count in counts(&mut rng) {
        let (a, b) = (normal(&mut rng, count), normal(&mut rng, count));
        for (name, device) in devices::all() {
            let (da, db) = (put(&device, &a, &[count]), put(&device, &b, &[count]));
            let sum = device.add(&da, &db).expect(name);
            let expected = reference::elementwise::add(&wide(&a), &wide(&b));
            agree(
                &format!("add {count} on {name}"),
                &device,
                &sum,
                &[count],
                &expected,
            );
        }
    }
}

#[test]
fn add_accepts_one_tensor_twice() {
    let x = normal(&mut random(2), 77);
    let expected = reference::elementwise::add(&wide(&x), &wide(&x));
    for (name, device) in devices::all() {
        let dx = put(&device, &x, &[7, 11]);
        let sum = device.add(&dx, &dx).expect(name);
        agree(
            &format!("x + x on {name}"),
            &device,
            &sum,
            &[7, 11],
            &expected,
        );
    }
}

#[test]
fn relu_and_its_gradient() {
    let mut rng = random(3);
    for count in counts(&mut rng) {
        let (mut x, dy) = (normal(&mut rng, count), normal(&mut rng, count));
        x[count / 2] = 0.0;
        for (name, device) in devices::all() {
            let y = device.relu(&put(&device, &x, &[count])).expect(name);
            let expected = reference::elementwise::relu(&wide(&x));
            agree(
                &format!("relu {count} on {name}"),
                &device,
                &y,
                &[count],
                &expected,
            );
            let dy_there = put(&device, &dy, &[count]);
            let dx = device.relu_backward(&dy_there, &y).expect(name);
            let expected = reference::elementwise::relu_backward(&wide(&dy), &expected.value);
            let case = format!("relu_backward {count} on {name}");
            agree(&case, &device, &dx, &[count], &expected);
            device.relu_backward_in_place(&dy_there, &y).expect(name);
            agree(&case, &device, &dy_there, &[count], &expected);
        }
    }
}

#[test]
fn relu_keeps_what_is_not_a_number() {
    let x = [
        f32::NAN,
        -1.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        -0.0,
        2.0,
        -f32::NAN,
    ];
    let ones = [1.0; 7];
    for (name, device) in devices::all() {
        let y = device.relu(&put(&device, &x, &[7])).expect(name);
        let expected = reference::elementwise::relu(&wide(&x));
        agree(
            &format!("relu of NaN on {name}"),
            &device,
            &y,
            &[7],
            &expected,
        );
        let back = device
            .relu_backward(&put(&device, &ones, &[7]), &y)
            .expect(name);
        let in_place = put(&device, &ones, &[7]);
        device.relu_backward_in_place(&in_place, &y).expect(name);
        assert_eq!(bits(&get(&device, &in_place)), bits(&get(&device, &back)));
        let expected = reference::elementwise::relu_backward(&wide(&ones), &expected.value);
        agree(
            &format!("relu_backward at NaN on {name}"),
            &device,
            &back,
            &[7],
            &expected,
        );
    }
}

#[test]
fn scale_and_axpy() {
    let mut rng = random(4);
    for count in counts(&mut rng) {
        let (x, y) = (normal(&mut rng, count), normal(&mut rng, count));
        let factor = rng.uniform(-3.0, 3.0);
        for (name, device) in devices::all() {
            let (dx, dy) = (put(&device, &x, &[count]), put(&device, &y, &[count]));
            let expected = reference::elementwise::scale(f64::from(factor), &wide(&x));
            let scaled = device.scale(factor, &dx).expect(name);
            agree(
                &format!("scale {count} on {name}"),
                &device,
                &scaled,
                &[count],
                &expected,
            );
            device.axpy(factor, &dx, &dy).expect(name);
            let expected = reference::elementwise::axpy(f64::from(factor), &wide(&x), &wide(&y));
            agree(
                &format!("axpy {count} on {name}"),
                &device,
                &dy,
                &[count],
                &expected,
            );
            agree(
                &format!("axpy's x {count} on {name}"),
                &device,
                &dx,
                &[count],
                &Expected::exact(wide(&x)),
            );
        }
    }
}

#[test]
fn broadcast_fills_any_shape() {
    let shapes: [&[usize]; 5] = [&[1], &[257], &[3, 65], &[2, 3, 5, 7], &[3, 129, 129]];
    for shape in shapes {
        let expected = Expected::exact(vec![-1.25; shape.iter().product()]);
        for (name, device) in devices::all() {
            let y = device
                .broadcast(&put(&device, &[-1.25], &[1]), shape)
                .expect(name);
            agree(
                &format!("broadcast on {name}"),
                &device,
                &y,
                shape,
                &expected,
            );
        }
    }
}

#[test]
fn concat_and_slice_copy_rows() {
    let mut rng = random(5);
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
        for (name, device) in devices::all() {
            let case = format!("{above} and {below} rows of {row:?} on {name}");
            let (da, db) = (
                put(&device, &a, &shape(above)),
                put(&device, &b, &shape(below)),
            );
            let y = device.concat(&da, &db).expect(name);
            let expected = Expected::exact(wide(&joined));
            agree(
                &format!("concat {case}"),
                &device,
                &y,
                &shape(rows),
                &expected,
            );
            for (start, count) in [(0, above), (above, below), (start, count)] {
                let part = device.slice(&y, start, count).expect(name);
                let elements = &joined[start * columns..][..count * columns];
                let expected = Expected::exact(wide(elements));
                let case = format!("slice {start} + {count} of {case}");
                agree(&case, &device, &part, &shape(count), &expected);
            }
        }
    }
}
