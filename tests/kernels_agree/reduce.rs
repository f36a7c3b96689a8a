//! Sums, and the search for what is not finite.

use crate::compare::{agree, get_u32, normal, put, put_u32, random, size, wide};
use crate::{devices, reference};

#[test]
fn sum_of_all_elements() {
    let mut rng = random(10);
    let mut counts = vec![
        1, 2, 3, 63, 64, 65, 129, 256, 257, 1025, 4097, 40_001, 300_007,
    ];
    counts.extend((0..4).map(|_| size(&mut rng, 1, 20_000)));
    for count in counts {
        // A mean that is not zero, so that a lost part shows.
        let x: Vec<f32> = (0..count).map(|_| rng.uniform(-1.0, 2.0)).collect();
        let expected = reference::elementwise::sum(&wide(&x));
        for (name, device) in devices::all() {
            let y = device.sum(&put(&device, &x, &[count])).expect(name);
            agree(
                &format!("sum of {count} on {name}"),
                &device,
                &y,
                &[1],
                &expected,
            );
        }
    }
}

#[test]
fn sum_of_any_shape() {
    let x = normal(&mut random(11), 2 * 3 * 5 * 7);
    let expected = reference::elementwise::sum(&wide(&x));
    for (name, device) in devices::all() {
        let y = device.sum(&put(&device, &x, &[2, 3, 5, 7])).expect(name);
        agree(
            &format!("sum of [2, 3, 5, 7] on {name}"),
            &device,
            &y,
            &[1],
            &expected,
        );
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
        let expected = reference::elementwise::sum_rows(&wide(&x), columns);
        for (name, device) in devices::all() {
            let y = device
                .sum_rows(&put(&device, &x, &[rows, columns]))
                .expect(name);
            let case = format!("sum_rows {rows} x {columns} on {name}");
            agree(&case, &device, &y, &[columns], &expected);
        }
    }
}

#[test]
fn check_finite_sets_its_flag_and_never_clears_it() {
    let mut rng = random(13);
    for count in [1, 3, 64, 65, 257, 1025, 40_001] {
        let finite = normal(&mut rng, count);
        for (name, device) in devices::all() {
            let flag = put_u32(&device, &[0], &[1]);
            let mut largest = finite.clone();
            largest[count / 2] = -f32::MAX;
            device
                .check_finite(&put(&device, &largest, &[count]), &flag)
                .expect(name);
            assert_eq!(
                get_u32(&device, &flag),
                [0],
                "{count} finite numbers on {name}"
            );
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, count / 2, count - 1] {
                    let mut x = finite.clone();
                    x[at] = bad;
                    let flag = put_u32(&device, &[0], &[1]);
                    device
                        .check_finite(&put(&device, &x, &[count]), &flag)
                        .expect(name);
                    assert_eq!(
                        get_u32(&device, &flag),
                        [1],
                        "{bad} at {at} of {count} on {name}"
                    );
                }
            }
            let flag = put_u32(&device, &[1], &[1]);
            device
                .check_finite(&put(&device, &finite, &[count]), &flag)
                .expect(name);
            assert_eq!(
                get_u32(&device, &flag),
                [1],
                "a flag that was set, on {name}"
            );
        }
    }
}
