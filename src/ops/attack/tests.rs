//! The step of an attack has the same bits as a plain loop.

use super::AttackStep;
use crate::Tensor;
use crate::testing::{
    devices, get, normal, put, random, refused, same_bits, size, zeros, zeros_u32,
};

const ALPHA: f32 = 0.07;
const EPS: f32 = 0.11;

/// The step of these sizes with pixels in [0, 1].
fn step<'a>([x, dx, clean]: [&'a Tensor; 3]) -> AttackStep<'a> {
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

#[test]
fn agreement_with_a_plain_loop() {
    let mut rng = random(91);
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
        for (name, device) in devices::all() {
            let [x, dx, clean] = &[&x, &dx, &clean].map(|data| put(&device, data, &[count]));
            let y = get(&device.run(step([x, dx, clean])).expect(name));
            // alpha times a sign is exact, so a fused multiply-add rounds once, like the loop.
            let wrong = (0..count).find(|&i| y[i].to_bits() != expected[i].to_bits());
            if let Some(i) = wrong {
                panic!(
                    "{count} on {name}: element {i} is {:e}, expected {:e}",
                    y[i], expected[i]
                );
            }
        }
    }
}

#[test]
fn results_are_deterministic() {
    same_bits(devices::all(), |device| {
        let mut rng = random(90);
        let [x, dx, clean] = &[(); 3].map(|()| put(device, &normal(&mut rng, 40_001), &[40_001]));
        [("y", device.run(step([x, dx, clean])).expect("a step"))]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let (a, b) = (&zeros(&device, &[2, 3]), &zeros(&device, &[3, 2]));
        let integers = &zeros_u32(&device, &[2, 3]);
        refused(name, "shape of dx", device.run(step([a, b, a])));
        refused(name, "shape of clean", device.run(step([a, a, b])));
        refused(name, "type of dx", device.run(step([a, integers, a])));
        let good = || step([a, a, a]);
        for (what, wrong) in [
            (
                "negative eps",
                AttackStep {
                    eps: -0.1,
                    ..good()
                },
            ),
            (
                "eps of NaN",
                AttackStep {
                    eps: f32::NAN,
                    ..good()
                },
            ),
            ("low above high", AttackStep { low: 2.0, ..good() }),
        ] {
            refused(name, what, device.run(wrong));
        }
        device.run(good()).expect("arguments that fit");
    }
}
