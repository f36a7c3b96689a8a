//! The same call gives the same bits, on every device, and on the CPU with any number of threads.

use parallax::device::Device;
use parallax::device::cpu::with_threads;
use parallax::device::kernels::{Activation, ChannelNorm, Gemm};
use parallax::device::shapes::{Conv2d, Pool2d};

use crate::compare::{bits, get, normal, put, put_u32, random};
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
    let (gamma, beta) = (tensor(&[17]), tensor(&[17]));
    let dloss = tensor(&[1]);
    let embeddings = tensor(&[130, 128]);
    let classes: Vec<u32> = (0..301).map(|i| i % 65).collect();
    let classes = put_u32(device, &classes, &[301]);
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
    let statistics = device.batch_norm_statistics(&x).unwrap();
    let norm = ChannelNorm {
        statistics: statistics.clone(),
        gamma: gamma.clone(),
        beta: beta.clone(),
        eps: 1e-5,
    };
    let y = device.batch_norm(&x, &norm, Activation::Relu).unwrap();
    let gradients = device
        .batch_norm_training_backward(&y, &x, &norm, true)
        .unwrap();
    let there = device.copy(&x).unwrap();
    let in_place = device.batch_norm_training_backward_in_place(&y, &there, &norm, true);
    tensors.push(("batch_norm dx in place", in_place.unwrap().dx));
    tensors.push(("batch_norm", y));
    tensors.push(("mean", statistics.mean));
    tensors.push(("variance", statistics.variance));
    tensors.push(("batch_norm dx", gradients.dx));
    tensors.push(("batch_norm dgamma", gradients.dgamma));
    tensors.push(("batch_norm dbeta", gradients.dbeta));

    let forward = device.softmax_cross_entropy(&rows, &classes).unwrap();
    let back = device
        .softmax_cross_entropy_backward(&dloss, &rows, &classes, &forward)
        .unwrap();
    tensors.push(("softmax_cross_entropy", forward.loss));
    tensors.push(("softmax_cross_entropy_backward", back));

    let unit = device.l2_normalize(&embeddings, 1e-12).unwrap();
    let back = device
        .l2_normalize_backward(&embeddings, &unit, 1e-12)
        .unwrap();
    tensors.push(("l2_normalize_backward", back));
    let forward = device.nt_xent(&unit.y, 0.1).unwrap();
    let back = device
        .nt_xent_backward(&dloss, &unit.y, 0.1, &forward)
        .unwrap();
    tensors.push(("nt_xent", forward.loss));
    tensors.push(("nt_xent_backward", back));
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
