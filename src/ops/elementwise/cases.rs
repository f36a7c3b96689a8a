//! Element-wise operations against float64.

use half::f16;

use super::{Accumulate, Add, Broadcast, Relu, ReluBackward, Scale};
use crate::device::Readback;
use crate::error::Result;
use crate::philox::Philox;
use crate::tensor::Tensor;
use crate::testing::tester::On;
use crate::testing::{Expected, Tester, bits, normal, normal_leaf, normal16, signed, size, wide};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    add(tester)?;
    add_accepts_one_tensor_twice(tester)?;
    relu_and_its_gradient(tester)?;
    relu_keeps_nan(tester)?;
    scale_and_accumulate(tester)?;
    accumulate_and_relu_backward_accept_one_tensor_twice(tester)?;
    broadcast_fills_any_shape(tester)?;
    f16_activations(tester)?;
    sums_too_large_for_f16_are_infinite(tester)?;
    gradients(tester)?;
    the_gradients_of_several_uses_of_a_value_are_added(tester)
}

/// Around vectors of four and eight and workgroups of 64 and 256; beyond a small binding; and some
/// at random.
fn counts(rng: &mut Philox) -> Vec<usize> {
    let mut counts = vec![
        1, 2, 3, 4, 5, 8, 63, 64, 65, 129, 255, 256, 257, 1023, 40_000, 40_001,
    ];
    counts.extend((0..4).map(|_| size(rng, 1, 5000)));
    counts
}

/// Around words, vec4s, pairs of vec4s, workgroups and slices of f16 numbers. Odd ones end in half
/// a word.
const COUNTS_OF_F16: [usize; 11] = [1, 2, 3, 5, 8, 255, 1025, 4097, 33_333, 40_000, 70_001];

fn add_in_float64(a: &[f32], b: &[f32]) -> Expected {
    let pairs = wide(a).into_iter().zip(wide(b));
    Expected::elementwise(pairs.map(|(a, b)| a + b).collect())
}

fn relu_in_float64(x: &[f32]) -> Expected {
    let rectified = |x: f64| if x > 0.0 || x.is_nan() { x } else { 0.0 };
    Expected::exact(wide(x).into_iter().map(rectified).collect())
}

fn relu_backward_in_float64(dy: &[f32], y: &[f32]) -> Expected {
    let dx = |(dy, &y): (f64, &f32)| if y > 0.0 { dy } else { 0.0 };
    Expected::exact(wide(dy).into_iter().zip(y).map(dx).collect())
}

fn scale_in_float64(factor: f32, x: &[f32]) -> Expected {
    let factor = f64::from(factor);
    Expected::elementwise(wide(x).into_iter().map(|x| factor * x).collect())
}

/// The results of an operation that takes the memory of `x` if nothing else shares it: with `x`
/// shared, and not shared.
fn shared_and_unshared(
    on: &On<'_>,
    case: &str,
    x: Tensor,
    run: impl Fn(Tensor) -> Result<Tensor>,
) -> Result<[Tensor; 2]> {
    let bytes = |x: &Tensor| x.read().and_then(Readback::wait);
    let (id, before) = (x.id(), bytes(&x)?);
    let shared = run(x.clone())?;
    let is_kept = shared.id() != id && bytes(&x)? == before;
    on.check(case, is_kept, || "a shared argument changed".to_string());
    let unshared = run(x)?;
    on.check(case, unshared.id() == id, || {
        "the memory of an unshared argument is not reused".to_string()
    });
    Ok([shared, unshared])
}

fn add(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(1);
    for count in counts(&mut rng) {
        let (a, b) = (normal(&mut rng, count), normal(&mut rng, count));
        let expected = add_in_float64(&a, &b);
        for on in tester.all() {
            let (a, b) = (&on.put(&a, &[count])?, &on.put(&b, &[count])?);
            let sum = on.run(Add { a, b })?;
            on.agree(&format!("{count}"), &sum, &[count], &expected)?;
        }
    }
    Ok(())
}

fn add_accepts_one_tensor_twice(tester: &Tester) -> Result<()> {
    let x = normal(&mut tester.random(2), 77);
    for on in tester.all() {
        let a = &on.put(&x, &[7, 11])?;
        let sum = on.run(Add { a, b: a })?;
        on.agree("x + x", &sum, &[7, 11], &add_in_float64(&x, &x))?;
    }
    Ok(())
}

fn relu_and_its_gradient(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(3);
    for count in counts(&mut rng) {
        let (mut x, dy) = (normal(&mut rng, count), normal(&mut rng, count));
        x[count / 2] = 0.0;
        let (rectified, gradient) = (relu_in_float64(&x), relu_backward_in_float64(&dy, &x));
        for on in tester.all() {
            let x = &on.put(&x, &[count])?;
            let y = &on.run(Relu { x })?;
            on.agree(&format!("{count}"), y, &[count], &rectified)?;
            let case = format!("{count}");
            let dy = on.put(&dy, &[count])?;
            let run = |dy| on.run(ReluBackward { dy, y });
            for dx in shared_and_unshared(&on, &case, dy, run)? {
                on.agree(&case, &dx, &[count], &gradient)?;
            }
        }
    }
    Ok(())
}

fn relu_keeps_nan(tester: &Tester) -> Result<()> {
    let x = [
        f32::NAN,
        -1.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        -0.0,
        2.0,
        -f32::NAN,
    ];
    let ones = [1.0; 7];
    for on in tester.all() {
        let there = &on.put(&x, &[7])?;
        let y = &on.run(Relu { x: there })?;
        on.agree("of NaN", y, &[7], &relu_in_float64(&x))?;
        let run = |dy| on.run(ReluBackward { dy, y });
        let results = shared_and_unshared(&on, "at NaN", on.put(&ones, &[7])?, run)?;
        for dx in results {
            on.agree("at NaN", &dx, &[7], &relu_backward_in_float64(&ones, &x))?;
        }
    }
    Ok(())
}

