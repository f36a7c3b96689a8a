//! SGD, Adam and LARS: several steps, each against a float64 step from the device's state before
//! it.

use super::{AdamStep, AdamUpdate, LarsStep, LarsUpdate, SgdStep, SgdUpdate};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::testing::accuracy::{DIVISION, SQRT, U};
use crate::testing::{Expected, Sum, Tester, bits, normal, wide};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    sgd_agrees_with_float64(tester)?;
    adam_agrees_with_float64(tester)?;
    lars_agrees_with_float64(tester)?;
    lars_moves_a_parameter_by_its_own_norms(tester)?;
    lars_neither_adapts_nor_decays_without_a_norm(tester)?;
    a_zero_gradient_does_not_move_an_adam_parameter(tester)?;
    a_set_gate_keeps_every_bit(tester)
}

const COUNTS: [usize; 6] = [1, 3, 64, 65, 257, 20_001];

const STEPS: u32 = 5;

pub(super) const SGD: SgdStep = SgdStep {
    learning_rate: 0.1,
    momentum: 0.9,
    nesterov: true,
    weight_decay: 0.1,
    gradient_scale: 1.0,
    first: false,
};

pub(super) const ADAM: AdamStep = AdamStep {
    learning_rate: 0.1,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.1,
    gradient_scale: 1.0,
    step: 3,
};

pub(super) const LARS: LarsStep = LarsStep {
    learning_rate: 2.0,
    momentum: 0.9,
    weight_decay: 0.1,
    trust_coefficient: 0.01,
    eps: 1e-8,
    gradient_scale: 1.0,
};

/// Returns parameter and momentum after a step.
///
/// All are sums of products: the gradient of two, the momentum of three, the parameter of five (its
/// own, with Nesterov two for the gradient, and two more roundings of the momentum).
fn sgd_step(step: SgdStep, p: &[f64], g: &[f64], m: &[f64]) -> (Expected, Expected) {
    let learning_rate = f64::from(step.learning_rate);
    let momentum = f64::from(step.momentum);
    let weight_decay = f64::from(step.weight_decay);
    let (mut parameter, mut buffer) = (Expected::default(), Expected::default());
    for ((&p, &g), &m) in p.iter().zip(g).zip(m) {
        let g = g / f64::from(step.gradient_scale);
        let mut moved = Sum::of([g, weight_decay * p]);
        if !step.first {
            moved.add(momentum * m);
        }
        buffer.push(moved.value, moved.bound());
        let mut next = Sum::of([p]);
        if step.nesterov {
            next.add(-learning_rate * g);
            next.add(-learning_rate * weight_decay * p);
            next.add(-learning_rate * momentum * moved.value);
        } else {
            next.add(-learning_rate * moved.value);
        }
        // The error of the momentum, which may be larger than its value suggests if its terms
        // cancel, and that of two more products.
        let weight = learning_rate * if step.nesterov { momentum } else { 1.0 };
        let inherited = weight * (moved.bound() + 2.0 * U * moved.value.abs());
        parameter.push(next.value, next.bound() + inherited);
    }
    (parameter, buffer)
}

