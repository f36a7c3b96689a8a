use super::cases::{
    self, TRANSPOSITIONS, gemm_in_float64, linear_agrees, linear_in_float64, products,
};
use super::{Gemm, Linear, operand};
use crate::device::gpu::variants::{Operation, ShapeClass, Variant};
use crate::tensor::Tensor;
use crate::testing::{
    check_cases, check_cases_with_rounding, check_reference, devices, different_devices, dot,
    normal, numbers, put, random, refused, refused_argument, same_bits, size, zeros,
    zeros_or_refused, zeros_u32, zeros16,
};

fn gemm_agrees(stream: u32, sizes: &[[usize; 3]]) {
    check_cases(|tester| products(tester, stream, sizes));
}

#[test]
fn every_device_agrees_with_the_expected_values() {
    check_cases(cases::run);
}

#[test]
fn factors_are_rounded_on_every_device() {
    check_cases_with_rounding(|tester| {
        products(
            tester,
            26,
            &[[1, 1, 1], [3, 5, 7], [65, 63, 129], [68, 72, 4]],
        )?;
        linear_agrees(tester, 27)
    });
}

#[test]
fn gemm_of_thin_and_tiny_matrices() {
    let sizes = [
        [1, 1, 1],
        [1, 1, 129],
        [1, 129, 1],
        [129, 1, 1],
        [3, 5, 7],
        [17, 1, 64],
        [1, 17, 64],
        [5, 257, 17],
        [257, 17, 5],
        [31, 33, 1000],
        // More terms than one dispatch adds up.
        [2, 3, 70_001],
    ];
    gemm_agrees(20, &sizes);
}

#[test]
fn gemm_across_tile_borders() {
    let sizes = [
        [63, 65, 64],
        [64, 64, 64],
        [65, 63, 129],
        [129, 130, 33],
        [128, 128, 16],
        [257, 129, 65],
        // Ragged edges of the CPU's tiles.
        [130, 259, 12],
        [257, 513, 5],
        // The ragged edges of the largest tile, and an odd number of terms.
        [250, 123, 37],
        [250, 124, 37],
        // Columns, and but for the last rows, of whole vec4s: with ragged edges of the tile.
        [68, 72, 4],
        [128, 64, 132],
        [20, 8, 64],
        [66, 136, 36],
    ];
    gemm_agrees(21, &sizes);
}

#[test]
fn gemm_of_random_sizes() {
    let mut rng = random(22);
    let sizes: Vec<[usize; 3]> = (0..8)
        .map(|_| std::array::from_fn(|_| size(&mut rng, 1, 150)))
        .collect();
    gemm_agrees(23, &sizes);
}

/// The tests of products and convolutions run on every device of `all_variants`. Each variant has a
/// device there, which selects no other.
#[test]
fn every_variant_is_forced_in_turn() {
    let tested: Vec<Variant> = devices::forced().iter().map(|(v, _)| *v).collect();
    let gpu = devices::gpu_with_matrices();
    let all: Vec<Variant> = Variant::ALL.into_iter().filter(|v| gpu.has(*v)).collect();
    assert_eq!(tested, all);
    assert!(all.len() >= 4 + usize::from(gpu.has_matrices()));
    let names: Vec<&str> = devices::all_variants().iter().map(|(n, _)| *n).collect();
    for (variant, gpu) in devices::forced() {
        assert!(names.contains(&variant.name()), "{names:?}");
        let class = ShapeClass::product(Operation::Gemm, [64; 3]);
        let available: Vec<_> = tested.iter().map(|v| (*v, 1)).collect();
        assert_eq!(gpu.variants().choose(&class, &available), *variant);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let (a, integers) = (&zeros(&device, &[2, 3]), &zeros_u32(&device, &[2, 3]));
        for [transpose_a, transpose_b] in TRANSPOSITIONS {
            let b = &zeros(&device, &[4, 5]);
            let (a, b) = (operand(a, transpose_a), operand(b, transpose_b));
            refused(name, "gemm: inner sizes", device.run(Gemm { a, b }));
        }
        let gemm = |b: Tensor| device.run(Gemm::new(a, &b));
        refused(name, "gemm: a vector", gemm(zeros(&device, &[3])));
        refused(name, "gemm: type", gemm(zeros_u32(&device, &[3, 2])));
        let linear = |x: &Tensor, w: &[usize], bias: usize| {
            let (w, bias) = (&zeros(&device, w), &zeros(&device, &[bias]));
            device.run(Linear { x, w, bias })
        };
        refused(name, "linear: w", linear(a, &[4, 2], 4));
        refused(name, "linear: bias", linear(a, &[4, 3], 3));
        let cube = &zeros(&device, &[2, 3, 1]);
        refused(name, "linear: x", linear(cube, &[4, 3], 4));
        refused(name, "linear: type of x", linear(integers, &[4, 3], 4));
        linear(a, &[4, 3], 4).expect("arguments that fit");
    }
    for (name, device) in devices::with_f16(devices::all()) {
        let x = &zeros16(&device, &[2, 2]);
        refused_argument(name, "a", device.run(Gemm::new(x, x)));
    }
}

