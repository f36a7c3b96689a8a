use half::f16;

use super::{Accumulate, Add, Broadcast, Relu, ReluBackward, Scale};
use crate::device::Readback;
use crate::error::Result;
use crate::philox::Philox;
use crate::tensor::Tensor;
use crate::testing::{
    Expected, agree, agree16, bits, check_gradients, devices, different_devices, get, get16,
    normal, normal_leaf, normal16, put, put16, random, refused, refused_argument, signed, size,
    wide, zeros, zeros_or_refused, zeros_u32, zeros16,
};

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
    case: &str,
    x: Tensor,
    run: impl Fn(Tensor) -> Result<Tensor>,
) -> [Tensor; 2] {
    let bytes = |x: &Tensor| x.read().and_then(Readback::wait).expect(case);
    let (id, before) = (x.id(), bytes(&x));
    let shared = run(x.clone()).expect(case);
    assert_ne!(shared.id(), id, "{case}: memory of a shared argument");
    assert!(bytes(&x) == before, "{case}: a shared argument changed");
    let unshared = run(x).expect(case);
    assert_eq!(unshared.id(), id, "{case}: memory of an unshared argument");
    [shared, unshared]
}

#[test]
fn add() {
    let mut rng = random(1);
    for count in counts(&mut rng) {
        let (a, b) = (normal(&mut rng, count), normal(&mut rng, count));
        let expected = add_in_float64(&a, &b);
        for (name, device) in devices::all() {
            let (a, b) = (&put(&device, &a, &[count]), &put(&device, &b, &[count]));
            let sum = device.run(Add { a, b }).expect(name);
            agree(&format!("add {count} on {name}"), &sum, &[count], &expected);
        }
    }
}

#[test]
fn add_accepts_one_tensor_twice() {
    let x = normal(&mut random(2), 77);
    for (name, device) in devices::all() {
        let a = &put(&device, &x, &[7, 11]);
        let sum = device.run(Add { a, b: a }).expect(name);
        let case = format!("x + x on {name}");
        agree(&case, &sum, &[7, 11], &add_in_float64(&x, &x));
    }
}

#[test]
fn relu_and_its_gradient() {
    let mut rng = random(3);
    for count in counts(&mut rng) {
        let (mut x, dy) = (normal(&mut rng, count), normal(&mut rng, count));
        x[count / 2] = 0.0;
        let (rectified, gradient) = (relu_in_float64(&x), relu_backward_in_float64(&dy, &x));
        for (name, device) in devices::all() {
            let x = &put(&device, &x, &[count]);
            let y = &device.run(Relu { x }).expect(name);
            agree(&format!("relu {count} on {name}"), y, &[count], &rectified);
            let case = format!("relu_backward {count} on {name}");
            let dy = put(&device, &dy, &[count]);
            let run = |dy| device.run(ReluBackward { dy, y });
            for dx in shared_and_unshared(&case, dy, run) {
                agree(&case, &dx, &[count], &gradient);
            }
        }
    }
}

#[test]
fn relu_keeps_nan() {
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
    for (name, device) in devices::all() {
        let there = &put(&device, &x, &[7]);
        let y = &device.run(Relu { x: there }).expect(name);
        let case = format!("relu of NaN on {name}");
        agree(&case, y, &[7], &relu_in_float64(&x));
        let case = format!("relu_backward at NaN on {name}");
        let run = |dy| device.run(ReluBackward { dy, y });
        let [shared, unshared] = shared_and_unshared(&case, put(&device, &ones, &[7]), run);
        agree(&case, &shared, &[7], &relu_backward_in_float64(&ones, &x));
        assert_eq!(bits(&get(&unshared)), bits(&get(&shared)), "{case}");
    }
}

#[test]
fn scale_and_accumulate() {
    let mut rng = random(4);
    for count in counts(&mut rng) {
        let (x, sum) = (normal(&mut rng, count), normal(&mut rng, count));
        let factor = rng.uniform(-3.0, 3.0);
        for (name, device) in devices::all() {
            let x_there = &put(&device, &x, &[count]);
            let scaled = device.run(Scale { factor, x: x_there }).expect(name);
            let case = format!("scale {count} on {name}");
            agree(&case, &scaled, &[count], &scale_in_float64(factor, &x));
            let case = format!("accumulate {count} on {name}");
            let run = |sum| device.run(Accumulate { sum, x: x_there });
            for y in shared_and_unshared(&case, put(&device, &sum, &[count]), run) {
                agree(&case, &y, &[count], &add_in_float64(&sum, &x));
            }
            let case = format!("x of accumulate {count} on {name}");
            agree(&case, x_there, &[count], &Expected::exact(wide(&x)));
        }
    }
}

