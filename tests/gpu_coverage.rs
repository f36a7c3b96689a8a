//! What the GPU device lacks: these kernels have no WGSL version yet, and say so. The test fails when one starts to work,
//! so that it is taken off the list and joins the tests of every device.

mod devices;

use parallax::Error;
use parallax::device::kernels::BatchStatistics;
use parallax::device::shapes::Pool2d;
use parallax::device::upload_f32;

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
    let missing = [
        ("sum", gpu.sum(&m).err()),
        ("sum_rows", gpu.sum_rows(&m).err()),
        (
            "batch_norm",
            gpu.batch_norm(&x, &statistics, &one, &one, 1e-5).err(),
        ),
        ("max_pool2d", gpu.max_pool2d(&x, pool).err()),
        ("global_average_pool", gpu.global_average_pool(&x).err()),
        ("l2_normalize", gpu.l2_normalize(&m, 1e-12).err()),
        ("nt_xent", gpu.nt_xent(&m, 0.5).err()),
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