#[test]
fn matrices_without_elements() {
    for (name, device) in devices::all() {
        for [rows, columns] in [[0, 3], [3, 0]] {
            let x = &zeros(&device, &[rows, columns]);
            let b = &zeros(&device, &[columns, 2]);
            zeros_or_refused(name, "gemm", device.run(Gemm::new(x, b)));
            let (w, bias) = (&zeros(&device, &[2, columns]), &zeros(&device, &[2]));
            let y = device.run(Linear { x, w, bias });
            zeros_or_refused(name, "linear", y);
        }
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    for (case, device, other) in different_devices() {
        let (own, foreign) = (&zeros(&device, &[2, 2]), &zeros(&other, &[2, 2]));
        refused(&case, "gemm: a", device.run(Gemm::new(foreign, own)));
        refused(&case, "gemm: b", device.run(Gemm::new(own, foreign)));
        let (x, w, bias) = (own, own, &zeros(&other, &[2]));
        refused(&case, "linear: bias", device.run(Linear { x, w, bias }));
    }
}

#[test]
fn equal_calls_give_equal_bits() {
    let mut rng = random(90);
    let (a, b) = (normal(&mut rng, 129 * 301), normal(&mut rng, 129 * 65));
    let (rows, bias) = (normal(&mut rng, 301 * 65), normal(&mut rng, 129));
    same_bits(devices::all_variants(), |device| {
        let (a, b) = (put(device, &a, &[129, 301]), put(device, &b, &[129, 65]));
        let rows = put(device, &rows, &[301, 65]);
        let transposed = Gemm::new(operand(&a, true), &b);
        // Rows of 301 elements.
        let (x, w, bias) = (&a, &a, &put(device, &bias, &[129]));
        let linear = Linear { x, w, bias };
        [
            ("gemm", device.run(transposed).expect("gemm")),
            ("long K", device.run(Gemm::new(&a, &rows)).expect("gemm")),
            ("linear", device.run(linear).expect("linear")),
        ]
    });
}

#[test]
fn the_reference_of_linear_is_a_product_with_a_transposed_weight() {
    let (x, w, bias) = (numbers(104, 15), numbers(105, 20), numbers(106, 4));
    let product = gemm_in_float64([false, true], [3, 4, 5], &x, &w).value;
    let expected: Vec<f64> = (0..12).map(|i| product[i] + bias[i % 4]).collect();
    assert_eq!(linear_in_float64([3, 5, 4], &x, &w, &bias).value, expected);
    // The gradient of x is dy w, that of w is dy^T x.
    let dy = numbers(107, 12);
    let dx = gemm_in_float64([false, false], [3, 5, 4], &dy, &w).value;
    check_reference("dx", &x, &dx, |x| {
        dot(&dy, &linear_in_float64([3, 5, 4], x, &w, &bias).value)
    });
    let dw = gemm_in_float64([true, false], [4, 5, 3], &dy, &x).value;
    check_reference("dw", &w, &dw, |w| {
        dot(&dy, &linear_in_float64([3, 5, 4], &x, w, &bias).value)
    });
}
