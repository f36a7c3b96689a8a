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
fn elementwise() {
    for (name, device) in devices::all() {
        let d = &device;
        let z = Zeros(d);
        let refuse = |what: &str, result: Result<()>| refused(name, what, result);
        let (a, b, integers) = (z.f(&[2, 3]), z.f(&[3, 2]), z.u(&[2, 3]));
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
        for [rows, columns] in [[0, 3], [3, 0]] {
            let x = z.f(&[rows, columns]);
            settled("l2_normalize", d.l2_normalize(&x, 1e-12).map(|n| n.y));
            let back = d.l2_normalize_backward(&x, &z.normalized(&[rows, columns], rows), 1e-12);
            settled("l2_normalize_backward", back);
            // A mean over no rows, or a sum over no classes, has no value: refusing is the only answer.
            let labels = z.u(&[rows]);
            refused(name, "softmax", d.softmax_cross_entropy(&x, &labels));
        }
        for shape in [[0, 3, 5, 5], [2, 0, 5, 5], [2, 3, 0, 5], [2, 3, 5, 0]] {
            let x = z.f(&shape);
            settled("statistics", d.batch_norm_statistics(&x).map(|s| s.mean));
        }
    }
}
