use super::{CheckFinite, SumRows};
use crate::ops::reduce;
use crate::testing::{
    Expected, Sum, agree, check_gradients, devices, different_devices, get_u32, normal,
    normal_leaf, normal16, put, put_u32, put16, random, refused, refused_argument, same_bits, size,
    wide, zeros, zeros_or_refused, zeros_u32, zeros16,
};

fn sum_in_float64(x: &[f32]) -> Expected {
    [Sum::of(wide(x))].into_iter().collect()
}

fn sum_rows_in_float64(x: &[f32], columns: usize) -> Expected {
    let column = |c: usize| Sum::of(x.iter().skip(c).step_by(columns).map(|&x| x.into()));
    (0..columns).map(column).collect()
}

#[test]
fn sum_of_all_elements() {
    let mut rng = random(10);
    let mut counts = vec![
        1, 2, 3, 63, 64, 65, 129, 256, 257, 1025, 4097, 40_001, 300_007,
    ];
    counts.extend((0..4).map(|_| size(&mut rng, 1, 20_000)));
    for count in counts {
        // The mean is not zero, so that a part that is left out shows.
        let x: Vec<f32> = (0..count).map(|_| rng.uniform(-1.0, 2.0)).collect();
        let expected = sum_in_float64(&x);
        for (name, device) in devices::all() {
            let x = &put(&device, &x, &[count]);
            let y = device.run(reduce::Sum { x }).expect(name);
            agree(&format!("sum of {count} on {name}"), &y, &[1], &expected);
        }
    }
}

#[test]
fn sum_of_any_shape() {
    let x = normal(&mut random(11), 2 * 3 * 5 * 7);
    let expected = sum_in_float64(&x);
    for (name, device) in devices::all() {
        let x = &put(&device, &x, &[2, 3, 5, 7]);
        let y = device.run(reduce::Sum { x }).expect(name);
        let case = format!("sum of [2, 3, 5, 7] on {name}");
        agree(&case, &y, &[1], &expected);
    }
}

#[test]
fn sum_over_rows() {
    let mut rng = random(12);
    let mut shapes = vec![
        [1, 1],
        [1, 17],
        [17, 1],
        [257, 3],
        [65, 129],
        [64, 64],
        [1000, 64],
        [3, 5000],
        [300, 257],
    ];
    shapes.extend((0..4).map(|_| [size(&mut rng, 1, 200), size(&mut rng, 1, 200)]));
    for [rows, columns] in shapes {
        let x: Vec<f32> = (0..rows * columns)
            .map(|_| rng.uniform(-1.0, 2.0))
            .collect();
        let expected = sum_rows_in_float64(&x, columns);
        for (name, device) in devices::all() {
            let x = &put(&device, &x, &[rows, columns]);
            let y = device.run(SumRows { x }).expect(name);
            let case = format!("sum_rows {rows} x {columns} on {name}");
            agree(&case, &y, &[columns], &expected);
        }
    }
}

#[test]
fn check_finite_sets_its_flag_and_never_clears_it() {
    let mut rng = random(13);
    for count in [1, 3, 64, 65, 257, 1025, 40_001] {
        let finite = normal(&mut rng, count);
        for (name, device) in devices::all() {
            let flag_after = |x: &[f32], before: u32| {
                let flag = &put_u32(&device, &[before], &[1]);
                let x = &put(&device, x, &[count]);
                device.run(CheckFinite { x, flag }).expect(name);
                get_u32(flag)
            };
            let mut largest = finite.clone();
            largest[count / 2] = -f32::MAX;
            let case = format!("{count} finite numbers on {name}");
            assert_eq!(flag_after(&largest, 0), [0], "{case}");
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, count / 2, count - 1] {
                    let mut x = finite.clone();
                    x[at] = bad;
                    let case = format!("{bad} at {at} of {count} on {name}");
                    assert_eq!(flag_after(&x, 0), [1], "{case}");
                }
            }
            let case = format!("a flag that was set, on {name}");
            assert_eq!(flag_after(&finite, 1), [1], "{case}");
        }
    }
}

