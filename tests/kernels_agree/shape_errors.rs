//! Arguments that do not fit come back as `Error::Shape`; nothing panics and nothing reaches a kernel.

use parallax::device::Device;
use parallax::device::kernels::{
    Activation, AdamStep, BatchStatistics, ChannelNorm, Gemm, HostSlice, Normalized, RowLoss,
    RunningUpdate, SgdStep,
};
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

    fn statistics(&self, mean: usize, variance: usize) -> BatchStatistics {
        BatchStatistics {
            mean: self.f(&[mean]),
            variance: self.f(&[variance]),
        }
    }

    fn row_loss(&self, rows: usize) -> RowLoss {
        RowLoss {
            loss: self.f(&[1]),
            log_sum_exp: self.f(&[rows]),
        }
    }

    fn normalized(&self, y: &[usize], rows: usize) -> Normalized {
        Normalized {
            y: self.f(y),
            norm: self.f(&[rows]),
        }
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
        let step = parallax::device::kernels::AttackStep {
            alpha: 0.1,
            eps: 0.2,
            low: 0.0,
            high: 1.0,
        };
        refuse(
            "attack_step: shapes",
            d.attack_step(step, &a, &b, &a).map(|_| ()),
        );
        refuse(
            "attack_step: shapes",
            d.attack_step(step, &a, &a, &b).map(|_| ()),
        );
        refuse(
            "attack_step: type",
            d.attack_step(step, &a, &integers, &a).map(|_| ()),
        );
        for wrong in [
            parallax::device::kernels::AttackStep { eps: -0.1, ..step },
            parallax::device::kernels::AttackStep {
                eps: f32::NAN,
                ..step
            },
            parallax::device::kernels::AttackStep { low: 2.0, ..step },
        ] {
            refuse(
                "attack_step: numbers",
                d.attack_step(wrong, &a, &a, &a).map(|_| ()),
            );
        }
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
fn batch_norm() {
    for (name, device) in devices::all() {
        let d = &device;
        let z = Zeros(d);
        let refuse = |what: &str, result: Result<()>| refused(name, what, result);
        let (x, c) = (z.f(&[2, 3, 4, 5]), z.f(&[3]));
        let dy = z.f(&[2, 3, 4, 5]);
        let (good, bad) = (z.statistics(3, 3), z.statistics(3, 4));
        refuse(
            "statistics: dimensions",
            d.batch_norm_statistics(&z.f(&[2, 3])).map(drop),
        );
        refuse(
            "statistics: type",
            d.batch_norm_statistics(&z.u(&[2, 3, 4, 5])).map(drop),
        );
        let norm = |statistics: &BatchStatistics, gamma: &Tensor, beta: &Tensor| ChannelNorm {
            statistics: statistics.clone(),
            gamma: gamma.clone(),
            beta: beta.clone(),
            eps: 1e-5,
        };
        let (fits, other) = (norm(&good, &c, &c), z.f(&[2, 3, 5, 4]));
        let conv = Conv2d {
            stride: 1,
            padding: 0,
        };
        let weight = z.f(&[3, 3, 1, 1]);
        for (what, norm) in [
            ("variance", norm(&bad, &c, &c)),
            ("gamma", norm(&good, &z.f(&[2]), &c)),
            ("beta", norm(&good, &c, &z.f(&[4]))),
            ("type of gamma", norm(&good, &z.u(&[3]), &c)),
        ] {
            let forward = d.batch_norm(&x, &norm, Activation::Identity);
            refuse(&format!("batch_norm: {what}"), forward.map(drop));
            let training = d.batch_norm_training_backward(&x, &x, &norm, false);
            refuse(&format!("training: {what}"), training.map(drop));
            let in_place = d.batch_norm_training_backward_in_place(&dy, &x, &norm, false);
            refuse(&format!("training in place: {what}"), in_place.map(drop));
            let evaluation = d.batch_norm_evaluation_backward(&x, &x, &norm, false);
            refuse(&format!("evaluation: {what}"), evaluation.map(drop));
            let dx = d.batch_norm_evaluation_dx(&x, &norm, None);
            refuse(&format!("evaluation dx: {what}"), dx.map(drop));
            let fused = d.conv2d_batch_norm(&x, &weight, conv, &norm, Activation::Relu);
            refuse(&format!("conv2d_batch_norm: {what}"), fused.map(drop));
        }
        let forward = |x: &Tensor, activation: Activation<&Tensor>| {
            d.batch_norm(x, &fits, activation).map(drop)
        };
        refuse(
            "batch_norm: x",
            forward(&z.f(&[2, 3]), Activation::Identity),
        );
        let add_other = Activation::AddRelu(&other);
        refuse("batch_norm: shortcut", forward(&x, add_other));
        let fused = d.conv2d_batch_norm(&x, &weight, conv, &fits, add_other);
        refuse("conv2d_batch_norm: shortcut", fused.map(drop));
        for dy in [&other, &z.u(&[2, 3, 4, 5])] {
            let training = d.batch_norm_training_backward(dy, &x, &fits, true);
            refuse("training: dy", training.map(drop));
            let in_place = d.batch_norm_training_backward_in_place(dy, &x, &fits, true);
            refuse("training in place: dy", in_place.map(drop));
            let evaluation = d.batch_norm_evaluation_backward(dy, &x, &fits, true);
            refuse("evaluation: dy", evaluation.map(drop));
            let dx = d.batch_norm_evaluation_dx(dy, &fits, Some(&x));
            refuse("evaluation dx: dy", dx.map(drop));
        }
        let in_place = d.batch_norm_training_backward_in_place(&x, &x, &fits, true);
        refuse("training in place: one tensor", in_place.map(drop));
        let update = RunningUpdate {
            count: 40,
            momentum: 0.1,
        };
        let (running, gate) = (z.statistics(3, 3), z.u(&[1]));
        let follow = |running: &BatchStatistics, batch: &BatchStatistics, gate: Option<&Tensor>| {
            d.update_running_statistics(running, batch, update, gate)
        };
        refuse("running: batch", follow(&running, &bad, None));
        refuse("running: running", follow(&bad, &good, None));
        refuse(
            "running: gate's shape",
            follow(&running, &good, Some(&z.u(&[2]))),
        );
        refuse(
            "running: gate's type",
            follow(&running, &good, Some(&z.f(&[1]))),
        );
        follow(&running, &good, Some(&gate)).expect("the good call");
        let single = RunningUpdate {
            count: 1,
            momentum: 0.1,
        };
        let unbiased = d.update_running_statistics(&running, &good, single, None);
        refuse("running: one element has no unbiased variance", unbiased);
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

#[test]
fn losses() {
    for (name, device) in devices::all() {
        let d = &device;
        let z = Zeros(d);
        let refuse = |what: &str, result: Result<()>| refused(name, what, result);
        let (x, one, eps) = (z.f(&[4, 3]), z.f(&[1]), 1e-12);
        refuse(
            "l2_normalize: dimensions",
            d.l2_normalize(&z.f(&[4]), eps).map(drop),
        );
        refuse(
            "l2_normalize: type",
            d.l2_normalize(&z.u(&[4, 3]), eps).map(drop),
        );
        let backward =
            |dy: &Tensor, forward: &Normalized| d.l2_normalize_backward(dy, forward, eps).map(drop);
        refuse(
            "l2 backward: dy",
            backward(&z.f(&[3, 4]), &z.normalized(&[4, 3], 4)),
        );
        refuse("l2 backward: norm", backward(&x, &z.normalized(&[4, 3], 3)));
        refuse("l2 backward: y", backward(&x, &z.normalized(&[4, 2], 4)));

        let labels = z.u(&[4]);
        let forward = |x: &Tensor, labels: &Tensor| d.softmax_cross_entropy(x, labels).map(drop);
        refuse("softmax: labels", forward(&x, &z.u(&[3])));
        refuse("softmax: labels' type", forward(&x, &z.f(&[4])));
        refuse("softmax: logits", forward(&z.f(&[4, 3, 1]), &labels));
        refuse("softmax: logits' type", forward(&z.u(&[4, 3]), &labels));
        let backward = |dloss: &Tensor, x: &Tensor, labels: &Tensor, rows| {
            let forward = z.row_loss(rows);
            d.softmax_cross_entropy_backward(dloss, x, labels, &forward)
                .map(drop)
        };
        refuse(
            "softmax backward: dloss",
            backward(&z.f(&[2]), &x, &labels, 4),
        );
        refuse(
            "softmax backward: labels",
            backward(&one, &x, &z.u(&[5]), 4),
        );
        refuse(
            "softmax backward: log-sum-exp",
            backward(&one, &x, &labels, 3),
        );
        backward(&one, &x, &labels, 4).expect("the good call");

        refuse(
            "nt_xent: an odd number of rows",
            d.nt_xent(&z.f(&[3, 4]), 0.5).map(drop),
        );
        refuse("nt_xent: no rows", d.nt_xent(&z.f(&[0, 4]), 0.5).map(drop));
        refuse(
            "nt_xent: no columns",
            d.nt_xent(&z.f(&[4, 0]), 0.5).map(drop),
        );
        refuse("nt_xent: dimensions", d.nt_xent(&z.f(&[4]), 0.5).map(drop));
        refuse("nt_xent: type", d.nt_xent(&z.u(&[4, 3]), 0.5).map(drop));
        for temperature in [0.0, -1.0, f32::NAN] {
            refuse("nt_xent: temperature", d.nt_xent(&x, temperature).map(drop));
        }
        let backward = |dloss: &Tensor, x: &Tensor, rows| {
            d.nt_xent_backward(dloss, x, 0.5, &z.row_loss(rows))
                .map(drop)
        };
        refuse("nt_xent_backward: dloss", backward(&z.f(&[4]), &x, 4));
        refuse("nt_xent_backward: rows", backward(&one, &z.f(&[5, 3]), 5));
        refuse("nt_xent_backward: log-sum-exp", backward(&one, &x, 3));
        backward(&one, &x, 4).expect("the good call");
    }
}

#[test]
fn optimisers() {
    let sgd = SgdStep {
        learning_rate: 0.1,
        gradient_scale: 1.0,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.0,
        first: true,
    };
    let adam = AdamStep {
        learning_rate: 0.1,
        gradient_scale: 1.0,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        step: 1,
    };
    for (name, device) in devices::all() {
        let z = Zeros(&device);
        let refuse = |what: &str, result: Result<()>| refused(name, what, result);
        let [p, g, m, v] = [(); 4].map(|()| z.f(&[2, 3]));
        let (other, integers) = (z.f(&[6]), z.u(&[2, 3]));
        refuse("sgd: gradient", device.sgd_step(sgd, &p, &other, &m, None));
        refuse("sgd: momentum", device.sgd_step(sgd, &p, &g, &other, None));
        refuse("sgd: type", device.sgd_step(sgd, &p, &integers, &m, None));
        refuse(
            "sgd: gate's type",
            device.sgd_step(sgd, &p, &g, &m, Some(&z.f(&[1]))),
        );
        refuse(
            "sgd: gate's shape",
            device.sgd_step(sgd, &p, &g, &m, Some(&z.u(&[2]))),
        );
        refuse(
            "sgd: one tensor twice",
            device.sgd_step(sgd, &p, &g, &p, None),
        );
        refuse(
            "adam: gradient",
            device.adam_step(adam, &p, &other, &m, &v, None),
        );
        refuse(
            "adam: first moment",
            device.adam_step(adam, &p, &g, &other, &v, None),
        );
        refuse(
            "adam: second moment",
            device.adam_step(adam, &p, &g, &m, &other, None),
        );
        refuse(
            "adam: type",
            device.adam_step(adam, &integers, &g, &m, &v, None),
        );
        refuse(
            "adam: gate",
            device.adam_step(adam, &p, &g, &m, &v, Some(&z.u(&[2]))),
        );
        refuse(
            "adam: one tensor twice",
            device.adam_step(adam, &p, &g, &m, &m, None),
        );
        device
            .adam_step(adam, &p, &g, &m, &v, Some(&z.u(&[1])))
            .expect("the good call");
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
            settled("l2_normalize", d.l2_normalize(&x, 1e-12).map(|n| n.y));
            let back = d.l2_normalize_backward(&x, &z.normalized(&[rows, columns], rows), 1e-12);
            settled("l2_normalize_backward", back);
            // A mean over no rows, or a sum over no classes, has no value: refusing is the only answer.
            let labels = z.u(&[rows]);
            refused(name, "softmax", d.softmax_cross_entropy(&x, &labels));
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
            settled("statistics", d.batch_norm_statistics(&x).map(|s| s.mean));
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
