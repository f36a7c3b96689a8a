//! Arguments that do not fit come back as `Error::Shape`; nothing panics and nothing reaches a kernel.

use parallax::device::Device;
use parallax::device::kernels::{Gemm, HostSlice};
use parallax::device::shapes::{Conv2d, Pool2d};
use parallax::error::{Error, Result};
use parallax::tensor::{DType, Tensor};

use crate::devices;

/// Makes tensors of zeros on one device.
struct Zeros<'a>(&'a Device);

impl Zeros<'_> {
    fn f(&self, shape: &[usize]) -> Tensor {
        self.0.zeros(shape, DType::F32).expect("a small tensor")
    }

    fn u(&self, shape: &[usize]) -> Tensor {
        self.0.zeros(shape, DType::U32).expect("a small tensor")
    }
}

/// Fails unless the call failed with a shape error that says something.
fn refused<T>(device: &str, what: &str, result: Result<T>) {
    match result {
        Ok(_) => panic!("{what} on {device}: was accepted"),
        Err(Error::Shape { message, .. }) => assert!(!message.is_empty(), "{what} on {device}"),
        Err(error) => panic!("{what} on {device}: {error:?} is not a shape error"),
    }
}

#[test]
fn storage() {
    for (name, device) in devices::all() {
        let z = Zeros(&device);
        let refuse = |what: &str, result: Result<()>| refused(name, what, result);
        let three = HostSlice::F32(&[1.0, 2.0, 3.0]);
        refuse(
            "upload: three numbers for [2, 2]",
            device.upload(three, &[2, 2]).map(drop),
        );
        let huge = [1 << 20, 1 << 20];
        refuse(
            "zeros: 2^40 elements",
            device.zeros(&huge, DType::F32).map(drop),
        );
        let endless = [usize::MAX, 3];
        refuse(
            "zeros: a product that overflows",
            device.zeros(&endless, DType::F32).map(drop),
        );
        refuse("overwrite: count", device.overwrite(&z.f(&[2]), three));
        refuse("overwrite: type", device.overwrite(&z.u(&[3]), three));
        refuse("reshape", z.f(&[2, 3]).reshape(&[5]).map(drop));
    }
}

#[test]
fn elementwise() {
    for (name, device) in devices::all() {
        let d = &device;
        let z = Zeros(d);
        let refuse = |what: &str, result: Result<()>| refused(name, what, result);
        let (a, b, integers) = (z.f(&[2, 3]), z.f(&[3, 2]), z.u(&[2, 3]));
        refuse("add: shapes", d.add(&a, &b).map(drop));
        refuse("add: type of b", d.add(&a, &integers).map(drop));
        refuse("add: type of both", d.add(&integers, &integers).map(drop));
        refuse("relu: type", d.relu(&integers).map(drop));
        refuse("relu_backward: shapes", d.relu_backward(&a, &b).map(drop));
        refuse(
            "relu_backward: type",
            d.relu_backward(&integers, &integers).map(drop),
        );
        refuse(
            "relu_backward_in_place: shapes",
            d.relu_backward_in_place(&a, &b),
        );
        refuse(
            "relu_backward_in_place: type",
            d.relu_backward_in_place(&integers, &integers),
        );
        refuse(
            "relu_backward_in_place: one tensor",
            d.relu_backward_in_place(&a, &a),
        );
        refuse("scale: type", d.scale(2.0, &integers).map(drop));
        refuse("axpy: shapes", d.axpy(1.0, &a, &b));
        refuse("axpy: one tensor twice", d.axpy(1.0, &a, &a));
        refuse("axpy: type", d.axpy(1.0, &integers, &a));
        refuse("broadcast: s", d.broadcast(&z.f(&[2]), &[2, 2]).map(drop));
        refuse("concat: rows", d.concat(&a, &b).map(drop));
        refuse("concat: dimensions", d.concat(&a, &z.f(&[3])).map(drop));
        refuse("slice: past the end", d.slice(&a, 1, 2).map(drop));
        refuse(
            "slice: a sum that overflows",
            d.slice(&a, usize::MAX, 2).map(drop),
        );
    }
}

