use super::cases;
use super::{Concat, CopyTensor, Slice};
use crate::tensor::{DType, Tensor};
use crate::testing::{
    check_cases, devices, different_devices, refused, refused_argument, zeros, zeros_or_refused,
    zeros16,
};

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
            zeros_or_refused(name, "copy", device.run(CopyTensor { x }));
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
        refused(&case, "copy", device.run(CopyTensor { x }));
        let bytes = &Tensor::zeros(&[3], DType::U8, &other).expect(&case);
        refused(&case, "copy of bytes", device.run(CopyTensor { x: bytes }));
        refused(&case, "concat", device.run(Concat { a: own, b: x }));
        let (start, count) = (0, 1);
        refused(&case, "slice", device.run(Slice { x, start, count }));
    }
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
