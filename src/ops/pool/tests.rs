use super::cases::{
    self, global_average_pool_backward_in_float64, global_average_pool_in_float64,
    max_pool2d_backward_in_float64, max_pool2d_in_float64, options,
};
use super::{
    GlobalAveragePool, GlobalAveragePoolBackward, MaxPool2d, MaxPool2dBackward, MaxPooled,
};
use crate::tensor::{DType, Tensor};
use crate::testing::{
    check_cases, check_reference, devices, different_devices, dot, normal, numbers, put, random,
    refused, refused_argument, same_bits, zeros, zeros_or_refused, zeros_u32, zeros16,
};

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let x_shape = [2, 3, 5, 5];
        let halves = options(2, 2, 0);
        let pool = |x: &Tensor, options| device.run(MaxPool2d { x, options });
        let x = &zeros(&device, &x_shape);
        refused(name, "max_pool2d: window", pool(x, options(6, 1, 0)));
        refused(name, "max_pool2d: stride 0", pool(x, options(2, 0, 0)));
        refused(name, "max_pool2d: kernel 0", pool(x, options(0, 1, 0)));
        refused(name, "max_pool2d: padding", pool(x, options(3, 1, 2)));
        for kernel in [3, usize::MAX] {
            let endless = options(kernel, 1, usize::MAX / 2);
            refused(name, "max_pool2d: endless padding", pool(x, endless));
        }
        let matrix = &zeros(&device, &[5, 5]);
        refused(name, "max_pool2d: dimensions", pool(matrix, halves));
        let integers = &zeros_u32(&device, &x_shape);
        refused(name, "max_pool2d: type", pool(integers, halves));
        let (dy, argmax) = (
            &zeros(&device, &[2, 3, 2, 2]),
            &zeros_u32(&device, &[2, 3, 2, 2]),
        );
        let backward = |what: &str, dy: &Tensor, argmax: &Tensor, x_shape| {
            let result = device.run(MaxPool2dBackward {
                dy,
                argmax,
                x_shape,
                options: halves,
            });
            refused(name, &format!("max_pool2d_backward: {what}"), result);
        };
        backward("dy", &zeros(&device, &[2, 3, 2, 3]), argmax, x_shape);
        let other = &zeros_u32(&device, &[2, 3, 4, 1]);
        backward("argmax", dy, other, x_shape);
        backward("type of argmax", dy, dy, x_shape);
        backward("x_shape", dy, argmax, [2, 3, 6, 5]);
        let fitting = MaxPool2dBackward {
            dy,
            argmax,
            x_shape,
            options: halves,
        };
        device.run(fitting).expect("arguments that fit");
        let average = |x| device.run(GlobalAveragePool { x });
        let matrix = &zeros(&device, &[2, 3]);
        refused(name, "average: dimensions", average(matrix));
        refused(name, "average: type", average(integers));
        let backward = |dy: &Tensor| {
            device.run(GlobalAveragePoolBackward {
                dy,
                x_shape,
                dtype: DType::F32,
            })
        };
        let (other, integers) = (&zeros(&device, &[3, 2]), &zeros_u32(&device, &[2, 3]));
        refused(name, "average backward: dy", backward(other));
        refused(name, "average backward: type", backward(integers));
    }
}

#[test]
fn an_argument_of_the_wrong_type_is_named() {
    for (name, device) in devices::with_f16(devices::all()) {
        let backward = |dy: &Tensor, dtype| {
            device.run(GlobalAveragePoolBackward {
                dy,
                x_shape: [2, 3, 4, 4],
                dtype,
            })
        };
        let (dy16, dy) = (&zeros16(&device, &[2, 3]), &zeros(&device, &[2, 3]));
        refused_argument(name, "dy", backward(dy16, DType::F16));
        refused_argument(name, "x", backward(dy, DType::U32));
    }
}

#[test]
fn tensors_without_elements() {
    for (name, device) in devices::all() {
        for x_shape in [[0, 3, 5, 5], [2, 0, 5, 5], [2, 3, 0, 5], [2, 3, 5, 0]] {
            let x = &zeros(&device, &x_shape);
            let options = options(3, 2, 1);
            let pooled = device.run(MaxPool2d { x, options });
            zeros_or_refused(name, "max_pool2d", pooled.map(|pooled| pooled.y));
            let average = device.run(GlobalAveragePool { x });
            zeros_or_refused(name, "average", average);
            let back = GlobalAveragePoolBackward {
                dy: &zeros(&device, &x_shape[..2]),
                x_shape,
                dtype: DType::F32,
            };
            zeros_or_refused(name, "average backward", device.run(back));
        }
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    for (case, device, other) in different_devices() {
        let x = &zeros(&other, &[2, 3, 4, 4]);
        let options = options(2, 2, 0);
        refused(&case, "max_pool2d", device.run(MaxPool2d { x, options }));
        refused(&case, "average", device.run(GlobalAveragePool { x }));
        let back = MaxPool2dBackward {
            dy: &zeros(&device, &[2, 3, 2, 2]),
            argmax: &zeros_u32(&other, &[2, 3, 2, 2]),
            x_shape: [2, 3, 4, 4],
            options,
        };
        refused(&case, "argmax", device.run(back));
    }
}

#[test]
fn equal_calls_give_equal_bits() {
    let x_shape = [9, 17, 16, 15];
    let x = normal(&mut random(90), x_shape.iter().product());
    let options = options(3, 2, 1);
    same_bits(devices::all(), |device| {
        let x = &put(device, &x, &x_shape);
        let MaxPooled { y, argmax } = device.run(MaxPool2d { x, options }).expect("a pooling");
        let back = MaxPool2dBackward {
            dy: &y,
            argmax: &argmax,
            x_shape,
            options,
        };
        let dx = device.run(back).expect("a gradient");
        let average = device.run(GlobalAveragePool { x }).expect("an average");
        [
            ("max_pool2d_backward", dx),
            ("global_average_pool", average),
        ]
    });
}

#[test]
fn the_references_have_the_right_gradients() {
    let (shape, window, options) = ([2, 2, 5, 4], [3, 2], options(3, 2, 1));
    let (x, dy) = (numbers(112, 80), numbers(113, 24));
    let (_, argmax) = max_pool2d_in_float64(shape, window, options, &x);
    let dx = max_pool2d_backward_in_float64(shape, window, &dy, &argmax).value;
    check_reference("max", &x, &dx, |x| {
        let (y, _) = max_pool2d_in_float64(shape, window, options, x);
        dot(&dy, &y.value)
    });
    let dx = global_average_pool_backward_in_float64(20, &dy[..4]).value;
    check_reference("average", &x, &dx, |x| {
        dot(&dy[..4], &global_average_pool_in_float64(20, x).value)
    });
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}
