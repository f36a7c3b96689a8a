//! SGD and Adam: several steps, each held against a float64 step from the state that the device had before it.

use parallax::device::kernels::{AdamStep, SgdStep};

use crate::compare::{agree, bits, get, normal, put, put_u32, random, wide};
use crate::reference::Expected;
use crate::{devices, reference};

const COUNTS: [usize; 6] = [1, 3, 64, 65, 257, 20_001];
const STEPS: u32 = 5;

#[test]
fn sgd_steps() {
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
                let parameter = put(&device, &start, &[count]);
                // The first step does not look at the buffer.
                let buffer = put(&device, &vec![5.0; count], &[count]);
                for (step, gradient) in gradients.iter().enumerate() {
                    let options = SgdStep {
                        learning_rate: 0.1 / (step + 1) as f32,
                        gradient_scale: [1.0, 4.0][step % 2],
                        momentum,
                        nesterov,
                        weight_decay,
                        first: step == 0,
                    };
                    let state = (get(&device, &parameter), get(&device, &buffer));
                    let (p, m) = reference::optimizer::sgd_step(
                        options,
                        &wide(&state.0),
                        &wide(gradient),
                        &wide(&state.1),
                    );
                    let g = put(&device, gradient, &[count]);
                    let gate = put_u32(&device, &[0], &[1]);
                    let gate = (step % 2 == 0).then_some(&gate);
                    device
                        .sgd_step(options, &parameter, &g, &buffer, gate)
                        .expect(name);
                    let case = format!("{options:?} step {step}, {count} elements, on {name}");
                    agree(
                        &format!("momentum after {case}"),
                        &device,
                        &buffer,
                        &[count],
                        &m,
                    );
                    agree(
                        &format!("parameter after {case}"),
                        &device,
                        &parameter,
                        &[count],
                        &p,
                    );
                }
            }
        }
    }
}

#[test]
fn adam_steps() {
    let mut rng = random(71);
    for count in COUNTS {
        for (weight_decay, eps) in [(0.0, 1e-8), (1e-2, 1e-8), (1e-4, 0.1)] {
            let start = normal(&mut rng, count);
            let gradients: Vec<Vec<f32>> = (0..STEPS).map(|_| normal(&mut rng, count)).collect();
            for (name, device) in devices::all() {
                let parameter = put(&device, &start, &[count]);
                let [first, second] = [(); 2].map(|()| put(&device, &vec![0.0; count], &[count]));
                for (step, gradient) in (1..).zip(&gradients) {
                    // The last step is far into a training, where the bias corrections have faded.
                    let step = if step == STEPS { 20_000 } else { step };
                    let options = AdamStep {
                        learning_rate: 1e-3,
                        gradient_scale: [1.0, 4.0][step as usize % 2],
                        beta1: 0.9,
                        beta2: 0.999,
                        eps,
                        weight_decay,
                        step,
                    };
                    let [p, m, v] = [&parameter, &first, &second].map(|x| wide(&get(&device, x)));
                    let (p, m, v) =
                        reference::optimizer::adam_step(options, &p, &wide(gradient), &m, &v);
                    let g = put(&device, gradient, &[count]);
                    let gate = put_u32(&device, &[0], &[1]);
                    let gate = (step % 2 == 0).then_some(&gate);
                    device
                        .adam_step(options, &parameter, &g, &first, &second, gate)
                        .expect(name);
                    let case = format!("{options:?}, {count} elements, on {name}");
                    let check = |what: &str, actual, expected: &Expected| {
                        agree(
                            &format!("{what} after {case}"),
                            &device,
                            actual,
                            &[count],
                            expected,
                        );
                    };
                    check("first moment", &first, &m);
                    check("second moment", &second, &v);
                    check("parameter", &parameter, &p);
                }
            }
        }
    }
}

#[test]
fn a_zero_gradient_does_not_move_an_adam_parameter() {
    for (name, device) in devices::all() {
        let parameter = put(&device, &[1.5, -2.0], &[2]);
        let [gradient, first, second] = [(); 3].map(|()| put(&device, &[0.0; 2], &[2]));
        let options = AdamStep {
            learning_rate: 0.1,
            gradient_scale: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            step: 1,
        };
        device
            .adam_step(options, &parameter, &gradient, &first, &second, None)
            .expect(name);
        assert_eq!(get(&device, &parameter), [1.5, -2.0], "{name}");
    }
}

#[test]
fn a_set_gate_holds_every_bit() {
    let mut rng = random(72);
    for count in COUNTS {
        let state: [Vec<f32>; 4] = std::array::from_fn(|_| normal(&mut rng, count));
        let sgd = SgdStep {
            learning_rate: 0.1,
            gradient_scale: 1.0,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 0.1,
            first: false,
        };
        let adam = AdamStep {
            learning_rate: 0.1,
            gradient_scale: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.1,
            step: 3,
        };
        for (name, device) in devices::all() {
            let [p, g, m, v] = [0, 1, 2, 3].map(|i| put(&device, &state[i], &[count]));
            let gate = put_u32(&device, &[1], &[1]);
            device.sgd_step(sgd, &p, &g, &m, Some(&gate)).expect(name);
            device
                .adam_step(adam, &p, &g, &m, &v, Some(&gate))
                .expect(name);
            for (x, before) in [&p, &g, &m, &v].into_iter().zip(&state) {
                let after = get(&device, x);
                assert_eq!(bits(&after), bits(before), "{count} elements on {name}");
            }
        }
    }
}
