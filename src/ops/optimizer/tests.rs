//! SGD, Adam and LARS: several steps, each against a float64 step from the device's state before it.

use super::{AdamStep, AdamUpdate, LarsStep, LarsUpdate, SgdStep, SgdUpdate};
use crate::testing::accuracy::{DIVISION, SQRT, U};
use crate::testing::{
    Expected, Sum, agree, bits, devices, get, normal, put, put_u32, random, refused, same_bits,
    wide, zeros, zeros_u32,
};
use crate::{Device, Tensor};

const COUNTS: [usize; 6] = [1, 3, 64, 65, 257, 20_001];
const STEPS: u32 = 5;

const SGD: SgdStep = SgdStep {
    learning_rate: 0.1,
    momentum: 0.9,
    nesterov: true,
    weight_decay: 0.1,
    gradient_scale: 1.0,
    first: false,
};

const ADAM: AdamStep = AdamStep {
    learning_rate: 0.1,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.1,
    gradient_scale: 1.0,
    step: 3,
};

const LARS: LarsStep = LarsStep {
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
/// more by that of all parts, and squared. The norm has half of its error, a root and a product. The
/// rate has the errors of both norms, a division and four roundings. Momentum and parameter are sums
/// of products.
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

#[test]
fn sgd_agrees_with_float64() {
    let mut rng = random(70);
    for count in COUNTS {
        for (momentum, nesterov, weight_decay) in [
            (0.9, true, 1e-4),
            (0.9, false, 1e-2),
            (0.9, true, 0.0),
            (0.0, false, 0.0),
        ] {
            let start = normal(&mut rng, count);
            let gradients: Vec<Vec<f32>> = (0..STEPS).map(|_| normal(&mut rng, count)).collect();
            for (name, device) in devices::all() {
                let parameter = &put(&device, &start, &[count]);
                // The first step ignores the momentum.
                let buffer = &put(&device, &vec![5.0; count], &[count]);
                for (number, gradient) in gradients.iter().enumerate() {
                    let step = SgdStep {
                        learning_rate: 0.1 / (number + 1) as f32,
                        gradient_scale: [1.0, 4.0][number % 2],
                        momentum,
                        nesterov,
                        weight_decay,
                        first: number == 0,
                    };
                    let [p, m] = [parameter, buffer].map(|x| wide(&get(x)));
                    let (p, m) = sgd_step(step, &p, &wide(gradient), &m);
                    let gate = put_u32(&device, &[0], &[1]);
                    let update = SgdUpdate {
                        step,
                        parameter,
                        gradient: &put(&device, gradient, &[count]),
                        momentum: buffer,
                        gate: (number % 2 == 0).then_some(&gate),
                    };
                    device.run(update).expect(name);
                    let case = format!("after {step:?} {number}, {count} elements, on {name}");
                    agree(&format!("momentum {case}"), buffer, &[count], &m);
                    agree(&format!("parameter {case}"), parameter, &[count], &p);
                }
            }
        }
    }
}

#[test]
fn adam_agrees_with_float64() {
    let mut rng = random(71);
    for count in COUNTS {
        for (weight_decay, eps) in [(0.0, 1e-8), (1e-2, 1e-8), (1e-4, 0.1)] {
            let start = normal(&mut rng, count);
            let gradients: Vec<Vec<f32>> = (0..STEPS).map(|_| normal(&mut rng, count)).collect();
            for (name, device) in devices::all() {
                let parameter = &put(&device, &start, &[count]);
                let [first, second] = &[(); 2].map(|()| put(&device, &vec![0.0; count], &[count]));
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
                    let [p, m, v] = [parameter, first, second].map(|x| wide(&get(x)));
                    let [p, m, v] = adam_step(step, &p, &wide(gradient), &m, &v);
                    let gate = put_u32(&device, &[0], &[1]);
                    let update = AdamUpdate {
                        step,
                        parameter,
                        gradient: &put(&device, gradient, &[count]),
                        first_moment: first,
                        second_moment: second,
                        gate: (number % 2 == 0).then_some(&gate),
                    };
                    device.run(update).expect(name);
                    let case = format!("after {step:?}, {count} elements, on {name}");
                    agree(&format!("first moment {case}"), first, &[count], &m);
                    agree(&format!("second moment {case}"), second, &[count], &v);
                    agree(&format!("parameter {case}"), parameter, &[count], &p);
                }
            }
        }
    }
}

