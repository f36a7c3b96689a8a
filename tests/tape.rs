//! What the tape promises beside right gradients: what it keeps, frees, refuses and names.

use std::sync::Arc;

use parallax::autograd::{self, Affine, Tape, Var};
use parallax::device::cpu::CpuDevice;
use parallax::device::kernels::Activation;
use parallax::device::profile::ProfiledDevice;
use parallax::device::shapes::Conv2d;
use parallax::device::{read_f32, upload_f32};
use parallax::{Device, Error, Result, Tensor};

fn cpu() -> Device {
    Arc::new(CpuDevice::new())
}

fn ones(device: &Device, count: usize) -> Tensor {
    upload_f32(device, &vec![1.0; count], &[count]).unwrap()
}

#[test]
fn two_passes_with_one_parameter_add_up() -> Result<()> {
    let device = cpu();
    let parameter = ones(&device, 3);
    let tape = Tape::new(&device);
    let first = autograd::scale(&tape, 2.0, &tape.leaf(&parameter))?;
    let second = autograd::scale(&tape, 5.0, &tape.leaf(&parameter))?;
    let loss = autograd::sum(&tape, &autograd::add(&tape, &first, &second)?)?;
    let gradients = tape.backward(&loss)?;
    assert_eq!(gradients.iter().count(), 1);
    let gradient = gradients.of(&parameter).unwrap();
    assert_eq!(read_f32(&device, gradient)?, [7.0; 3]);
    Ok(())
}

