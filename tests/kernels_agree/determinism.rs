//! The same call gives the same bits, on every device, and on the CPU with any number of threads.

use parallax::device::Device;
use parallax::device::cpu::with_threads;
use parallax::device::kernels::Gemm;
use parallax::device::shapes::{Conv2d, Pool2d};

use crate::compare::{bits, get, normal, put, random};
use crate::devices;

/// The bits of every kernel that adds up, each at a size that is worth splitting.
fn results(device: &Device) -> Vec<(&'static str, Vec<u32>)> {
    let mut rng = random(90);
    let mut tensor =
        |shape: &[usize]| put(device, &normal(&mut rng, shape.iter().product()), shape);
    let shape = [9, 17, 16, 15];
    let (x, w) = (tensor(&shape), tensor(&[33, 17, 3, 3]));
    let (a, b) = (tensor(&[129, 301]), tensor(&[129, 65]));
    let rows = tensor(&[301, 65]);
    let conv = Conv2d {
        stride: 1,
        padding: 1,
    };
    let pool = Pool2d {
        kernel: 3,
        stride: 2,
        padding: 1,
    };

    let mut tensors = Vec::new();
    tensors.push(("sum", device.sum(&x).unwrap()));
    tensors.push(("sum_rows", device.sum_rows(&rows).unwrap()));
    let transposed = Gemm {
        transpose_a: true,
        transpose_b: false,
    };
    tensors.push(("gemm", device.gemm(transposed, &a, &b).unwrap()));
    let plain = Gemm::default();
    tensors.push(("gemm, long K", device.gemm(plain, &a, &rows).unwrap()));
    let y = device.conv2d(&x, &w, conv).unwrap();
    tensors.push(("conv2d_dx", device.conv2d_dx(&y, &w, shape, conv).unwrap()));
    tensors.push((
        "conv2d_dw",
        device.conv2d_dw(&y, &x, [33, 17, 3, 3], conv).unwrap(),
    ));
    tensors.push(("conv2d", y));
    // Enough channels for Winograd's transforms on the CPU device, with more tiles than channels and with fewer.
    for shape in [[9, 32, 16, 15], [17, 32, 4, 4]] {
        let (x, w_shape) = (tensor(&shape), [33, shape[1], 3, 3]);
        let w = tensor(&w_shape);
        let y = device.conv2d(&x, &w, conv).unwrap();
        let dx = device.conv2d_dx(&y, &w, shape, conv).unwrap();
        tensors.push(("wide conv2d_dx", dx));
        let dw = device.conv2d_dw(&y, &x, w_shape, conv).unwrap();
        tensors.push(("wide conv2d_dw", dw));
        tensors.push(("wide conv2d", y));
    }

    let pooled = device.max_pool2d(&x, pool).unwrap();
    let back = device
        .max_pool2d_backward(&pooled.y, &pooled.argmax, shape, pool)
        .unwrap();
    tensors.push(("max_pool2d_backward", back));
    tensors.push((
        "global_average_pool",
        device.global_average_pool(&x).unwrap(),
    ));

    tensors
        .into_iter()
        .map(|(name, x)| (name, bits(&get(device, &x))))
        .collect()
}

/// Names the kernels whose bits differ.
fn differing(a: &[(&'static str, Vec<u32>)], b: &[(&'static str, Vec<u32>)]) -> Vec<&'static str> {
    let pairs = a.iter().zip(b);
    pairs
        .filter(|(a, b)| a.1 != b.1)
        .map(|(a, _)| a.0)
        .collect()
}

#[test]
fn twice_gives_the_same_bits() {
    for (name, device) in devices::all() {
        let differing = differing(&results(&device), &results(&device));
        assert!(differing.is_empty(), "{differing:?} on {name}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let device = devices::cpu();
    let with_threads = |threads: usize| with_threads(threads, || results(&device));
    let differing = differing(&with_threads(1), &with_threads(3));
    assert!(differing.is_empty(), "{differing:?}");
}