fn scale_and_accumulate(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(4);
    for count in counts(&mut rng) {
        let (x, sum) = (normal(&mut rng, count), normal(&mut rng, count));
        let factor = rng.uniform(-3.0, 3.0);
        for on in tester.all() {
            let x_there = &on.put(&x, &[count])?;
            let scaled = on.run(Scale { factor, x: x_there })?;
            let case = format!("{count}");
            on.agree(&case, &scaled, &[count], &scale_in_float64(factor, &x))?;
            let case = format!("{count}");
            let run = |sum| on.run(Accumulate { sum, x: x_there });
            for y in shared_and_unshared(&on, &case, on.put(&sum, &[count])?, run)? {
                on.agree(&case, &y, &[count], &add_in_float64(&sum, &x))?;
            }
            let case = format!("x of accumulate {count}");
            on.agree(&case, x_there, &[count], &Expected::exact(wide(&x)))?;
        }
    }
    Ok(())
}

/// The two share their memory, so the result cannot take it.
fn accumulate_and_relu_backward_accept_one_tensor_twice(tester: &Tester) -> Result<()> {
    let x = normal(&mut tester.random(5), 77);
    for on in tester.all() {
        let there = on.put(&x, &[77])?;
        let (sum, dy) = (there.clone(), there.clone());
        let sum = on.run(Accumulate { sum, x: &there })?;
        on.agree("sum + sum", &sum, &[77], &add_in_float64(&x, &x))?;
        let dx = on.run(ReluBackward { dy, y: &there })?;
        on.agree("of y", &dx, &[77], &relu_backward_in_float64(&x, &x))?;
        on.equal("of y", &bits(&there.to_vec()?), &bits(&x));
    }
    Ok(())
}

fn broadcast_fills_any_shape(tester: &Tester) -> Result<()> {
    let shapes: [&[usize]; 5] = [&[1], &[257], &[3, 65], &[2, 3, 5, 7], &[3, 129, 129]];
    for shape in shapes {
        let expected = Expected::exact(vec![-1.25; shape.iter().product()]);
        for on in tester.all() {
            let value = &on.put(&[-1.25], &[1])?;
            let y = on.run(Broadcast { value, shape })?;
            on.agree(&format!("to {shape:?}"), &y, shape, &expected)?;
        }
    }
    Ok(())
}

fn f16_activations(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(81);
    for count in COUNTS_OF_F16 {
        let [x, y] = std::array::from_fn(|_| normal16(&mut rng, count));
        let (sum, rectified) = (add_in_float64(&x, &y), relu_in_float64(&x));
        let gradient = relu_backward_in_float64(&y, &x);
        for on in tester.all().filter(On::has_f16) {
            let case = &format!("f16 {count}");
            let put_y = || on.put16(&y, &[count]);
            let x = &on.put16(&x, &[count])?;
            let found = on.run(Add { a: x, b: &put_y()? })?;
            on.agree16(case, &found, &[count], &sum)?;
            let found = on.run(Relu { x })?;
            on.agree16(case, &found, &[count], &rectified)?;
            let run = |dy| on.run(ReluBackward { dy, y: x });
            for found in shared_and_unshared(&on, case, put_y()?, run)? {
                on.agree16(case, &found, &[count], &gradient)?;
            }
            let run = |sum| on.run(Accumulate { sum, x });
            for found in shared_and_unshared(&on, case, put_y()?, run)? {
                on.agree16(case, &found, &[count], &sum)?;
            }
        }
    }
    Ok(())
}

/// A loss scale that is too large is found by its infinities: a number that is too large for f16
/// must become one.
fn sums_too_large_for_f16_are_infinite(tester: &Tester) -> Result<()> {
    let largest = 65_504.0;
    let x = [
        largest,
        largest,
        largest,
        -largest,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1.0,
        largest,
    ];
    let y = [
        15.0,
        16.0,
        largest,
        -largest,
        1.0,
        -1.0,
        1.0,
        f32::INFINITY,
        -largest,
    ];
    for on in tester.all().filter(On::has_f16) {
        for count in [8, 9] {
            let a = &on.put16(&x[..count], &[count])?;
            let b = &on.put16(&y[..count], &[count])?;
            let case = &format!("near infinity, {count}");
            let sums = x.iter().zip(&y).map(|(x, y)| f16::from_f32(x + y).to_f64());
            let expected = Expected::exact(sums.take(count).collect());
            let run = |sum| on.run(Accumulate { sum, x: a });
            let sum = on.put16(&y[..count], &[count])?;
            let [shared, unshared] = shared_and_unshared(&on, case, sum, run)?;
            for found in [shared, unshared, on.run(Add { a, b })?] {
                on.agree16(case, &found, &[count], &expected)?;
            }
        }
    }
    Ok(())
}

fn gradients(tester: &Tester) -> Result<()> {
    let leaves = [normal_leaf(1, &[3, 5]), normal_leaf(2, &[3, 5])];
    tester.gradients("add", &leaves, |x| x[0].add(&x[1]))?;
    tester.gradients("relu", &[signed(1, &[5, 7], 0.2, 1.5)], |x| x[0].relu())?;
    tester.gradients("scale", &[normal_leaf(1, &[11])], |x| x[0].scale(-2.5))
}

fn the_gradients_of_several_uses_of_a_value_are_added(tester: &Tester) -> Result<()> {
    tester.gradients("three uses of x", &[normal_leaf(1, &[7])], |x| {
        let y = x[0].add(&x[0])?;
        y.add(&x[0].scale(0.3)?)?.add(&x[0])
    })?;
    Ok(())
}