/// Returns parameter, first moment and second moment after a step.
///
/// The gradient is a sum of two products, the first moment of three. The new part of the second
/// moment is a square, so it has twice the error of the gradient. The update has the error of the
/// first moment, half the error of the second moment (under the root), two allowances of a root
/// (that of 1 - beta2^t may be taken on the device), four divisions (bias corrections and
/// quotients) and four roundings. Then it is subtracted, a sum of two.
fn adam_step(step: AdamStep, p: &[f64], g: &[f64], m: &[f64], v: &[f64]) -> [Expected; 3] {
    let learning_rate = f64::from(step.learning_rate);
    let (beta1, beta2) = (f64::from(step.beta1), f64::from(step.beta2));
    let eps = f64::from(step.eps);
    let weight_decay = f64::from(step.weight_decay);
    let correction1 = 1.0 - beta1.powi(step.step as i32);
    let correction2 = (1.0 - beta2.powi(step.step as i32)).sqrt();
    let [mut parameter, mut first, mut second] = [(); 3].map(|()| Expected::default());
    for (((&p, &g), &m), &v) in p.iter().zip(g).zip(m).zip(v) {
        let g = g / f64::from(step.gradient_scale);
        let gradient = Sum::of([g, weight_decay * p]);
        let m = Sum::of([
            beta1 * m,
            (1.0 - beta1) * g,
            (1.0 - beta1) * weight_decay * p,
        ]);
        let square = (1.0 - beta2) * gradient.value * gradient.value;
        let v = Sum::of([beta2 * v, square]);
        let v_bound = v.bound()
            + (1.0 - beta2) * 2.0 * gradient.value.abs() * gradient.bound()
            + 2.0 * U * square;
        first.push(m.value, m.bound());
        second.push(v.value, v_bound);

        let root = v.value.sqrt();
        let denominator = root / correction2 + eps;
        let factor = learning_rate / correction1 / denominator;
        let root_relative = if v.value > 0.0 {
            0.5 * v_bound / v.value
        } else {
            0.0
        };
        let relative = root_relative + 2.0 * SQRT + 4.0 * DIVISION + 4.0 * U;
        let update = factor * m.value;
        let next = Sum::of([p, -update]);
        parameter.push(
            next.value,
            next.bound() + factor * m.bound() + relative * update.abs(),
        );
    }
    [parameter, first, second]
}

/// Returns parameter and momentum after a step.
///
/// A square of a norm is a sum of K terms, each of which is divided by the largest magnitude, once
/// more by that of all parts, and squared. The norm has half of its error, a root and a product.
/// The rate has the errors of both norms, a division and four roundings. Momentum and parameter are
/// sums of products.
fn lars_step(step: LarsStep, p: &[f64], g: &[f64], m: &[f64]) -> (Expected, Expected) {
    let g: Vec<f64> = g
        .iter()
        .map(|g| g / f64::from(step.gradient_scale))
        .collect();
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let (learning_rate, momentum) = (f64::from(step.learning_rate), f64::from(step.momentum));
    let (mut decay, mut rate) = (f64::from(step.weight_decay), 1.0);
    let mut relative = 0.0;
    if norm(p) > 0.0 && norm(&g) > 0.0 {
        let divisor = norm(&g) + decay * norm(p) + f64::from(step.eps);
        rate = f64::from(step.trust_coefficient) * norm(p) / divisor;
        let squares = 4.0 * (p.len() as f64).sqrt() * U + 4.0 * (DIVISION + U);
        relative = 2.0 * (0.5 * squares + SQRT + U) + DIVISION + 4.0 * U;
    } else {
        decay = 0.0;
    }
    let (mut parameter, mut buffer) = (Expected::default(), Expected::default());
    for ((&p, &g), &m) in p.iter().zip(&g).zip(m) {
        let moved = Sum::of([momentum * m, rate * g, rate * decay * p]);
        let error = moved.bound() + relative * rate * (g.abs() + decay * p.abs());
        buffer.push(moved.value, error);
        let next = Sum::of([p, -learning_rate * moved.value]);
        parameter.push(next.value, next.bound() + learning_rate * error);
    }
    (parameter, buffer)
}

fn sgd_agrees_with_float64(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(70);
    for count in COUNTS {
        for (momentum, nesterov, weight_decay) in [
            (0.9, true, 1e-4),
            (0.9, false, 1e-2),
            (0.9, true, 0.0),
            (0.0, false, 0.0),
        ] {
            let start = normal(&mut rng, count);
            let gradients: Vec<Vec<f32>> = (0..STEPS).map(|_| normal(&mut rng, count)).collect();
            for on in tester.all() {
                let parameter = &on.put(&start, &[count])?;
                // The first step ignores the momentum.
                let buffer = &on.put(&vec![5.0; count], &[count])?;
                for (number, gradient) in gradients.iter().enumerate() {
                    let step = SgdStep {
                        learning_rate: 0.1 / (number + 1) as f32,
                        gradient_scale: [1.0, 4.0][number % 2],
                        momentum,
                        nesterov,
                        weight_decay,
                        first: number == 0,
                    };
                    let (p, m) = (wide(&parameter.to_vec()?), wide(&buffer.to_vec()?));
                    let (p, m) = sgd_step(step, &p, &wide(gradient), &m);
                    let gate = on.put(&[0u32], &[1])?;
                    let update = SgdUpdate {
                        step,
                        parameter,
                        gradient: &on.put(gradient, &[count])?,
                        momentum: buffer,
                        gate: (number % 2 == 0).then_some(&gate),
                    };
                    on.run(update)?;
                    let case = format!("after {step:?} {number}, {count} elements");
                    on.agree(&format!("momentum {case}"), buffer, &[count], &m)?;
                    on.agree(&format!("parameter {case}"), parameter, &[count], &p)?;
                }
            }
        }
    }
    Ok(())
}