#[test]
fn lars_agrees_with_float64() {
    let mut rng = random(73);
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
            for (name, device) in devices::all() {
                let parameter = &put(&device, &start, &[count]);
                let buffer = &put(&device, &vec![0.0; count], &[count]);
                for (number, gradient) in gradients.iter().enumerate() {
                    let step = LarsStep {
                        weight_decay,
                        eps: if size < 1.0 { 0.0 } else { LARS.eps },
                        gradient_scale: [1.0, 4.0][number % 2],
                        ..LARS
                    };
                    let [p, m] = [parameter, buffer].map(|x| wide(&get(x)));
                    let (p, m) = lars_step(step, &p, &wide(gradient), &m);
                    let gate = put_u32(&device, &[0], &[1]);
                    let update = LarsUpdate {
                        step,
                        parameter,
                        gradient: &put(&device, gradient, &[count]),
                        momentum: buffer,
                        gate: (number % 2 == 0).then_some(&gate),
                    };
                    device.run(update).expect(name);
                    let case = format!("after {step:?} {number}, {count} elements, on {name}");
                    agree(&format!("momentum {case}"), buffer, &[count], &m);
                    agree(&format!("parameter {case}"), parameter, &[count], &p);
                }
            }
        }
    }
}

/// The padding after the last element and the elements of a neighbour in memory are no part of a norm.
#[test]
fn lars_moves_a_parameter_by_its_own_norms() {
    for (name, device) in devices::all() {
        let parameter = &put(&device, &[3.0, 0.0, 4.0], &[3]);
        let momentum = &zeros(&device, &[3]);
        let update = LarsUpdate {
            step: LarsStep {
                weight_decay: 0.0,
                eps: 0.0,
                ..LARS
            },
            parameter,
            gradient: &put(&device, &[0.0, 2.0, 0.0], &[3]),
            momentum,
            gate: None,
        };
        device.run(update).expect(name);
        // |p| = 5 and |g| = 2, so the step is 2 * 0.01 * 5 / 2 * g.
        let expected = Expected::elementwise(vec![3.0, -0.1, 4.0]);
        agree(name, parameter, &[3], &expected);
    }
}

#[test]
fn lars_neither_adapts_nor_decays_without_a_norm() {
    for (name, device) in devices::all() {
        for (start, slope) in [([0.0; 5], 0.5), ([2.0; 5], 0.0)] {
            let parameter = &put(&device, &start, &[5]);
            let update = LarsUpdate {
                step: LARS,
                parameter,
                gradient: &put(&device, &[slope; 5], &[5]),
                momentum: &zeros(&device, &[5]),
                gate: None,
            };
            device.run(update).expect(name);
            let expected = start.map(|p| p - LARS.learning_rate * slope);
            assert_eq!(get(parameter), expected, "{name}");
        }
    }
}

#[test]
fn a_zero_gradient_does_not_move_an_adam_parameter() {
    for (name, device) in devices::all() {
        let parameter = &put(&device, &[1.5, -2.0], &[2]);
        let [gradient, first, second] = &[(); 3].map(|()| put(&device, &[0.0; 2], &[2]));
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
        device.run(update).expect(name);
        assert_eq!(get(parameter), [1.5, -2.0], "{name}");
    }
}

/// One step of each rule. The first moment serves as the momentum of SGD and LARS.
fn update_all(device: &Device, state: &[Tensor; 4], gate: Option<&Tensor>) {
    let [parameter, gradient, first, second] = state;
    let sgd = SgdUpdate {
        step: SGD,
        parameter,
        gradient,
        momentum: first,
        gate,
    };
    device.run(sgd).expect("a step of SGD");
    let adam = AdamUpdate {
        step: ADAM,
        parameter,
        gradient,
        first_moment: first,
        second_moment: second,
        gate,
    };
    device.run(adam).expect("a step of Adam");
    let lars = LarsUpdate {
        step: LARS,
        parameter,
        gradient,
        momentum: first,
        gate,
    };
    device.run(lars).expect("a step of LARS");
}

