use super::{Concat, Copy, Slice};
use crate::tensor::{DType, Tensor};
use crate::testing::{
    Expected, agree, check_gradients, devices, different_devices, normal, normal_leaf, put, random,
    refused, refused_argument, size, wide, zeros, zeros_or_refused, zeros16,
};

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
            let (a, b) = (
                &put(&device, &a, &shape(above)),
                &put(&device, &b, &shape(below)),
            );
            let y = &device.run(Concat { a, b }).expect(name);
            let expected = Expected::exact(wide(&joined));
            agree(&format!("concat {case}"), y, &shape(rows), &expected);
            for (start, count) in [(0, above), (above, below), (start, count)] {
                let part = device.run(Slice { x: y, start, count }).expect(name);
                let elements = &joined[start * columns..][..count * columns];
                let expected = Expected::exact(wide(elements));
                let case = format!("slice {start} + {count} of {case}");
                agree(&case, &part, &shape(count), &expected);
            }
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let (a, b) = (&zeros(&device, &[2, 3]), &zeros(&device, &[3, 2]));
        let concat = |a, b| device.run(Concat { a, b });
        refused(name, "concat: rows", concat(a, b));
        let vector = &zeros(&device, &[3]);
        refused(name, "concat: dimensions", concat(a, vector));
        let slice = |start, count| device.run(Slice { x: a, start, count });
        refused(name, "slice: past the end", slice(1, 2));
        refused(name, "slice: an overflow", slice(usize::MAX, 2));
    }
}

#[test]
fn an_argument_of_the_wrong_type_is_named() {
    for (name, device) in devices::with_f16(devices::all()) {
        let x = &zeros16(&device, &[2, 3, 4, 4]);
        refused_argument(name, "a", device.run(Concat { a: x, b: x }));
        let (start, count) = (0, 1);
        refused_argument(name, "x", device.run(Slice { x, start, count }));
    }
}

#[test]
fn tensors_without_elements() {
    for (name, device) in devices::all() {
        for shape in [&[0][..], &[0, 3], &[3, 0], &[2, 0, 4, 4]] {
            let x = &zeros(&device, shape);
            zeros_or_refused(name, "copy", device.run(Copy { x }));
            zeros_or_refused(name, "concat", device.run(Concat { a: x, b: x }));
            let (start, count) = (0, 0);
            zeros_or_refused(name, "slice", device.run(Slice { x, start, count }));
        }
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    for (case, device, other) in different_devices() {
        let (own, x) = (&zeros(&device, &[3]), &zeros(&other, &[3]));
        refused(&case, "copy", device.run(Copy { x }));
        let bytes = &Tensor::zeros(&[3], DType::U8, &other).expect(&case);
        refused(&case, "copy of bytes", device.run(Copy { x: bytes }));
        refused(&case, "concat", device.run(Concat { a: own, b: x }));
        let (start, count) = (0, 1);
        refused(&case, "slice", device.run(Slice { x, start, count }));
    }
}

#[test]
fn gradients() {
    let leaves = [normal_leaf(1, &[2, 3, 2]), normal_leaf(2, &[3, 3, 2])];
    check_gradients("concat", &leaves, |x| x[0].concat(&x[1]));
    for (start, count) in [(0, 5), (0, 2), (2, 3), (1, 3)] {
        let case = format!("slice {start} + {count}");
        check_gradients(&case, &[normal_leaf(1, &[5, 3])], |x| {
            x[0].slice(start, count)
        });
    }
    check_gradients("reshape", &[normal_leaf(1, &[3, 4])], |x| {
        x[0].reshape(&[2, 6])
    });
}
