use super::cases;
use super::{Accumulate, Add, Broadcast, Relu, ReluBackward, Scale};
use crate::tensor::Tensor;
use crate::testing::{
    check_cases, devices, different_devices, refused, refused_argument, zeros, zeros_or_refused,
    zeros_u32, zeros16,
};

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let (a, b) = (&zeros(&device, &[2, 3]), &zeros(&device, &[3, 2]));
        let integers = &zeros_u32(&device, &[2, 3]);
        let add = |a, b| device.run(Add { a, b });
        refused(name, "add: shapes", add(a, b));
        refused(name, "add: type of b", add(a, integers));
        refused(name, "add: type of both", add(integers, integers));
        refused(name, "relu: type", device.run(Relu { x: integers }));
        let relu_backward = |dy: Tensor, y| device.run(ReluBackward { dy, y });
        // Shared and not shared.
        let owned = zeros(&device, &[2, 3]);
        refused(name, "relu_backward: shapes", relu_backward(a.clone(), b));
        refused(name, "relu_backward: shapes", relu_backward(owned, b));
        let owned = zeros_u32(&device, &[2, 3]);
        let shared = integers.clone();
        refused(name, "relu_backward: type", relu_backward(shared, integers));
        refused(name, "relu_backward: type", relu_backward(owned, integers));
        let (factor, x) = (2.0, integers);
        refused(name, "scale: type", device.run(Scale { factor, x }));
        let accumulate = |sum: Tensor, x| device.run(Accumulate { sum, x });
        let owned = zeros(&device, &[2, 3]);
        refused(name, "accumulate: shapes", accumulate(a.clone(), b));
        refused(name, "accumulate: shapes", accumulate(owned, b));
        let owned = zeros(&device, &[2, 3]);
        refused(name, "accumulate: type", accumulate(owned, integers));
        let (value, shape) = (&zeros(&device, &[2]), &[2, 2]);
        let broadcast = device.run(Broadcast { value, shape });
        refused(name, "broadcast: value", broadcast);
        let (value, shape) = (&zeros(&device, &[1]), &[1 << 20, 1 << 20]);
        let broadcast = device.run(Broadcast { value, shape });
        refused(name, "broadcast: 2^40 elements", broadcast);
    }
}

#[test]
fn an_argument_of_the_wrong_type_is_named() {
    for (name, device) in devices::with_f16(devices::all()) {
        let (x, x16) = (&zeros(&device, &[2, 3]), &zeros16(&device, &[2, 3]));
        refused_argument(name, "b", device.run(Add { a: x, b: x16 }));
        let (sum, dy) = (x16.clone(), x16.clone());
        refused_argument(name, "x", device.run(Accumulate { sum, x }));
        refused_argument(name, "y", device.run(ReluBackward { dy, y: x }));
        refused_argument(
            name,
            "x",
            device.run(Scale {
                factor: 2.0,
                x: x16,
            }),
        );
    }
}

#[test]
fn tensors_without_elements() {
    for (name, device) in devices::all() {
        for shape in [&[0][..], &[0, 3], &[3, 0], &[2, 0, 4, 4]] {
            let x = &zeros(&device, shape);
            let (dy, sum) = (x.clone(), x.clone());
            let value = &zeros(&device, &[1]);
            zeros_or_refused(name, "relu", device.run(Relu { x }));
            let back = device.run(ReluBackward { dy, y: x });
            zeros_or_refused(name, "relu_backward", back);
            zeros_or_refused(name, "add", device.run(Add { a: x, b: x }));
            zeros_or_refused(name, "scale", device.run(Scale { factor: 2.0, x }));
            zeros_or_refused(name, "accumulate", device.run(Accumulate { sum, x }));
            let broadcast = device.run(Broadcast { value, shape });
            zeros_or_refused(name, "broadcast", broadcast);
        }
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    for (case, device, other) in different_devices() {
        let (own, foreign) = (&zeros(&device, &[3]), &zeros(&other, &[3]));
        refused(&case, "relu", device.run(Relu { x: foreign }));
        refused(&case, "add", device.run(Add { a: own, b: foreign }));
        refused(&case, "add", device.run(Add { a: foreign, b: own }));
        let (dy, sum) = (foreign.clone(), foreign.clone());
        let back = device.run(ReluBackward { dy, y: own });
        refused(&case, "relu_backward", back);
        refused(&case, "accumulate", device.run(Accumulate { sum, x: own }));
    }
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