/// The two share their memory, so the result cannot take it.
#[test]
fn accumulate_and_relu_backward_accept_one_tensor_twice() {
    let x = normal(&mut random(5), 77);
    for (name, device) in devices::all() {
        let there = put(&device, &x, &[77]);
        let (sum, dy) = (there.clone(), there.clone());
        let sum = device.run(Accumulate { sum, x: &there }).expect(name);
        let case = format!("sum + sum on {name}");
        agree(&case, &sum, &[77], &add_in_float64(&x, &x));
        let dx = device.run(ReluBackward { dy, y: &there }).expect(name);
        let case = format!("relu_backward of y on {name}");
        agree(&case, &dx, &[77], &relu_backward_in_float64(&x, &x));
        assert_eq!(bits(&get(&there)), bits(&x), "{name}");
    }
}

#[test]
fn broadcast_fills_any_shape() {
    let shapes: [&[usize]; 5] = [&[1], &[257], &[3, 65], &[2, 3, 5, 7], &[3, 129, 129]];
    for shape in shapes {
        let expected = Expected::exact(vec![-1.25; shape.iter().product()]);
        for (name, device) in devices::all() {
            let value = &put(&device, &[-1.25], &[1]);
            let y = device.run(Broadcast { value, shape }).expect(name);
            agree(&format!("broadcast on {name}"), &y, shape, &expected);
        }
    }
}

#[test]
fn f16_activations() {
    let mut rng = random(81);
    for count in COUNTS_OF_F16 {
        let [x, y] = std::array::from_fn(|_| normal16(&mut rng, count));
        let (sum, rectified) = (add_in_float64(&x, &y), relu_in_float64(&x));
        let gradient = relu_backward_in_float64(&y, &x);
        for (name, device) in devices::with_f16(devices::all()) {
            let case = |what: &str| format!("{what} of {count} on {name}");
            let put_y = || put16(&device, &y, &[count]);
            let x = &put16(&device, &x, &[count]);
            let found = device.run(Add { a: x, b: &put_y() }).expect(name);
            agree16(&case("add"), &found, &[count], &sum);
            let found = device.run(Relu { x }).expect(name);
            agree16(&case("relu"), &found, &[count], &rectified);
            let case_of_relu = case("relu_backward");
            let run = |dy| device.run(ReluBackward { dy, y: x });
            for found in shared_and_unshared(&case_of_relu, put_y(), run) {
                agree16(&case_of_relu, &found, &[count], &gradient);
            }
            let case_of_sum = case("accumulate");
            let run = |sum| device.run(Accumulate { sum, x });
            for found in shared_and_unshared(&case_of_sum, put_y(), run) {
                agree16(&case_of_sum, &found, &[count], &sum);
            }
        }
    }
}

