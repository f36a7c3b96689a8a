use half::f16;

use super::Cast;
use crate::autograd::Tape;
use crate::device::Readback;
use crate::ops::Copy;
use crate::tensor::{DType, Tensor};
use crate::testing::{
    bits, devices, different_devices, get, get16, normal, normal16, put, put_u32, put16, random,
    refused, refused_argument, rounded16, zeros, zeros_or_refused,
};

/// Around words, vec4s, pairs of vec4s, workgroups and slices of f16 numbers. Odd ones end in half
/// a word.
const COUNTS: [usize; 11] = [1, 2, 3, 5, 8, 255, 1025, 4097, 33_333, 40_000, 70_001];

#[test]
fn cast_rounds_to_the_nearest_and_back_is_exact() {
    let mut rng = random(80);
    let mut special = vec![
        0.0,
        -0.0,
        1.0,
        // Halfway between two f16 numbers: to the even one.
        1.0 + 1.0 / 2048.0,
        1.0 + 3.0 / 2048.0,
        -1.0 - 1.0 / 2048.0,
        // The largest, the last that is rounded to it, and the first that is not.
        65_504.0,
        65_519.0,
        65_520.0,
        -1e9,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        // The smallest normal one, subnormal ones, halfway to zero, and smaller.
        6.103_515_6e-5,
        3.1e-5,
        -5.960_464_5e-8,
        2.980_232_2e-8,
        2.98e-8,
        1e-30,
    ];
    special.extend((0..4000).map(|i| rng.normal() * (f32::from(i as u16 % 40) - 25.0).exp2()));
    let of_normals = COUNTS.map(|count| normal(&mut rng, count));
    for x in of_normals.iter().chain([&special]) {
        let expected = rounded16(x);
        for (name, device) in devices::with_f16(devices::all()) {
            let half = put16(&device, x, &[x.len()]);
            assert_eq!(half.dtype(), DType::F16);
            let back = get16(&half);
            for (i, (&back, &expected)) in back.iter().zip(&expected).enumerate() {
                let is_same =
                    back.to_bits() == expected.to_bits() || back.is_nan() && expected.is_nan();
                assert!(
                    is_same,
                    "{} becomes {back} and not {expected} on {name}",
                    x[i]
                );
            }
            let copy = device.run(Copy { x: &half }).expect(name);
            let bytes = copy.read().and_then(Readback::wait).expect(name);
            assert_eq!(bytes.len(), 2 * x.len(), "{name}");
            for (bytes, expected) in bytes.chunks(2).zip(&expected) {
                let found = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
                let is_same = found == *expected || found.is_nan() && expected.is_nan();
                assert!(is_same, "{found} and not {expected} in a copy on {name}");
            }
        }
    }
}

#[test]
fn a_cast_to_its_own_type_is_a_copy() {
    let x = normal16(&mut random(87), 65);
    for (name, device) in devices::with_f16(devices::all()) {
        for x_there in [put(&device, &x, &[65]), put16(&device, &x, &[65])] {
            let dtype = x_there.dtype();
            let copy = device.run(Cast { x: &x_there, dtype }).expect(name);
            assert_ne!(copy.id(), x_there.id(), "{name}");
            let found = match dtype {
                DType::F16 => get16(&copy),
                _ => get(&copy),
            };
            assert_eq!(bits(&found), bits(&x), "{dtype} on {name}");
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::with_f16(devices::all()) {
        let cast = |x: &Tensor, dtype| device.run(Cast { x, dtype });
        refused_argument(name, "dtype", cast(&zeros(&device, &[2, 3]), DType::U32));
        refused_argument(name, "x", cast(&put_u32(&device, &[1], &[1]), DType::F16));
        zeros_or_refused(name, "no elements", cast(&zeros(&device, &[0]), DType::F32));
        let none = cast(&zeros(&device, &[0]), DType::F16).expect(name);
        zeros_or_refused(name, "no f16 elements", cast(&none, DType::F32));
    }
    for (case, device, other) in different_devices() {
        let (x, dtype) = (&zeros(&other, &[3]), DType::F32);
        refused(&case, "cast", device.run(Cast { x, dtype }));
    }
}

/// Differences of rounded results are no gradient, so this compares with the cast of the gradient.
#[test]
fn the_gradient_has_the_type_of_x() {
    let mut rng = random(88);
    let (x, dy) = (normal(&mut rng, 65), normal16(&mut rng, 65));
    for (name, device) in devices::with_f16(devices::all()) {
        let x = put(&device, &x, &[65]);
        let tape = Tape::new(&device);
        let leaf = tape.leaf(&x);
        let same = leaf.cast(DType::F32).expect(name);
        assert_eq!(same.tensor().id(), x.id(), "{name}");
        let y = leaf.cast(DType::F16).expect(name);
        let dy_there = put16(&device, &dy, &[65]);
        let gradients = y.backward_from(dy_there).expect(name);
        let dx = gradients.of(&x).expect(name);
        assert_eq!(bits(&get(dx)), bits(&dy), "{name}");
    }
}