fn adam_agrees_with_float64(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(71);
    for count in COUNTS {
        for (weight_decay, eps) in [(0.0, 1e-8), (1e-2, 1e-8), (1e-4, 0.1)] {
            let start = normal(&mut rng, count);
            let gradients: Vec<Vec<f32>> = (0..STEPS).map(|_| normal(&mut rng, count)).collect();
            for on in tester.all() {
                let parameter = &on.put(&start, &[count])?;
                let zeros = || on.put(&vec![0.0; count], &[count]);
                let (first, second) = (&zeros()?, &zeros()?);
                for (number, gradient) in (1..).zip(&gradients) {
                    // In the last step, late in a training, the bias corrections are close to 1.
                    let number = if number == STEPS { 20_000 } else { number };
                    let step = AdamStep {
                        learning_rate: 1e-3,
                        gradient_scale: [1.0, 4.0][number as usize % 2],
                        beta1: 0.9,
                        beta2: 0.999,
                        eps,
                        weight_decay,
                        step: number,
                    };
                    let (p, m) = (wide(&parameter.to_vec()?), wide(&first.to_vec()?));
                    let v = wide(&second.to_vec()?);
                    let [p, m, v] = adam_step(step, &p, &wide(gradient), &m, &v);
                    let gate = on.put(&[0u32], &[1])?;
                    let update = AdamUpdate {
                        step,
                        parameter,
                        gradient: &on.put(gradient, &[count])?,
                        first_moment: first,
                        second_moment: second,
                        gate: (number % 2 == 0).then_some(&gate),
                    };
                    on.run(update)?;
                    let case = format!("after {step:?}, {count} elements");
                    on.agree(&format!("first moment {case}"), first, &[count], &m)?;
                    on.agree(&format!("second moment {case}"), second, &[count], &v)?;
                    on.agree(&format!("parameter {case}"), parameter, &[count], &p)?;
                }
            }
        }
    }
    Ok(())
}

fn lars_agrees_with_float64(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(73);
    for count in COUNTS {
        // The squares of the smallest and of the largest numbers are beyond the range of f32.
        for (weight_decay, size, slope) in [
            (1e-2, 1.0, 1.0),
            (0.0, 1.0, 1e-3),
            (1e-6, 1e-25, 1e-25),
            (1e-2, 1e25, 1e-22),
        ] {
            let scaled = |rng: &mut _, size: f32| -> Vec<f32> {
                normal(rng, count).iter().map(|x| x * size).collect()
            };
            let start = scaled(&mut rng, size);
            let gradients: Vec<_> = (0..STEPS).map(|_| scaled(&mut rng, slope)).collect();
            for on in tester.all() {
                let parameter = &on.put(&start, &[count])?;
                let buffer = &on.put(&vec![0.0; count], &[count])?;
                for (number, gradient) in gradients.iter().enumerate() {
                    let step = LarsStep {
                        weight_decay,
                        eps: if size < 1.0 { 0.0 } else { LARS.eps },
                        gradient_scale: [1.0, 4.0][number % 2],
                        ..LARS
                    };
                    let (p, m) = (wide(&parameter.to_vec()?), wide(&buffer.to_vec()?));
                    let (p, m) = lars_step(step, &p, &wide(gradient), &m);
                    let gate = on.put(&[0u32], &[1])?;
                    let update = LarsUpdate {
                        step,
                        parameter,
                        gradient: &on.put(gradient, &[count])?,
                        momentum: buffer,
                        gate: (number % 2 == 0).then_some(&gate),
                    };
                    on.run(update)?;
                    let case = format!("after {step:?} {number}, {count} elements");
                    on.agree(&format!("momentum {case}"), buffer, &[count], &m)?;
                    on.agree(&format!("parameter {case}"), parameter, &[count], &p)?;
                }
            }
        }
    }
    Ok(())
}

