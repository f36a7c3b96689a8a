//! Casts against the conversions of the crate `half`.

use half::f16;

use super::Cast;
use crate::device::Readback;
use crate::error::Result;
use crate::ops::CopyTensor;
use crate::tensor::{DType, Tensor};
use crate::testing::tester::On;
use crate::testing::{Tester, bits, normal, normal16, rounded16};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    cast_rounds_to_the_nearest_and_back_is_exact(tester)?;
    a_cast_to_its_own_type_is_a_copy(tester)
}

/// Around words, vec4s, pairs of vec4s, workgroups and slices of f16 numbers. Odd ones end in half
/// a word.
const COUNTS: [usize; 11] = [1, 2, 3, 5, 8, 255, 1025, 4097, 33_333, 40_000, 70_001];

fn cast_rounds_to_the_nearest_and_back_is_exact(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(80);
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
        for on in tester.all().filter(On::has_f16) {
            let there = &on.put(x, &[x.len()])?;
            let dtype = DType::F16;
            let half = &on.run(Cast { x: there, dtype })?;
            let case = format!("to f16 of {} numbers", x.len());
            on.check(&case, half.dtype() == dtype, || half.dtype().to_string());
            let dtype = DType::F32;
            let back = on.run(Cast { x: half, dtype })?.to_vec()?;
            on.equal(&case, &without_nan(&back), &without_nan(&expected));
            let bytes = on
                .run(CopyTensor { x: half })?
                .read()
                .and_then(Readback::wait)?;
            let copy: Vec<f16> = bytemuck::pod_collect_to_vec(&bytes);
            let copy: Vec<f32> = copy.into_iter().map(f16::to_f32).collect();
            on.equal(&case, &without_nan(&copy), &without_nan(&expected));
        }
    }
    Ok(())
}

/// The bits of `x`, with one NaN for all.
fn without_nan(x: &[f32]) -> Vec<u32> {
    let one_nan = |x: &f32| if x.is_nan() { f32::NAN } else { *x };
    bits(&x.iter().map(one_nan).collect::<Vec<f32>>())
}

fn a_cast_to_its_own_type_is_a_copy(tester: &Tester) -> Result<()> {
    let x = normal16(&mut tester.random(87), 65);
    for on in tester.all().filter(On::has_f16) {
        for x_there in [on.put(&x, &[65])?, on.put16(&x, &[65])?] {
            let dtype = x_there.dtype();
            let copy = on.run(Cast { x: &x_there, dtype })?;
            let case = format!("of {dtype} to its own type");
            on.check(&case, copy.id() != x_there.id(), || {
                "the result is no copy".to_string()
            });
            let bytes = |x: &Tensor| x.read().and_then(Readback::wait);
            on.check(&case, bytes(&copy)? == bytes(&x_there)?, || {
                "the bits differ".to_string()
            });
        }
    }
    Ok(())
}
