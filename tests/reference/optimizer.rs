//! One step of SGD and Adam as torch defines them.

use parallax::device::kernels::{AdamStep, SgdStep};

use super::accuracy::{DIVISION, SQRT, U};
use super::{Expected, Sum};

/// (parameter, momentum) after a step. Everything is a sum of products: the gradient of K = 2, the momentum buffer of
/// 3, the parameter of 5 (its own, and with Nesterov two for the gradient and two more roundings of the buffer).
pub fn sgd_step(options: SgdStep, p: &[f64], g: &[f64], m: &[f64]) -> (Expected, Expected) {
    let learning_rate = f64::from(options.learning_rate);
    let momentum = f64::from(options.momentum);
    let weight_decay = f64::from(options.weight_decay);
    let (mut parameter, mut buffer) = (Expected::default(), Expected::default());
    for ((&p, &g), &m) in p.iter().zip(g).zip(m) {
        let g = g / f64::from(options.gradient_scale);
        let mut moved = Sum::of([g, weight_decay * p]);
        if !options.first {
            moved.add(momentum * m);
        }
        buffer.push(moved.value, moved.bound());
        let mut next = Sum::of([p]);
        if options.nesterov {
            next.add(-learning_rate * g);
            next.add(-learning_rate * weight_decay * p);
            next.add(-learning_rate * momentum * moved.value);
        } else {
            next.add(-learning_rate * moved.value);
        }
        // The buffer's own error, which its value alone does not show where its terms cancel, and two products' more.
        let weight = learning_rate * if options.nesterov { momentum } else { 1.0 };
        let inherited = weight * (moved.bound() + 2.0 * U * moved.value.abs());
        parameter.push(next.value, next.bound() + inherited);
    }
    (parameter, buffer)
}

/// (parameter, first moment, second moment) after a step.
///
/// The gradient is a sum of two products, the first moment of three. The second moment's new part is a square, so it
/// inherits twice the gradient's error. The update takes the first moment's error; half the second's under the root;
/// two roots' worth of allowance, since 1 - beta2^t may have its root taken on the device; four divisions (bias
/// corrections and quotients), and four roundings. Then it is subtracted, a sum of two.
pub fn adam_step(
    options: AdamStep,
    p: &[f64],
    g: &[f64],
    m: &[f64],
    v: &[f64],
) -> (Expected, Expected, Expected) {
    let learning_rate = f64::from(options.learning_rate);
    let (beta1, beta2) = (f64::from(options.beta1), f64::from(options.beta2));
    let eps = f64::from(options.eps);
    let weight_decay = f64::from(options.weight_decay);
    let correction1 = 1.0 - beta1.powi(options.step as i32);
    let correction2 = (1.0 - beta2.powi(options.step as i32)).sqrt();
    let (mut parameter, mut first, mut second) = (
        Expected::default(),
        Expected::default(),
        Expected::default(),
    );
    for (((&p, &g), &m), &v) in p.iter().zip(g).zip(m).zip(v) {
        let g = g / f64::from(options.gradient_scale);
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
        let step = learning_rate / correction1 / denominator;
        let root_relative = if v.value > 0.0 {
            0.5 * v_bound / v.value
        } else {
            0.0
        };
        let relative = root_relative + 2.0 * SQRT + 4.0 * DIVISION + 4.0 * U;
        let update = step * m.value;
        let next = Sum::of([p, -update]);
        parameter.push(
            next.value,
            next.bound() + step * m.bound() + relative * update.abs(),
        );
    }
    (parameter, first, second)
}