/// The padding after the last element and the elements of a neighbour in memory are no part of a
/// norm.
fn lars_moves_a_parameter_by_its_own_norms(tester: &Tester) -> Result<()> {
    for on in tester.all() {
        let parameter = &on.put(&[3.0, 0.0, 4.0], &[3])?;
        let update = LarsUpdate {
            step: LarsStep {
                weight_decay: 0.0,
                eps: 0.0,
                ..LARS
            },
            parameter,
            gradient: &on.put(&[0.0, 2.0, 0.0], &[3])?,
            momentum: &on.put(&[0.0; 3], &[3])?,
            gate: None,
        };
        on.run(update)?;
        // |p| = 5 and |g| = 2, so the step is 2 * 0.01 * 5 / 2 * g.
        let expected = Expected::elementwise(vec![3.0, -0.1, 4.0]);
        on.agree("by the norms", parameter, &[3], &expected)?;
    }
    Ok(())
}

fn lars_neither_adapts_nor_decays_without_a_norm(tester: &Tester) -> Result<()> {
    for on in tester.all() {
        for (start, slope) in [([0.0; 5], 0.5), ([2.0; 5], 0.0)] {
            let parameter = &on.put(&start, &[5])?;
            let update = LarsUpdate {
                step: LARS,
                parameter,
                gradient: &on.put(&[slope; 5], &[5])?,
                momentum: &on.put(&[0.0; 5], &[5])?,
                gate: None,
            };
            on.run(update)?;
            let moved = start.map(|p| f64::from(p - LARS.learning_rate * slope));
            let expected = Expected::exact(moved.to_vec());
            on.agree("without a norm", parameter, &[5], &expected)?;
        }
    }
    Ok(())
}

fn a_zero_gradient_does_not_move_an_adam_parameter(tester: &Tester) -> Result<()> {
    for on in tester.all() {
        let parameter = &on.put(&[1.5, -2.0], &[2])?;
        let zeros = || on.put(&[0.0; 2], &[2]);
        let (gradient, first, second) = (&zeros()?, &zeros()?, &zeros()?);
        let update = AdamUpdate {
            step: AdamStep {
                weight_decay: 0.0,
                step: 1,
                ..ADAM
            },
            parameter,
            gradient,
            first_moment: first,
            second_moment: second,
            gate: None,
        };
        on.run(update)?;
        let expected = Expected::exact(vec![1.5, -2.0]);
        on.agree("of a zero gradient", parameter, &[2], &expected)?;
    }
    Ok(())
}

/// One step of each rule. The first moment serves as the momentum of SGD and LARS.
pub(super) fn update_all(
    device: &Device,
    state: &[Tensor; 4],
    gate: Option<&Tensor>,
) -> Result<()> {
    let [parameter, gradient, first, second] = state;
    let sgd = SgdUpdate {
        step: SGD,
        parameter,
        gradient,
        momentum: first,
        gate,
    };
    device.run(sgd)?;
    let adam = AdamUpdate {
        step: ADAM,
        parameter,
        gradient,
        first_moment: first,
        second_moment: second,
        gate,
    };
    device.run(adam)?;
    let lars = LarsUpdate {
        step: LARS,
        parameter,
        gradient,
        momentum: first,
        gate,
    };
    device.run(lars)
}

fn a_set_gate_keeps_every_bit(tester: &Tester) -> Result<()> {
    let mut rng = tester.random(72);
    for count in COUNTS {
        let before: [Vec<f32>; 4] = std::array::from_fn(|_| normal(&mut rng, count));
        for on in tester.all() {
            let put = |x: &Vec<f32>| on.put(x, &[count]);
            let [p, g, m, v] = &before;
            let state = [put(p)?, put(g)?, put(m)?, put(v)?];
            update_all(&on, &state, Some(&on.put(&[1u32], &[1])?))?;
            let case = format!("an update with a set gate, {count} elements");
            for (x, before) in state.iter().zip(&before) {
                on.equal(&case, &bits(&x.to_vec()?), &bits(before));
            }
        }
    }
    Ok(())
}
