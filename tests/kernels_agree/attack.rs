//! The step of an attack: the same bits as a plain loop.

use parallax::device::kernels::AttackStep;
use parallax::device::read_f32;

use crate::compare::{normal, put, random, size};
use crate::devices;

#[test]
fn attack_step() {
    let mut rng = random(91);
    let mut counts = vec![1, 3, 4, 5, 255, 257, 1023, 40_001];
    counts.extend((0..3).map(|_| size(&mut rng, 1, 5000)));
    for count in counts {
        let clean: Vec<f32> = (0..count).map(|_| rng.uniform(0.0, 1.0)).collect();
        let x: Vec<f32> = clean.iter().map(|c| c + rng.uniform(-0.3, 0.3)).collect();
        let mut dx = normal(&mut rng, count);
        dx[count / 2] = 0.0;
        let step = AttackStep {
            alpha: 0.07,
            eps: 0.11,
            low: 0.0,
            high: 1.0,
        };
        let expected: Vec<f32> = (0..count)
            .map(|i| {
                let sign = if dx[i] == 0.0 { 0.0 } else { dx[i].signum() };
                let moved = x[i] + step.alpha * sign;
                let inside = moved.clamp(clean[i] - step.eps, clean[i] + step.eps);
                inside.clamp(step.low, step.high)
            })
            .collect();
        for (name, device) in devices::all() {
            let [x, dx, clean] = [&x, &dx, &clean].map(|data| put(&device, data, &[count]));
            let y = device.attack_step(step, &x, &dx, &clean).expect(name);
            let y = read_f32(&device, &y).expect(name);
            // alpha times a sign is exact, so that a fused multiply-add rounds as often as the loop: once.
            let first = (0..count).find(|&i| y[i].to_bits() != expected[i].to_bits());
            if let Some(i) = first {
                panic!(
                    "{count} on {name}: element {i} is {:e}, expected {:e}",
                    y[i], expected[i]
                );
            }
        }
    }
}
