//! Reductions against float64.

use super::{CheckFinite, SumRows};
use crate::error::Result;
use crate::ops::reduce;
use crate::testing::tester::On;
use crate::testing::{Expected, Sum, Tester, normal, normal_leaf, normal16, size, wide};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    sum_of_all_elements(tester)?;
    sum_of_any_shape(tester)?;
    sum_over_rows(tester)?;
    check_finite_sets_its_flag_and_never_clears_it(tester)?;
    check_finite_of_f16(tester)?;
    gradients(tester)
}

fn sum_in_float64(x: &[f32]) -> Expected {
    [Sum::of(wide(x))].into_iter().collect()
}

fn sum_rows_in_float64(x: &[f32], columns: usize) -> Expected {
    let column = |c: usize| Sum::of(x.iter().skip(c).step_by(columns).map(|&x| x.into()));
    (0..columns).map(column).collect()
}

fn sum_of_all_elements(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(10);
    let mut counts = vec![
        1, 2, 3, 63, 64, 65, 129, 256, 257, 1025, 4097, 40_001, 300_007,
    ];
    counts.extend((0..4).map(|_| size(&mut rng, 1, 20_000)));
    for count in counts {
        // The mean is not zero, so that a part that is left out shows.
        let x: Vec<f32> = (0..count).map(|_| rng.uniform(-1.0, 2.0)).collect();
        let expected = sum_in_float64(&x);
        for on in tester.all() {
            let x = &on.put(&x, &[count])?;
            let y = on.run(reduce::Sum { x })?;
            on.agree(&format!("of {count}"), &y, &[1], &expected)?;
        }
    }
    Ok(())
}

fn sum_of_any_shape(tester: &Tester) -> Result<()> {
    let x = normal(&mut tester.random(11), 2 * 3 * 5 * 7);
    let expected = sum_in_float64(&x);
    for on in tester.all() {
        let x = &on.put(&x, &[2, 3, 5, 7])?;
        let y = on.run(reduce::Sum { x })?;
        on.agree("of [2, 3, 5, 7]", &y, &[1], &expected)?;
    }
    Ok(())
}

fn sum_over_rows(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(12);
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
        for on in tester.all() {
            let x = &on.put(&x, &[rows, columns])?;
            let y = on.run(SumRows { x })?;
            let case = format!("{rows} x {columns}");
            on.agree(&case, &y, &[columns], &expected)?;
        }
    }
    Ok(())
}

fn check_finite_sets_its_flag_and_never_clears_it(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(13);
    for count in [1, 3, 64, 65, 257, 1025, 40_001] {
        let finite = normal(&mut rng, count);
        for on in tester.all() {
            let flag_after = |case: &str, x: &[f32], before: u32, expected: u32| -> Result<()> {
                let flag = &on.put(&[before], &[1])?;
                let x = &on.put(x, &[count])?;
                on.run(CheckFinite { x, flag })?;
                on.equal(case, &flag.to_vec()?, &[expected]);
                Ok(())
            };
            let mut largest = finite.clone();
            largest[count / 2] = -f32::MAX;
            flag_after(&format!("of {count} finite numbers"), &largest, 0, 0)?;
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, count / 2, count - 1] {
                    let mut x = finite.clone();
                    x[at] = bad;
                    flag_after(&format!("of {bad} at {at} of {count}"), &x, 0, 1)?;
                }
            }
            flag_after("with a flag that was set", &finite, 1, 1)?;
        }
    }
    Ok(())
}

fn check_finite_of_f16(tester: &Tester) -> Result<()> {
    // Around words, vec4s, pairs of vec4s, workgroups and slices. Odd ones end in half a word.
    let counts = [1, 2, 3, 5, 8, 255, 1025, 4097, 33_333, 40_000, 70_001];
    let mut rng = tester.random(82);
    for on in tester.all().filter(On::has_f16) {
        for count in counts {
            let mut x = normal16(&mut rng, count);
            let has_flag = |case: &str, x: &[f32], expected: u32| -> Result<()> {
                let flag = &on.put(&[0u32], &[1])?;
                let x = &on.put16(x, &[count])?;
                on.run(CheckFinite { x, flag })?;
                on.equal(case, &flag.to_vec()?, &[expected]);
                Ok(())
            };
            x[0] = 65_504.0;
            has_flag(&format!("of {count} f16 numbers"), &x, 0)?;
            for place in [0, count / 2, count - 1] {
                for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                    let before = std::mem::replace(&mut x[place], bad);
                    has_flag(&format!("of {bad} at {place} of {count}"), &x, 1)?;
                    x[place] = before;
                }
            }
        }
    }
    Ok(())
}

fn gradients(tester: &Tester) -> Result<()> {
    tester.gradients("sum", &[normal_leaf(1, &[3, 2, 5])], |x| x[0].sum())
}