/// An addition hands one and the same tensor to both operands. Adding another gradient to one of them must not change
/// the other's.
#[test]
fn gradients_that_share_a_tensor_stay_apart() -> Result<()> {
    let device = cpu();
    let (a, b) = (ones(&device, 4), ones(&device, 4));
    let tape = Tape::new(&device);
    let (x, y) = (tape.leaf(&a), tape.leaf(&b));
    let extra = autograd::scale(&tape, 10.0, &x)?;
    let more = autograd::scale(&tape, 100.0, &x)?;
    let mut total = autograd::add(&tape, &x, &y)?;
    total = autograd::add(&tape, &total, &extra)?;
    total = autograd::add(&tape, &total, &more)?;
    let dy = upload_f32(&device, &[1.0, 2.0, 3.0, 4.0], &[4])?;
    let gradients = tape.backward_from(&total, &dy)?;
    let read = |leaf| read_f32(&device, gradients.of(leaf).unwrap());
    assert_eq!(read(&a)?, [111.0, 222.0, 333.0, 444.0]);
    assert_eq!(read(&b)?, [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(read_f32(&device, &dy)?, [1.0, 2.0, 3.0, 4.0]);
    Ok(())
}

/// Gradients of two tapes add up; that of one leaf does not reach another's by a tensor that they share.
#[test]
fn gradients_of_two_tapes_add_up() -> Result<()> {
    let device = cpu();
    let (a, b, c) = (ones(&device, 2), ones(&device, 2), ones(&device, 2));
    let dy = upload_f32(&device, &[1.0, 2.0], &[2])?;
    let of_sum = |x: &Tensor, y: &Tensor| {
        let tape = Tape::new(&device);
        let sum = autograd::add(&tape, &tape.leaf(x), &tape.leaf(y))?;
        tape.backward_from(&sum, &dy)
    };
    let mut gradients = of_sum(&a, &b)?;
    gradients.add(&device, of_sum(&a, &c)?)?;
    gradients.add(&device, of_sum(&a, &c)?)?;
    let read = |leaf| read_f32(&device, gradients.of(leaf).unwrap());
    assert_eq!(read(&a)?, [3.0, 6.0]);
    assert_eq!(read(&b)?, [1.0, 2.0]);
    assert_eq!(read(&c)?, [2.0, 4.0]);
    assert_eq!(read_f32(&device, &dy)?, [1.0, 2.0]);
    Ok(())
}

#[test]
fn constants_get_no_gradient_and_their_operations_are_not_recorded() -> Result<()> {
    let device = cpu();
    let (image, parameter) = (ones(&device, 2), ones(&device, 2));
    let tape = Tape::new(&device);
    let x = tape.constant(&image);
    let y = autograd::scale(&tape, 2.0, &x)?;
    assert!(!y.is_tracked());
    let y = autograd::add(&tape, &y, &tape.leaf(&parameter))?;
    assert!(y.is_tracked());
    let loss = autograd::sum(&tape, &y)?;
    let gradients = tape.backward(&loss)?;
    assert!(gradients.of(&parameter).is_some());
    assert!(gradients.of(&image).is_none());
    Ok(())
}

#[test]
fn a_loss_without_leaves_has_no_gradient() -> Result<()> {
    let device = cpu();
    let tape = Tape::new(&device);
    let loss = autograd::sum(&tape, &tape.constant(&ones(&device, 2)))?;
    let error = tape.backward(&loss).unwrap_err();
    assert!(error.to_string().contains("no leaf"), "{error}");
    Ok(())
}

#[test]
fn values_of_another_tape_are_refused() {
    let device = cpu();
    let parameter = ones(&device, 2);
    let (one, two) = (Tape::new(&device), Tape::new(&device));
    let x = one.leaf(&parameter);
    let error = autograd::scale(&two, 2.0, &x).unwrap_err();
    assert!(error.to_string().contains("another tape"), "{error}");
    let error = two.backward_from(&x, &parameter).unwrap_err();
    assert!(
        error.to_string().contains("no leaf of this tape"),
        "{error}"
    );
}

#[test]
fn a_loss_is_one_number() {
    let device = cpu();
    let tape = Tape::new(&device);
    let x = tape.leaf(&ones(&device, 2));
    let error = tape.backward(&x).unwrap_err();
    assert!(error.to_string().contains("one element"), "{error}");
}

const LENGTH: usize = 1 << 18;
const CHAIN: usize = 16;

fn chain(tape: &Tape, x: &Var) -> Result<Var> {
    let mut y = x.clone();
    for _ in 0..CHAIN {
        y = autograd::relu(tape, &y)?;
    }
    autograd::sum(tape, &y)
}

/// Buffers of the chain's length that the device holds at peak.
fn peak_buffers(device: &Device) -> f64 {
    device.memory().peak as f64 / (4 * LENGTH) as f64
}

#[test]
fn inference_saves_nothing_and_backward_frees_as_it_goes() -> Result<()> {
    let device = cpu();
    let x = ones(&device, LENGTH);
    let tape = Tape::inference(&device);
    chain(&tape, &tape.leaf(&x))?;
    assert!(peak_buffers(&device) < 4.0, "{}", peak_buffers(&device));

    let device = cpu();
    let x = ones(&device, LENGTH);
    let tape = Tape::new(&device);
    let loss = chain(&tape, &tape.leaf(&x))?;
    let forward = peak_buffers(&device);
    assert!(forward > CHAIN as f64, "{forward}");
    tape.backward(&loss)?;
    // The gradient that arrives and the one that is made; what was saved for the operations above is free by then.
    assert!(
        peak_buffers(&device) < forward + 2.5,
        "{}",
        peak_buffers(&device)
    );
    Ok(())
}

/// What else looks at a batch norm's input.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Other {
    Nothing,
    /// Recorded first, and so the last to go back.
    Convolution,
    /// The same.
    BatchNorm,
    /// It is added to the normalised input.
    Shortcut,
}

/// Backward, batch norm writes the gradient of its input over this, unless somebody still has it.
#[test]
fn an_input_that_is_still_held_is_not_overwritten() -> Result<()> {
    let profiler = Arc::new(ProfiledDevice::cpu(CpuDevice::new()));
    let device: Device = profiler.clone();
    let numbers: Vec<f32> = (0..24).map(|i| (i * i % 17) as f32).collect();
    let x = upload_f32(&device, &numbers, &[2, 3, 2, 2])?;
    let w = upload_f32(&device, &numbers[..12], &[1, 3, 2, 2])?;
    let gamma = upload_f32(&device, &[1.5, -0.5, 2.0], &[3])?;
    let beta = upload_f32(&device, &[0.5, 0.25, 0.0], &[3])?;
    let conv = Conv2d {
        stride: 1,
        padding: 0,
    };
    // The gradients, and the kernels that those of batch norms came from.
    let gradients = |other: Other, holds: bool| -> Result<(Vec<Vec<f32>>, Vec<&str>)> {
        let tape = Tape::new(&device);
        let between = autograd::scale(&tape, 2.0, &tape.leaf(&x))?;
        let held = holds.then(|| between.tensor().clone());
        let (w, gamma, beta) = (tape.leaf(&w), tape.leaf(&gamma), tape.leaf(&beta));
        let affine = Affine {
            gamma: &gamma,
            beta: &beta,
            eps: 1e-5,
        };
        let beside = match other {
            Other::Convolution => Some(autograd::conv2d(&tape, &between, &w, conv)?),
            Other::BatchNorm => {
                let activation = Activation::Identity;
                let (y, _) = autograd::batch_norm_training(&tape, &between, affine, activation)?;
                Some(autograd::conv2d(&tape, &y, &w, conv)?)
            }
            Other::Nothing | Other::Shortcut => None,
        };
        let activation = match other {
            Other::Shortcut => Activation::AddRelu(&between),
            _ => Activation::Relu,
        };
        let (y, _) = autograd::batch_norm_training(&tape, &between, affine, activation)?;
        drop(between);
        let mut sums = autograd::conv2d(&tape, &y, &w, conv)?;
        drop(y);
        if let Some(beside) = beside {
            sums = autograd::add(&tape, &sums, &beside)?;
        }
        let loss = autograd::sum(&tape, &sums)?;
        profiler.start();
        let gradients = tape.backward(&loss)?;
        let calls = profiler.stop()?.calls.into_iter().map(|call| call.kernel);
        let kernels = calls.filter(|kernel| kernel.contains("norm_training_backward"));
        let kernels = kernels.collect();
        if let Some(held) = held {
            let twice: Vec<f32> = numbers.iter().map(|x| 2.0 * x).collect();
            assert_eq!(read_f32(&device, &held)?, twice);
        }
        assert_eq!(read_f32(&device, &x)?, numbers);
        let of = |leaf: &Var| {
            let gradient = gradients.of(leaf.tensor()).expect("the loss depends on it");
            read_f32(&device, gradient)
        };
        let x = gradients.of(&x).expect("the loss depends on it");
        let mut all = vec![read_f32(&device, x)?];
        for leaf in [&w, &gamma, &beta] {
            all.push(of(leaf)?);
        }
        Ok((all, kernels))
    };
    let (apart, in_place) = (
        "batch_norm_training_backward",
        "batch_norm_training_backward_in_place",
    );
    for (other, expected) in [
        (Other::Nothing, vec![in_place]),
        (Other::Convolution, vec![apart]),
        (Other::BatchNorm, vec![apart, in_place]),
        (Other::Shortcut, vec![in_place]),
    ] {
        let (held, kernels) = gradients(other, true)?;
        assert_eq!(kernels, vec![apart; expected.len()], "{other:?}, held");
        let (found, kernels) = gradients(other, false)?;
        assert_eq!(kernels, expected, "{other:?}");
        assert_eq!(found, held, "{other:?}");
    }
    Ok(())
}

#[test]
fn a_checked_tape_names_the_operation_and_the_layer() -> Result<()> {
    let device = cpu();
    let tape = Tape::checked(&device);
    let x = tape.leaf(&ones(&device, 3));
    tape.enter_layer("layer1.0.conv2");
    let y = autograd::scale(&tape, f32::MAX, &x)?;
    let Err(Error::NonFinite(message)) = autograd::scale(&tape, 10.0, &y) else {
        panic!("an infinity went through");
    };
    for part in ["scale", "layer1.0.conv2", "result"] {
        assert!(message.contains(part), "{message}");
    }

    let tape = Tape::checked(&device);
    let input = upload_f32(&device, &[0.0, f32::NAN], &[2])?;
    let error = autograd::relu(&tape, &tape.leaf(&input)).unwrap_err();
    assert!(error.to_string().contains("relu: input x"), "{error}");
    Ok(())
}

#[test]
fn a_checked_tape_names_the_gradient_that_is_not_finite() -> Result<()> {
    let device = cpu();
    let tape = Tape::checked(&device);
    let x = tape.leaf(&ones(&device, 3));
    let y = autograd::scale(&tape, 2.0, &x)?;
    let huge = upload_f32(&device, &[f32::MAX; 3], &[3])?;
    let Err(Error::NonFinite(message)) = tape.backward_from(&y, &huge) else {
        panic!("an infinity went through");
    };
    assert!(message.contains("scale: the gradient of x"), "{message}");
    Ok(())
}