#[test]
fn reductions_and_products() {
    for (name, device) in devices::all() {
        let d = &device;
        let z = Zeros(d);
        let refuse = |what: &str, result: Result<()>| refused(name, what, result);
        let (a, integers) = (z.f(&[2, 3]), z.u(&[2, 3]));
        refuse("sum: type", d.sum(&integers).map(drop));
        refuse(
            "sum_rows: dimensions",
            d.sum_rows(&z.f(&[2, 3, 4])).map(drop),
        );
        refuse("sum_rows: type", d.sum_rows(&integers).map(drop));
        refuse(
            "check_finite: shape of the flag",
            d.check_finite(&a, &z.u(&[2])),
        );
        refuse(
            "check_finite: type of the flag",
            d.check_finite(&a, &z.f(&[1])),
        );
        refuse(
            "check_finite: type of x",
            d.check_finite(&integers, &z.u(&[1])),
        );
        for transpose_a in [false, true] {
            for transpose_b in [false, true] {
                let options = Gemm {
                    transpose_a,
                    transpose_b,
                };
                let b = z.f(&[4, 5]);
                refuse("gemm: inner sizes", d.gemm(options, &a, &b).map(drop));
            }
        }
        let plain = Gemm::default();
        refuse("gemm: a vector", d.gemm(plain, &a, &z.f(&[3])).map(drop));
        refuse("gemm: type", d.gemm(plain, &a, &z.u(&[3, 2])).map(drop));
        let w = z.f(&[4, 3]);
        refuse(
            "linear: w",
            d.linear(&a, &z.f(&[4, 2]), &z.f(&[4])).map(drop),
        );
        refuse("linear: bias", d.linear(&a, &w, &z.f(&[3])).map(drop));
        refuse(
            "linear: x",
            d.linear(&z.f(&[2, 3, 1]), &w, &z.f(&[4])).map(drop),
        );
        refuse(
            "linear: type of x",
            d.linear(&integers, &w, &z.f(&[4])).map(drop),
        );
    }
}

#[test]
fn convolutions() {
    for (name, device) in devices::all() {
        let d = &device;
        let z = Zeros(d);
        let refuse = |what: &str, result: Result<()>| refused(name, what, result);
        let conv = Conv2d {
            stride: 1,
            padding: 0,
        };
        let still = Conv2d {
            stride: 0,
            padding: 0,
        };
        let (x, w) = (z.f(&[2, 3, 5, 5]), z.f(&[4, 3, 3, 3]));
        refuse(
            "conv2d: channels",
            d.conv2d(&x, &z.f(&[4, 2, 3, 3]), conv).map(drop),
        );
        refuse(
            "conv2d: kernel",
            d.conv2d(&x, &z.f(&[4, 3, 6, 6]), conv).map(drop),
        );
        refuse("conv2d: stride 0", d.conv2d(&x, &w, still).map(drop));
        refuse(
            "conv2d: kernel 0",
            d.conv2d(&x, &z.f(&[4, 3, 0, 0]), conv).map(drop),
        );
        refuse(
            "conv2d: dimensions",
            d.conv2d(&z.f(&[3, 5, 5]), &w, conv).map(drop),
        );
        refuse(
            "conv2d: type",
            d.conv2d(&z.u(&[2, 3, 5, 5]), &w, conv).map(drop),
        );
        let dy = z.f(&[2, 4, 3, 3]);
        let dx = |dy: &Tensor, w: &Tensor, x_shape| d.conv2d_dx(dy, w, x_shape, conv).map(drop);
        refuse("conv2d_dx: x_shape", dx(&dy, &w, [2, 3, 6, 5]));
        refuse("conv2d_dx: channels", dx(&dy, &w, [2, 2, 5, 5]));
        refuse("conv2d_dx: dy", dx(&z.f(&[2, 5, 3, 3]), &w, [2, 3, 5, 5]));
        refuse("conv2d_dx: type", dx(&z.u(&[2, 4, 3, 3]), &w, [2, 3, 5, 5]));
        let dw = |dy: &Tensor, x: &Tensor, w_shape| d.conv2d_dw(dy, x, w_shape, conv).map(drop);
        refuse("conv2d_dw: w_shape", dw(&dy, &x, [4, 3, 2, 2]));
        refuse("conv2d_dw: channels", dw(&dy, &x, [4, 2, 3, 3]));
        refuse("conv2d_dw: dy", dw(&z.f(&[1, 4, 3, 3]), &x, [4, 3, 3, 3]));
        refuse(
            "conv2d_dw: type",
            dw(&dy, &z.u(&[2, 3, 5, 5]), [4, 3, 3, 3]),
        );
    }
}

#[test]
fn pools() {
    for (name, device) in devices::all() {
        let d = &device;
        let z = Zeros(d);
        let refuse = |what: &str, result: Result<()>| refused(name, what, result);
        let pool = |kernel, stride, padding| Pool2d {
            kernel,
            stride,
            padding,
        };
        let x = z.f(&[2, 3, 5, 5]);
        refuse(
            "max_pool2d: window",
            d.max_pool2d(&x, pool(6, 1, 0)).map(drop),
        );
        refuse(
            "max_pool2d: stride 0",
            d.max_pool2d(&x, pool(2, 0, 0)).map(drop),
        );
        refuse(
            "max_pool2d: kernel 0",
            d.max_pool2d(&x, pool(0, 1, 0)).map(drop),
        );
        refuse(
            "max_pool2d: padding",
            d.max_pool2d(&x, pool(3, 1, 2)).map(drop),
        );
        refuse(
            "max_pool2d: dimensions",
            d.max_pool2d(&z.f(&[5, 5]), pool(2, 2, 0)).map(drop),
        );
        refuse(
            "max_pool2d: type",
            d.max_pool2d(&z.u(&[2, 3, 5, 5]), pool(2, 2, 0)).map(drop),
        );
        let (dy, argmax) = (z.f(&[2, 3, 2, 2]), z.u(&[2, 3, 2, 2]));
        let backward = |dy: &Tensor, argmax: &Tensor, x_shape| {
            d.max_pool2d_backward(dy, argmax, x_shape, pool(2, 2, 0))
                .map(drop)
        };
        let x_shape = [2, 3, 5, 5];
        refuse(
            "max_pool2d_backward: dy",
            backward(&z.f(&[2, 3, 2, 3]), &argmax, x_shape),
        );
        refuse(
            "max_pool2d_backward: argmax",
            backward(&dy, &z.u(&[2, 3, 4, 1]), x_shape),
        );
        refuse(
            "max_pool2d_backward: argmax's type",
            backward(&dy, &dy, x_shape),
        );
        refuse(
            "max_pool2d_backward: x_shape",
            backward(&dy, &argmax, [2, 3, 6, 5]),
        );
        backward(&dy, &argmax, x_shape).expect("the good call");
        refuse(
            "average: dimensions",
            d.global_average_pool(&z.f(&[2, 3])).map(drop),
        );
        refuse(
            "average: type",
            d.global_average_pool(&z.u(&[2, 3, 5, 5])).map(drop),
        );
        let backward = |dy: &Tensor| {
            d.global_average_pool_backward(dy, x_shape, DType::F32)
                .map(drop)
        };
        refuse("average backward: dy", backward(&z.f(&[3, 2])));
        refuse("average backward: type", backward(&z.u(&[2, 3])));
    }
}

