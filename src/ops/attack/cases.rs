//! The step of an attack has the same bits as a plain loop.

use super::AttackStep;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::testing::{Tester, bits, normal, size};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    agreement_with_a_plain_loop(tester)
}

const ALPHA: f32 = 0.07;

const EPS: f32 = 0.11;

/// The step of these sizes with pixels in [0, 1].
pub(super) fn step<'a>([x, dx, clean]: [&'a Tensor; 3]) -> AttackStep<'a> {
    AttackStep {
        x,
        dx,
        clean,
        alpha: ALPHA,
        eps: EPS,
        low: 0.0,
        high: 1.0,
    }
}

fn agreement_with_a_plain_loop(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(91);
    let mut counts = vec![1, 3, 4, 5, 255, 257, 1023, 40_001];
    counts.extend((0..3).map(|_| size(&mut rng, 1, 5000)));
    for count in counts {
        let clean: Vec<f32> = (0..count).map(|_| rng.uniform(0.0, 1.0)).collect();
        let x: Vec<f32> = clean.iter().map(|c| c + rng.uniform(-0.3, 0.3)).collect();
        let mut dx = normal(&mut rng, count);
        dx[count / 2] = 0.0;
        let expected: Vec<f32> = (0..count)
            .map(|i| {
                let sign = if dx[i] == 0.0 { 0.0 } else { dx[i].signum() };
                let moved = x[i] + ALPHA * sign;
                moved.clamp(clean[i] - EPS, clean[i] + EPS).clamp(0.0, 1.0)
            })
            .collect();
        for on in tester.all() {
            let put = |data: &Vec<f32>| on.put(data, &[count]);
            let (x, dx, clean) = (&put(&x)?, &put(&dx)?, &put(&clean)?);
            let y = on.run(step([x, dx, clean]))?.to_vec()?;
            // alpha times a sign is exact, so a fused multiply-add rounds once, like the loop.
            on.equal(&format!("of {count}"), &bits(&y), &bits(&expected));
        }
    }
    Ok(())
}