#[test]
fn a_set_gate_keeps_every_bit() {
    let mut rng = random(72);
    for count in COUNTS {
        let before: [Vec<f32>; 4] = std::array::from_fn(|_| normal(&mut rng, count));
        for (name, device) in devices::all() {
            let state = [0, 1, 2, 3].map(|i| put(&device, &before[i], &[count]));
            update_all(&device, &state, Some(&put_u32(&device, &[1], &[1])));
            for (x, before) in state.iter().zip(&before) {
                assert_eq!(bits(&get(x)), bits(before), "{count} elements on {name}");
            }
        }
    }
}

#[test]
fn results_are_deterministic() {
    same_bits(devices::all(), |device| {
        let mut rng = random(90);
        let mut state: [_; 4] = std::array::from_fn(|_| normal(&mut rng, 20_001));
        // A second moment is a sum of squares.
        state[3].iter_mut().for_each(|v| *v = v.abs());
        let state = state.map(|x| put(device, &x, &[20_001]));
        update_all(device, &state, None);
        let [parameter, _, first, second] = state;
        [
            ("parameter", parameter),
            ("first moment", first),
            ("second moment", second),
        ]
    });
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    for (name, device) in devices::all() {
        let [p, g, m, v] = &[(); 4].map(|()| zeros(&device, &[2, 3]));
        let (other, integers) = (&zeros(&device, &[6]), &zeros_u32(&device, &[2, 3]));
        let [gate, long_gate] = &[1, 2].map(|len| zeros_u32(&device, &[len]));
        let float_gate = &zeros(&device, &[1]);
        let sgd = |parameter, gradient, momentum, gate| {
            device.run(SgdUpdate {
                step: SGD,
                parameter,
                gradient,
                momentum,
                gate,
            })
        };
        refused(name, "sgd: gradient", sgd(p, other, m, None));
        refused(name, "sgd: momentum", sgd(p, g, other, None));
        refused(name, "sgd: type", sgd(p, integers, m, None));
        refused(
            name,
            "sgd: type of the gate",
            sgd(p, g, m, Some(float_gate)),
        );
        refused(
            name,
            "sgd: shape of the gate",
            sgd(p, g, m, Some(long_gate)),
        );
        refused(name, "sgd: one tensor twice", sgd(p, g, p, None));
        sgd(p, g, m, Some(gate)).expect("arguments that fit");
        let adam = |parameter, gradient, [first_moment, second_moment]: [_; 2], gate| {
            device.run(AdamUpdate {
                step: ADAM,
                parameter,
                gradient,
                first_moment,
                second_moment,
                gate,
            })
        };
        refused(name, "adam: gradient", adam(p, other, [m, v], None));
        refused(name, "adam: first moment", adam(p, g, [other, v], None));
        refused(name, "adam: second moment", adam(p, g, [m, other], None));
        refused(name, "adam: type", adam(integers, g, [m, v], None));
        refused(name, "adam: gate", adam(p, g, [m, v], Some(long_gate)));
        refused(name, "adam: one tensor twice", adam(p, g, [m, m], None));
        adam(p, g, [m, v], Some(gate)).expect("arguments that fit");
        let lars = |gradient, momentum, scale| {
            let step = LarsStep {
                gradient_scale: scale,
                ..LARS
            };
            device.run(LarsUpdate {
                step,
                parameter: p,
                gradient,
                momentum,
                gate: Some(gate),
            })
        };
        refused(name, "lars: gradient", lars(other, m, 1.0));
        refused(name, "lars: momentum", lars(g, other, 1.0));
        refused(name, "lars: one tensor twice", lars(g, g, 1.0));
        refused(name, "lars: gradient scale", lars(g, m, 0.0));
        lars(g, m, 1.0).expect("arguments that fit");
    }
}