/// A tensor without elements is either refused or gives one without elements; no call panics or divides by zero.
#[test]
fn tensors_without_elements() {
    let conv = Conv2d {
        stride: 1,
        padding: 1,
    };
    let pool = Pool2d {
        kernel: 3,
        stride: 2,
        padding: 1,
    };
    for (name, device) in devices::all() {
        let d = &device;
        let z = Zeros(d);
        let settled = |what: &str, result: Result<Tensor>| match result {
            Ok(y) => {
                let y = parallax::device::read_f32(d, &y).expect(what);
                assert!(y.iter().all(|y| *y == 0.0), "{what} on {name}: {y:?}");
            }
            Err(Error::Shape { .. }) => {}
            Err(error) => panic!("{what} on {name}: {error:?} is not a shape error"),
        };
        for shape in [&[0][..], &[0, 3], &[3, 0], &[2, 0, 4, 4]] {
            let x = z.f(shape);
            settled("relu", d.relu(&x));
            settled("add", d.add(&x, &x));
            settled("scale", d.scale(2.0, &x));
            settled("copy", d.copy(&x));
            settled("sum", d.sum(&x));
            settled("broadcast", d.broadcast(&z.f(&[1]), shape));
            settled("concat", d.concat(&x, &x));
            settled("slice", d.slice(&x, 0, 0));
        }
        for [rows, columns] in [[0, 3], [3, 0]] {
            let x = z.f(&[rows, columns]);
            settled("sum_rows", d.sum_rows(&x));
            let product = d.gemm(Gemm::default(), &x, &z.f(&[columns, 2]));
            settled("gemm", product);
            let y = d.linear(&x, &z.f(&[2, columns]), &z.f(&[2]));
            settled("linear", y);
        }
        for shape in [[0, 3, 5, 5], [2, 0, 5, 5], [2, 3, 0, 5], [2, 3, 5, 0]] {
            let x = z.f(&shape);
            let w = z.f(&[4, shape[1], 3, 3]);
            settled("conv2d", d.conv2d(&x, &w, conv));
            settled("max_pool2d", d.max_pool2d(&x, pool).map(|p| p.y));
            settled("average", d.global_average_pool(&x));
            let dy = z.f(&shape[..2]);
            settled(
                "average backward",
                d.global_average_pool_backward(&dy, shape, DType::F32),
            );
        }
    }
}

#[test]
fn a_tensor_of_another_device() {
    let conv = Conv2d {
        stride: 1,
        padding: 0,
    };
    let all = devices::all();
    for (name, device) in &all {
        for (other_name, other) in &all {
            // What two GPU contexts make of each other's tensors is for wgpu to say; the CPU and a GPU can tell.
            if (*name == "cpu") == (*other_name == "cpu") {
                continue;
            }
            let name = format!("{name}, a tensor of {other_name}");
            let (own, foreign) = (Zeros(device), Zeros(other));
            refused(&name, "relu", device.relu(&foreign.f(&[3])));
            refused(&name, "add", device.add(&own.f(&[3]), &foreign.f(&[3])));
            refused(&name, "download", device.download(&foreign.f(&[3])));
            refused(&name, "copy", device.copy(&foreign.f(&[3])));
            let product = device.gemm(Gemm::default(), &own.f(&[2, 3]), &foreign.f(&[3, 2]));
            refused(&name, "gemm", product);
            let (x, w) = (own.f(&[1, 2, 3, 3]), foreign.f(&[1, 2, 3, 3]));
            refused(&name, "conv2d", device.conv2d(&x, &w, conv));
            let (x, flag) = (own.f(&[2]), foreign.u(&[1]));
            refused(&name, "check_finite", device.check_finite(&x, &flag));
        }
    }
}
