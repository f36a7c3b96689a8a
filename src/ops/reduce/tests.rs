use super::cases;
use super::{CheckFinite, SumRows};
use crate::ops::reduce;
use crate::testing::{
    check_cases, devices, different_devices, get_u32, normal, put, put_u32, put16, random, refused,
    refused_argument, same_bits, zeros, zeros_or_refused, zeros_u32, zeros16,
};

/// The last word of an odd number of f16 elements holds one element, and memory that belongs to
/// none.
#[test]
fn check_finite_ignores_memory_after_the_last_element() {
    for (name, device) in devices::with_f16(devices::all()) {
        for count in [3, 65] {
            for _ in 0..4 {
                drop(put16(&device, &vec![f32::NAN; count + 1], &[count + 1]));
            }
            let flag = &put_u32(&device, &[0], &[1]);
            let x = &put16(&device, &vec![1.0; count], &[count]);
            device.run(CheckFinite { x, flag }).expect(name);
            assert_eq!(get_u32(flag), [0], "{count} on {name}");
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let (x, integers) = (&zeros(&device, &[2, 3]), &zeros_u32(&device, &[2, 3]));
        refused(name, "sum: type", device.run(reduce::Sum { x: integers }));
        let cube = &zeros(&device, &[2, 3, 4]);
        let sum_rows = |x| device.run(SumRows { x });
        refused(name, "sum_rows: dimensions", sum_rows(cube));
        refused(name, "sum_rows: type", sum_rows(integers));
        let check_finite = |x, flag| device.run(CheckFinite { x, flag });
        let two = &zeros_u32(&device, &[2]);
        refused(name, "check_finite: shape of flag", check_finite(x, two));
        let float = &zeros(&device, &[1]);
        refused(name, "check_finite: type of flag", check_finite(x, float));
        let flag = &zeros_u32(&device, &[1]);
        refused(name, "check_finite: x", check_finite(integers, flag));
    }
    for (name, device) in devices::with_f16(devices::all()) {
        let x = &zeros16(&device, &[2, 3]);
        refused_argument(name, "x", device.run(reduce::Sum { x }));
        refused_argument(name, "x", device.run(SumRows { x }));
    }
}

#[test]
fn tensors_without_elements() {
    for (name, device) in devices::all() {
        for shape in [&[0][..], &[0, 3], &[3, 0], &[2, 0, 4, 4]] {
            let x = &zeros(&device, shape);
            zeros_or_refused(name, "sum", device.run(reduce::Sum { x }));
            let flag = &zeros_u32(&device, &[1]);
            device.run(CheckFinite { x, flag }).expect(name);
            assert_eq!(get_u32(flag), [0], "{shape:?} on {name}");
        }
        for shape in [[0, 3], [3, 0]] {
            let x = &zeros(&device, &shape);
            zeros_or_refused(name, "sum_rows", device.run(SumRows { x }));
        }
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    for (case, device, other) in different_devices() {
        let (own, foreign) = (&zeros(&device, &[2, 3]), &zeros(&other, &[2, 3]));
        refused(&case, "sum", device.run(reduce::Sum { x: foreign }));
        refused(&case, "sum_rows", device.run(SumRows { x: foreign }));
        let flag = &zeros_u32(&other, &[1]);
        let checked = device.run(CheckFinite { x: own, flag });
        refused(&case, "check_finite: flag", checked);
        let flag = &zeros_u32(&device, &[1]);
        let checked = device.run(CheckFinite { x: foreign, flag });
        refused(&case, "check_finite: x", checked);
    }
}

#[test]
fn equal_calls_give_equal_bits() {
    let mut rng = random(90);
    let x = normal(&mut rng, 9 * 17 * 16 * 15);
    let rows = normal(&mut rng, 301 * 65);
    same_bits(devices::all(), |device| {
        let x = &put(device, &x, &[9, 17, 16, 15]);
        let rows = &put(device, &rows, &[301, 65]);
        [
            ("sum", device.run(reduce::Sum { x }).expect("sum")),
            ("sum_rows", device.run(SumRows { x: rows }).expect("rows")),
        ]
    });
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
