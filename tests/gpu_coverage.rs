//! What the GPU device lacks: these kernels have no WGSL version yet, and say so. The test fails when one starts to work,
//! so that it is taken off the list and joins the tests of every device.

mod devices;

use parallax::device::kernels::{
    AdamStep, BatchStatistics, Normalized, RowLoss, RunningUpdate, SgdStep,
};
use parallax::device::shapes::Pool2d;
use parallax::device::{upload_f32, upload_u32};
use parallax::{Error, Tensor};

#[test]
fn a_missing_kernel_says_so() {
    let gpu = devices::gpu(false);
    let x = upload_f32(&gpu, &[1.0; 16], &[1, 1, 4, 4]).unwrap();
    let m = upload_f32(&gpu, &[0.5; 16], &[4, 4]).unwrap();
    let one = upload_f32(&gpu, &[1.0], &[1]).unwrap();
    let statistics = BatchStatistics {
        mean: one.clone(),
        variance: one.clone(),
    };
    let pool = Pool2d {
        kernel: 2,
        stride: 2,
        padding: 0,
    };
    let shape = [1, 1, 4, 4];
    let labels = upload_u32(&gpu, &[0; 4], &[4]).unwrap();
    let flag = upload_u32(&gpu, &[0], &[1]).unwrap();
    let row = |y: &Tensor| RowLoss {
        loss: one.clone(),
        log_sum_exp: y.clone(),
    };
    let four = upload_f32(&gpu, &[1.0; 4], &[4]).unwrap();
    let normalized = Normalized {
        y: m.clone(),
        norm: four.clone(),
    };
    let update = RunningUpdate {
        count: 16,
        momentum: 0.1,
    };
    let sgd = SgdStep {
        learning_rate: 0.1,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.0,
        first: true,
    };
    let adam = AdamStep {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        step: 1,
    };
    let (s, l) = (&statistics, &row(&four));
    let missing = [
        ("sum", gpu.sum(&m).err()),
        ("sum_rows", gpu.sum_rows(&m).err()),
        ("check_finite", gpu.check_finite(&m, &flag).err()),
        ("batch_norm_statistics", gpu.batch_norm_statistics(&x).err()),
        ("batch_norm", gpu.batch_norm(&x, s, &one, &one, 1e-5).err()),
        (
            "batch_norm_training_backward",
            gpu.batch_norm_training_backward(&x, &x, s, &one, 1e-5)
                .err(),
        ),
        (
            "batch_norm_evaluation_backward",
            gpu.batch_norm_evaluation_backward(&x, &x, s, &one, 1e-5)
                .err(),
        ),
        (
            "update_running_statistics",
            gpu.update_running_statistics(s, s, update, None).err(),
        ),
        ("max_pool2d", gpu.max_pool2d(&x, pool).err()),
        (
            "max_pool2d_backward",
            gpu.max_pool2d_backward(&x, &x, shape, pool).err(),
        ),
        ("global_average_pool", gpu.global_average_pool(&x).err()),
        (
            "global_average_pool_backward",
            gpu.global_average_pool_backward(&m, shape).err(),
        ),
        ("l2_normalize", gpu.l2_normalize(&m, 1e-12).err()),
        (
            "l2_normalize_backward",
            gpu.l2_normalize_backward(&m, &normalized, 1e-12).err(),
        ),
        (
            "softmax_cross_entropy",
            gpu.softmax_cross_entropy(&m, &labels).err(),
        ),
        (
            "softmax_cross_entropy_backward",
            gpu.softmax_cross_entropy_backward(&one, &m, &labels, l)
                .err(),
        ),
        ("nt_xent", gpu.nt_xent(&m, 0.5).err()),
        (
            "nt_xent_backward",
            gpu.nt_xent_backward(&one, &m, 0.5, l).err(),
        ),
        ("sgd_step", gpu.sgd_step(sgd, &m, &m, &m, None).err()),
        ("adam_step", gpu.adam_step(adam, &m, &m, &m, &m, None).err()),
    ];
    for (kernel, error) in missing {
        let message = match error {
            Some(Error::Device { message, .. }) => message,
            other => panic!("{kernel}: expected the error of a missing kernel, found {other:?}"),
        };
        assert!(
            message.contains(kernel) && message.contains("--device cpu"),
            "{message}"
        );
    }
}