/// A loss scale that is too large is found by its infinities: a number that is too large for f16
/// must become one.
#[test]
fn sums_too_large_for_f16_are_infinite() {
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
    for (name, device) in devices::with_f16(devices::all()) {
        for count in [8, 9] {
            let [a, b] = &[&x, &y].map(|x| put16(&device, &x[..count], &[count]));
            let case = format!("accumulate {count} on {name}");
            let [shared, unshared] =
                shared_and_unshared(&case, put16(&device, &y[..count], &[count]), |sum| {
                    device.run(Accumulate { sum, x: a })
                });
            for found in [device.run(Add { a, b }).expect(name), shared, unshared] {
                for (i, &found) in get16(&found).iter().enumerate() {
                    let expected = f16::from_f32(x[i] + y[i]).to_f32();
                    assert!(
                        found == expected || found.is_nan() && expected.is_nan(),
                        "{} + {} of {count} becomes {found} and not {expected} on {name}",
                        x[i],
                        y[i]
                    );
                }
            }
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let (a, b) = (&zeros(&device, &[2, 3]), &zeros(&device, &[3, 2]));
        let integers = &zeros_u32(&device, &[2, 3]);
        let add = |a, b| device.run(Add { a, b });
        refused(name, "add: shapes", add(a, b));
        refused(name, "add: type of b", add(a, integers));
        refused(name, "add: type of both", add(integers, integers));
        refused(name, "relu: type", device.run(Relu { x: integers }));
        let relu_backward = |dy: Tensor, y| device.run(ReluBackward { dy, y });
        // Shared and not shared.
        let owned = zeros(&device, &[2, 3]);
        refused(name, "relu_backward: shapes", relu_backward(a.clone(), b));
        refused(name, "relu_backward: shapes", relu_backward(owned, b));
        let owned = zeros_u32(&device, &[2, 3]);
        let shared = integers.clone();
        refused(name, "relu_backward: type", relu_backward(shared, integers));
        refused(name, "relu_backward: type", relu_backward(owned, integers));
        let (factor, x) = (2.0, integers);
        refused(name, "scale: type", device.run(Scale { factor, x }));
        let accumulate = |sum: Tensor, x| device.run(Accumulate { sum, x });
        let owned = zeros(&device, &[2, 3]);
        refused(name, "accumulate: shapes", accumulate(a.clone(), b));
        refused(name, "accumulate: shapes", accumulate(owned, b));
        let owned = zeros(&device, &[2, 3]);
        refused(name, "accumulate: type", accumulate(owned, integers));
        let (value, shape) = (&zeros(&device, &[2]), &[2, 2]);
        let broadcast = device.run(Broadcast { value, shape });
        refused(name, "broadcast: value", broadcast);
        let (value, shape) = (&zeros(&device, &[1]), &[1 << 20, 1 << 20]);
        let broadcast = device.run(Broadcast { value, shape });
        refused(name, "broadcast: 2^40 elements", broadcast);
    }
}

#[test]
fn an_argument_of_the_wrong_type_is_named() {
    for (name, device) in devices::with_f16(devices::all()) {
        let (x, x16) = (&zeros(&device, &[2, 3]), &zeros16(&device, &[2, 3]));
        refused_argument(name, "b", device.run(Add { a: x, b: x16 }));
        let (sum, dy) = (x16.clone(), x16.clone());
        refused_argument(name, "x", device.run(Accumulate { sum, x }));
        refused_argument(name, "y", device.run(ReluBackward { dy, y: x }));
        refused_argument(
            name,
            "x",
            device.run(Scale {
                factor: 2.0,
                x: x16,
            }),
        );
    }
}

#[test]
fn tensors_without_elements() {
    for (name, device) in devices::all() {
        for shape in [&[0][..], &[0, 3], &[3, 0], &[2, 0, 4, 4]] {
            let x = &zeros(&device, shape);
            let (dy, sum) = (x.clone(), x.clone());
            let value = &zeros(&device, &[1]);
            zeros_or_refused(name, "relu", device.run(Relu { x }));
            let back = device.run(ReluBackward { dy, y: x });
            zeros_or_refused(name, "relu_backward", back);
            zeros_or_refused(name, "add", device.run(Add { a: x, b: x }));
            zeros_or_refused(name, "scale", device.run(Scale { factor: 2.0, x }));
            zeros_or_refused(name, "accumulate", device.run(Accumulate { sum, x }));
            let broadcast = device.run(Broadcast { value, shape });
            zeros_or_refused(name, "broadcast", broadcast);
        }
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    for (case, device, other) in different_devices() {
        let (own, foreign) = (&zeros(&device, &[3]), &zeros(&other, &[3]));
        refused(&case, "relu", device.run(Relu { x: foreign }));
        refused(&case, "add", device.run(Add { a: own, b: foreign }));
        refused(&case, "add", device.run(Add { a: foreign, b: own }));
        let (dy, sum) = (foreign.clone(), foreign.clone());
        let back = device.run(ReluBackward { dy, y: own });
        refused(&case, "relu_backward", back);
        refused(&case, "accumulate", device.run(Accumulate { sum, x: own }));
    }
}

#[test]
fn gradients() {
    let leaves = [normal_leaf(1, &[3, 5]), normal_leaf(2, &[3, 5])];
    check_gradients("add", &leaves, |x| x[0].add(&x[1]));
    check_gradients("relu", &[signed(1, &[5, 7], 0.2, 1.5)], |x| x[0].relu());
    check_gradients("scale", &[normal_leaf(1, &[11])], |x| x[0].scale(-2.5));
}

#[test]
fn the_gradients_of_several_uses_of_a_value_are_added() {
    check_gradients("three uses of x", &[normal_leaf(1, &[7])], |x| {
        let y = x[0].add(&x[0])?;
        y.add(&x[0].scale(0.3)?)?.add(&x[0])
    });
}