#[test]
fn check_finite_of_f16() {
    // Around words, vec4s, pairs of vec4s, workgroups and slices. Odd ones end in half a word.
    let counts = [1, 2, 3, 5, 8, 255, 1025, 4097, 33_333, 40_000, 70_001];
    let mut rng = random(82);
    for (name, device) in devices::with_f16(devices::all()) {
        for count in counts {
            let mut x = normal16(&mut rng, count);
            let flag_of = |x: &[f32]| {
                let flag = &put_u32(&device, &[0], &[1]);
                let x = &put16(&device, x, &[count]);
                device.run(CheckFinite { x, flag }).expect(name);
                get_u32(flag)[0]
            };
            x[0] = 65_504.0;
            assert_eq!(flag_of(&x), 0, "{count} on {name}");
            for place in [0, count / 2, count - 1] {
                for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                    let before = std::mem::replace(&mut x[place], bad);
                    assert_eq!(flag_of(&x), 1, "{bad} at {place} of {count} on {name}");
                    x[place] = before;
                }
            }
        }
    }
}

/// The last word of an odd number of f16 elements holds one element, and memory that belongs to
/// none.
#[test]
fn check_finite_ignores_memory_after_the_last_element() {
    for (name, device) in devices::with_f16(devices::all()) {
        for count in [3, 65] {
            for _ in 0..4 {
                drop(put16(&device, &vec![f32::NAN; count + 1], &[count + 1]));
            }
            let flag = &put_u32(&device, &[0], &[1]);
            let x = &put16(&device, &vec![1.0; count], &[count]);
            device.run(CheckFinite { x, flag }).expect(name);
            assert_eq!(get_u32(flag), [0], "{count} on {name}");
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let (x, integers) = (&zeros(&device, &[2, 3]), &zeros_u32(&device, &[2, 3]));
        refused(name, "sum: type", device.run(reduce::Sum { x: integers }));
        let cube = &zeros(&device, &[2, 3, 4]);
        let sum_rows = |x| device.run(SumRows { x });
        refused(name, "sum_rows: dimensions", sum_rows(cube));
        refused(name, "sum_rows: type", sum_rows(integers));
        let check_finite = |x, flag| device.run(CheckFinite { x, flag });
        let two = &zeros_u32(&device, &[2]);
        refused(name, "check_finite: shape of flag", check_finite(x, two));
        let float = &zeros(&device, &[1]);
        refused(name, "check_finite: type of flag", check_finite(x, float));
        let flag = &zeros_u32(&device, &[1]);
        refused(name, "check_finite: x", check_finite(integers, flag));
    }
    for (name, device) in devices::with_f16(devices::all()) {
        let x = &zeros16(&device, &[2, 3]);
        refused_argument(name, "x", device.run(reduce::Sum { x }));
        refused_argument(name, "x", device.run(SumRows { x }));
    }
}

#[test]
fn tensors_without_elements() {
    for (name, device) in devices::all() {
        for shape in [&[0][..], &[0, 3], &[3, 0], &[2, 0, 4, 4]] {
            let x = &zeros(&device, shape);
            zeros_or_refused(name, "sum", device.run(reduce::Sum { x }));
            let flag = &zeros_u32(&device, &[1]);
            device.run(CheckFinite { x, flag }).expect(name);
            assert_eq!(get_u32(flag), [0], "{shape:?} on {name}");
        }
        for shape in [[0, 3], [3, 0]] {
            let x = &zeros(&device, &shape);
            zeros_or_refused(name, "sum_rows", device.run(SumRows { x }));
        }
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    for (case, device, other) in different_devices() {
        let (own, foreign) = (&zeros(&device, &[2, 3]), &zeros(&other, &[2, 3]));
        refused(&case, "sum", device.run(reduce::Sum { x: foreign }));
        refused(&case, "sum_rows", device.run(SumRows { x: foreign }));
        let flag = &zeros_u32(&other, &[1]);
        let checked = device.run(CheckFinite { x: own, flag });
        refused(&case, "check_finite: flag", checked);
        let flag = &zeros_u32(&device, &[1]);
        let checked = device.run(CheckFinite { x: foreign, flag });
        refused(&case, "check_finite: x", checked);
    }
}

#[test]
fn equal_calls_give_equal_bits() {
    let mut rng = random(90);
    let x = normal(&mut rng, 9 * 17 * 16 * 15);
    let rows = normal(&mut rng, 301 * 65);
    same_bits(devices::all(), |device| {
        let x = &put(device, &x, &[9, 17, 16, 15]);
        let rows = &put(device, &rows, &[301, 65]);
        [
            ("sum", device.run(reduce::Sum { x }).expect("sum")),
            ("sum_rows", device.run(SumRows { x: rows }).expect("rows")),
        ]
    });
}

#[test]
fn gradients() {
    check_gradients("sum", &[normal_leaf(1, &[3, 2, 5])], |x| x[0].sum());
}
