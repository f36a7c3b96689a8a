//! The tape, beside correct gradients: which memory it keeps and frees, which values it refuses,
//! and what its messages name.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use parallax::autograd::{BufferUpdate, Mode, PassOptions, Tape, Var};
use parallax::nn::{BatchNorm, Module, Parameter};
use parallax::ops::batch_norm::{Activation, Affine};
use parallax::ops::{Conv2dOptions, Pool2dOptions};
use parallax::{DType, Device, Error, Result, Tensor};

fn ones(device: &Device, count: usize) -> Tensor {
    Tensor::from_slice(&vec![1.0f32; count], &[count], device).unwrap()
}

fn error_of<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("there is no error"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn two_passes_with_one_parameter_add_up() -> Result<()> {
    let device = Device::cpu();
    let parameter = ones(&device, 3);
    let tape = Tape::new(&device);
    let first = tape.leaf(&parameter).scale(2.0)?;
    let second = tape.leaf(&parameter).scale(5.0)?;
    let gradients = first.add(&second)?.sum()?.backward()?;
    assert_eq!(gradients.iter().count(), 1);
    let gradient = gradients.of(&parameter).unwrap();
    assert_eq!(gradient.to_vec::<f32>()?, [7.0; 3]);
    Ok(())
}

/// An addition passes one and the same tensor to both operands. Adding another gradient to one of
/// them must not change the gradient of the other, whether the caller still holds the tensor or
/// not.
#[test]
fn gradients_that_share_a_tensor_stay_apart() -> Result<()> {
    let device = Device::cpu();
    for is_held in [true, false] {
        let (a, b) = (ones(&device, 4), ones(&device, 4));
        let tape = Tape::new(&device);
        let (x, y) = (tape.leaf(&a), tape.leaf(&b));
        let extra = x.scale(10.0)?;
        let more = x.scale(100.0)?;
        let total = x.add(&y)?.add(&extra)?.add(&more)?;
        let dy = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[4], &device)?;
        let held = is_held.then(|| dy.clone());
        let gradients = total.backward_from(dy)?;
        let read = |leaf| gradients.of(leaf).unwrap().to_vec::<f32>();
        assert_eq!(read(&a)?, [111.0, 222.0, 333.0, 444.0]);
        assert_eq!(read(&b)?, [1.0, 2.0, 3.0, 4.0]);
        if let Some(dy) = held {
            assert_eq!(dy.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
        }
    }
    Ok(())
}

/// The gradients of two tapes add up. The gradient of one leaf does not reach another leaf through
/// a tensor that both share.
#[test]
fn gradients_of_two_tapes_add_up() -> Result<()> {
    let device = Device::cpu();
    let (a, b, c) = (ones(&device, 2), ones(&device, 2), ones(&device, 2));
    let dy = Tensor::from_slice(&[1.0f32, 2.0], &[2], &device)?;
    let of_sum = |x: &Tensor, y: &Tensor| {
        let tape = Tape::new(&device);
        tape.leaf(x).add(&tape.leaf(y))?.backward_from(dy.clone())
    };
    let mut gradients = of_sum(&a, &b)?;
    gradients.add(&device, of_sum(&a, &c)?)?;
    gradients.add(&device, of_sum(&a, &c)?)?;
    let read = |leaf| gradients.of(leaf).unwrap().to_vec::<f32>();
    assert_eq!(read(&a)?, [3.0, 6.0]);
    assert_eq!(read(&b)?, [1.0, 2.0]);
    assert_eq!(read(&c)?, [2.0, 4.0]);
    assert_eq!(dy.to_vec::<f32>()?, [1.0, 2.0]);
    Ok(())
}

#[test]
fn gradients_with_different_loss_scales_are_not_added() -> Result<()> {
    let device = Device::cpu();
    let x = ones(&device, 2);
    let scaled_by = |loss_scale| {
        let options = PassOptions {
            loss_scale,
            ..PassOptions::default()
        };
        Tape::with(&device, options).leaf(&x).sum()?.backward()
    };
    let mut gradients = scaled_by(1.0)?;
    let of_four = scaled_by(4.0)?;
    assert_eq!((gradients.scale(), of_four.scale()), (1.0, 4.0));
    assert_eq!(of_four.of(&x).unwrap().to_vec::<f32>()?, [4.0; 2]);
    let message = error_of(gradients.add(&device, of_four));
    assert!(message.contains("loss scales 4 and 1"), "{message}");
    Ok(())
}

#[test]
fn constants_get_no_gradient_and_their_operations_are_not_recorded() -> Result<()> {
    let device = Device::cpu();
    let (image, parameter) = (ones(&device, 2), ones(&device, 2));
    let tape = Tape::new(&device);
    let y = tape.constant(&image).scale(2.0)?;
    assert!(!y.is_tracked());
    let y = y.add(&tape.leaf(&parameter))?;
    assert!(y.is_tracked());
    let gradients = y.sum()?.backward()?;
    assert!(gradients.of(&parameter).is_some());
    assert!(gradients.of(&image).is_none());
    Ok(())
}

#[test]
fn a_loss_without_leaves_has_no_gradient() -> Result<()> {
    let device = Device::cpu();
    let tape = Tape::new(&device);
    let loss = tape.constant(&ones(&device, 2)).sum()?;
    let message = error_of(loss.backward());
    assert!(message.contains("no leaf"), "{message}");
    Ok(())
}

#[test]
fn values_of_another_tape_are_refused() -> Result<()> {
    let device = Device::cpu();
    let parameter = ones(&device, 2);
    let (one, two) = (Tape::new(&device), Tape::new(&device));
    let (x, y) = (one.leaf(&parameter), two.leaf(&parameter));
    for (a, b) in [(&x, &y), (&y, &x)] {
        let message = error_of(a.add(b));
        assert!(message.contains("add: b was recorded"), "{message}");
        assert!(message.contains("on another tape"), "{message}");
    }
    // A value that depends on a leaf is no constant of another tape either.
    let message = error_of(two.constant(&parameter).add(&x)?.add(&y));
    assert!(message.contains("on another tape"), "{message}");
    Ok(())
}

#[test]
fn a_loss_is_one_number() {
    let device = Device::cpu();
    let tape = Tape::new(&device);
    let message = error_of(tape.leaf(&ones(&device, 2)).backward());
    assert!(message.contains("one element"), "{message}");
}

#[test]
fn a_gradient_to_start_from_has_the_shape_and_type_of_the_value() {
    let device = Device::cpu();
    for wrong in [
        ones(&device, 3),
        Tensor::zeros(&[2], DType::F16, &device).unwrap(),
    ] {
        let tape = Tape::new(&device);
        let message = error_of(tape.leaf(&ones(&device, 2)).backward_from(wrong));
        assert!(message.contains("expected F32 [2]"), "{message}");
    }
}

#[test]
fn a_tape_has_one_backward_pass() -> Result<()> {
    let device = Device::cpu();
    let parameter = ones(&device, 2);
    let tape = Tape::new(&device);
    let x = tape.leaf(&parameter);
    let (first, second) = (x.scale(2.0)?.sum()?, x.scale(3.0)?.sum()?);
    // A clone of a loss is the same loss.
    let again = first.clone();
    let gradients = first.backward()?;
    let gradient = gradients.of(&parameter).unwrap();
    assert_eq!(gradient.to_vec::<f32>()?, [2.0; 2]);
    for loss in [again, second] {
        let message = error_of(loss.backward());
        assert!(message.contains("has run; record"), "{message}");
        assert!(message.contains("new forward pass"), "{message}");
    }
    // Nor is anything recorded that no backward pass would reach.
    let message = error_of(x.scale(2.0));
    assert!(message.contains("new forward pass"), "{message}");
    // Another tape has a backward pass of its own.
    let gradients = Tape::new(&device).leaf(&parameter).sum()?.backward()?;
    assert_eq!(gradients.of(&parameter).unwrap().to_vec::<f32>()?, [1.0; 2]);
    Ok(())
}

const LENGTH: usize = 1 << 18;
const CHAIN: usize = 16;

fn chain(x: &Var) -> Result<Var> {
    let mut y = x.clone();
    for _ in 0..CHAIN {
        y = y.relu()?;
    }
    y.sum()
}

/// The peak memory of the device, in buffers of the length of the chain.
fn peak_buffers(device: &Device) -> f64 {
    device.memory().peak as f64 / (4 * LENGTH) as f64
}

#[test]
fn inference_saves_nothing_and_backward_frees_as_it_goes() -> Result<()> {
    let device = Device::cpu();
    let x = ones(&device, LENGTH);
    let tape = Tape::inference(&device);
    chain(&tape.leaf(&x))?;
    assert!(peak_buffers(&device) < 4.0, "{}", peak_buffers(&device));

    let device = Device::cpu();
    let x = ones(&device, LENGTH);
    let tape = Tape::new(&device);
    let loss = chain(&tape.leaf(&x))?;
    let forward = peak_buffers(&device);
    assert!(forward > CHAIN as f64, "{forward}");
    loss.backward()?;
    // The gradient that an operation receives and the one that it returns. The tensors that later
    // operations saved are free by then.
    assert!(
        peak_buffers(&device) < forward + 2.5,
        "{}",
        peak_buffers(&device)
    );
    Ok(())
}

#[test]
fn a_value_outside_of_any_tape_is_computed_and_not_recorded() -> Result<()> {
    let device = Device::cpu();
    let x = Tensor::from_slice(&[-1.0f32, 2.0], &[2], &device)?;
    let y = Var::from(x.clone()).relu()?.scale(3.0)?;
    assert_eq!(y.tensor().to_vec::<f32>()?, [0.0, 6.0]);
    assert!(y.tape().is_none() && !y.is_tracked());
    assert_eq!(y.mode(), Mode::Evaluation);
    let message = error_of(y.sum()?.backward());
    assert!(message.contains("no leaf of a tape"), "{message}");

    // On a tape, it is a constant, on either side of an operation.
    let parameter = ones(&device, 2);
    for swapped in [false, true] {
        let tape = Tape::new(&device);
        let (constant, leaf) = (Var::from(x.clone()), tape.leaf(&parameter));
        let sum = match swapped {
            false => constant.add(&leaf)?,
            true => leaf.add(&constant)?,
        };
        assert!(sum.is_tracked() && sum.tape().is_some());
        let gradients = sum.sum()?.backward()?;
        assert!(gradients.of(&x).is_none());
        assert_eq!(gradients.of(&parameter).unwrap().to_vec::<f32>()?, [1.0; 2]);
    }

    // Layers work on it too: in evaluation mode, without an update of their buffers.
    let norm = BatchNorm::new("bn", 1, &device)?;
    let image = Var::from(Tensor::from_slice(&[4.0f32, 8.0], &[1, 1, 1, 2], &device)?);
    let y = norm.forward(&image)?.tensor().to_vec::<f32>()?;
    let expected = [4.0, 8.0].map(|x: f32| x / (1.0 + 1e-5f32).sqrt());
    for (y, expected) in y.iter().zip(expected) {
        assert!((y - expected).abs() < 1e-5, "{y}, expected {expected}");
    }

    // Nothing is kept.
    let device = Device::cpu();
    chain(&Var::from(ones(&device, LENGTH)))?;
    assert!(peak_buffers(&device) < 4.0, "{}", peak_buffers(&device));
    Ok(())
}

#[test]
fn updates_of_buffers_are_requested_and_not_applied() -> Result<()> {
    let device = Device::cpu();
    let applied = Rc::new(RefCell::new(Vec::new()));
    let tape = Tape::new(&device);
    for number in 0..3 {
        let applied = applied.clone();
        tape.update_buffer(BufferUpdate::new(Vec::new(), move |_, _, gate| {
            applied.borrow_mut().push((number, gate.is_some()));
            Ok(())
        }));
    }
    tape.leaf(&ones(&device, 1)).sum()?.backward()?;
    assert!(applied.borrow().is_empty(), "the backward pass applied one");
    let mut updates = tape.take_buffer_updates();
    assert_eq!(updates.len(), 3);
    assert!(tape.take_buffer_updates().is_empty(), "they were taken");
    assert!(applied.borrow().is_empty(), "taking one applied it");
    // An update that is dropped has no effect.
    drop(updates.remove(1));
    let gate = Tensor::zeros(&[1], DType::U32, &device)?;
    for update in updates {
        update.apply(&device, Some(&gate))?;
    }
    assert_eq!(*applied.borrow(), [(0, true), (2, true)]);
    Ok(())
}

/// A part of a network that runs twice requests the update of its buffers once.
#[test]
fn a_checkpoint_requests_each_update_once() -> Result<()> {
    let device = Device::cpu();
    let runs = Rc::new(RefCell::new(0));
    let x = ones(&device, 2);
    let tape = Tape::new(&device);
    let counted = runs.clone();
    let y = tape.leaf(&x).checkpoint(&[], move |x| {
        *counted.borrow_mut() += 1;
        let tape = x.tape().expect("a checkpoint runs on a tape");
        tape.update_buffer(BufferUpdate::new(Vec::new(), |_, _, _| Ok(())));
        x.scale(2.0)
    })?;
    assert_eq!(*runs.borrow(), 1);
    let gradients = y.sum()?.backward()?;
    assert_eq!(*runs.borrow(), 2);
    assert_eq!(gradients.of(&x).unwrap().to_vec::<f32>()?, [2.0; 2]);
    assert_eq!(tape.take_buffer_updates().len(), 1);
    Ok(())
}

/// A handle in another mode changes how layers behave, and shares the record of the tape.
#[test]
fn one_tape_has_passes_in_both_modes() -> Result<()> {
    let device = Device::cpu();
    let options = PassOptions {
        momentum: 0.25,
        loss_scale: 2.0,
        ..PassOptions::default()
    };
    let tape = Tape::with(&device, options);
    let evaluation = tape.in_mode(Mode::Evaluation);
    let expected = PassOptions {
        mode: Mode::Evaluation,
        ..options
    };
    assert_eq!(evaluation.options(), expected);
    assert_eq!(tape.options(), options);

    let norm = BatchNorm::new("bn", 1, &device)?;
    let image = Tensor::from_slice(&[4.0f32, 8.0], &[1, 1, 1, 2], &device)?;
    // The running statistics are mean 0 and variance 1.
    let y = norm.forward(&evaluation.leaf(&image))?;
    assert_eq!(y.mode(), Mode::Evaluation);
    assert!((y.tensor().to_vec::<f32>()?[0] - 4.0).abs() < 1e-4);
    assert!(evaluation.take_buffer_updates().is_empty());
    // Those of the batch are mean 6 and variance 4.
    let z = norm.forward(&tape.leaf(&image))?;
    assert_eq!(z.mode(), Mode::Training);
    assert!((z.tensor().to_vec::<f32>()?[0] + 1.0).abs() < 1e-4);
    // A request reaches the record from either handle.
    let updates = evaluation.take_buffer_updates();
    assert_eq!(updates.len(), 1);

    // The values are on one tape, and one backward pass serves both.
    let gradients = y.add(&z)?.sum()?.backward()?;
    let bias = gradients.of(&norm.parameters()[1].value).unwrap();
    // Two elements in two passes, times the loss scale.
    assert_eq!(bias.to_vec::<f32>()?, [8.0]);
    // In training mode, the sum of the normalised elements is constant, so only the pass in
    // evaluation mode has a gradient.
    for dx in gradients.of(&image).unwrap().to_vec::<f32>()? {
        assert!((dx - 2.0).abs() < 1e-4, "{dx}");
    }
    for update in updates {
        update.apply(&device, None)?;
    }
    let mean = norm.buffers()[0].value.to_scalar::<f32>()?;
    assert!((mean - 0.25 * 6.0).abs() < 1e-6, "{mean}");
    let message = error_of(evaluation.leaf(&image).backward_from(image.clone()));
    assert!(message.contains("has run; record"), "{message}");
    Ok(())
}

/// What else reads the input of a batch norm.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Other {
    Nothing,
    /// A convolution, which is recorded first, so that its backward pass is the last.
    Convolution,
    /// A batch norm, recorded first.
    BatchNorm,
    /// The sum with the result of the batch norm.
    Shortcut,
}

/// The backward pass of a batch norm writes the gradient of its input over the input, unless
/// something else still holds the input.
#[test]
fn an_input_that_is_still_held_is_not_overwritten() -> Result<()> {
    let device = Device::cpu();
    let numbers: Vec<f32> = (0..24).map(|i| (i * i % 17) as f32).collect();
    let x = Tensor::from_slice(&numbers, &[2, 3, 2, 2], &device)?;
    let w = Tensor::from_slice(&numbers[..12], &[1, 3, 2, 2], &device)?;
    let gamma = Tensor::from_slice(&[1.5f32, -0.5, 2.0], &[3], &device)?;
    let beta = Tensor::from_slice(&[0.5f32, 0.25, 0.0], &[3], &device)?;
    let options = Conv2dOptions {
        stride: 1,
        padding: 0,
    };
    // The gradients, and whether each batch norm computed its gradient in place.
    let gradients = |other: Other, holds: bool| -> Result<(Vec<Vec<f32>>, Vec<bool>)> {
        let tape = Tape::new(&device);
        let between = tape.leaf(&x).scale(2.0)?;
        let held = holds.then(|| between.tensor().clone());
        let (w, gamma, beta) = (tape.leaf(&w), tape.leaf(&gamma), tape.leaf(&beta));
        let affine = Affine {
            gamma: &gamma,
            beta: &beta,
            eps: 1e-5,
        };
        let beside = match other {
            Other::Convolution => Some(between.conv2d(&w, options)?),
            Other::BatchNorm => {
                let (y, _) = between.batch_norm(affine, Activation::Identity)?;
                Some(y.conv2d(&w, options)?)
            }
            Other::Nothing | Other::Shortcut => None,
        };
        let activation = match other {
            Other::Shortcut => Activation::AddRelu(&between),
            _ => Activation::Relu,
        };
        let (y, _) = between.batch_norm(affine, activation)?;
        drop(between);
        let mut sums = y.conv2d(&w, options)?;
        drop(y);
        if let Some(beside) = beside {
            sums = sums.add(&beside)?;
        }
        let loss = sums.sum()?;
        drop(sums);
        device.start_recording();
        let gradients = loss.backward()?;
        let calls = device.stop_recording()?.calls.into_iter();
        let in_place = calls
            .filter(|call| call.name == "batch_norm_backward")
            .map(|call| call.work.label.as_deref() == Some("in place"))
            .collect();
        if let Some(held) = held {
            let twice: Vec<f32> = numbers.iter().map(|x| 2.0 * x).collect();
            assert_eq!(held.to_vec::<f32>()?, twice);
        }
        assert_eq!(x.to_vec::<f32>()?, numbers);
        let of = |leaf: &Tensor| {
            let gradient = gradients.of(leaf).expect("the loss depends on it");
            gradient.to_vec::<f32>()
        };
        let mut all = vec![of(&x)?];
        for leaf in [&w, &gamma, &beta] {
            all.push(of(leaf.tensor())?);
        }
        Ok((all, in_place))
    };
    for (other, expected) in [
        (Other::Nothing, vec![true]),
        (Other::Convolution, vec![false]),
        (Other::BatchNorm, vec![false, true]),
        (Other::Shortcut, vec![true]),
    ] {
        let (held, in_place) = gradients(other, true)?;
        assert_eq!(in_place, vec![false; expected.len()], "{other:?}, held");
        let (found, in_place) = gradients(other, false)?;
        assert_eq!(in_place, expected, "{other:?}");
        assert_eq!(found, held, "{other:?}");
    }
    Ok(())
}

fn checked(device: &Device) -> Tape {
    let options = PassOptions {
        check: true,
        ..PassOptions::default()
    };
    Tape::with(device, options)
}

#[test]
fn a_checked_tape_names_the_operation_and_the_layer() -> Result<()> {
    let device = Device::cpu();
    let weight = Parameter::new("layer1.0.conv2.weight", &[1.0; 3], &[3], &device)?;
    let tape = checked(&device);
    let x = tape.constant(&ones(&device, 3)).parameter(&weight);
    let y = x.scale(f32::MAX)?;
    let Err(Error::NonFinite(message)) = y.scale(10.0) else {
        panic!("an infinity is accepted");
    };
    for part in ["scale", "layer1.0.conv2)", "result"] {
        assert!(message.contains(part), "{message}");
    }

    let tape = checked(&device);
    let input = Tensor::from_slice(&[0.0, f32::NAN], &[2], &device)?;
    let message = error_of(tape.leaf(&input).relu());
    assert!(message.contains("relu: input x"), "{message}");
    Ok(())
}

#[test]
fn a_checked_tape_names_the_gradient_that_is_not_finite() -> Result<()> {
    let device = Device::cpu();
    let tape = checked(&device);
    let y = tape.leaf(&ones(&device, 3)).scale(2.0)?;
    let huge = Tensor::from_slice(&[f32::MAX; 3], &[3], &device)?;
    let Err(Error::NonFinite(message)) = y.backward_from(huge) else {
        panic!("an infinity is accepted");
    };
    assert!(message.contains("scale: the gradient of x"), "{message}");
    Ok(())
}

/// The sine of the index of each element.
fn numbers(device: &Device, shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|i| (i as f32).sin());
    Tensor::from_slice(&values.collect::<Vec<_>>(), shape, device).unwrap()
}

/// Twice, in two shapes, and in a checkpoint that lists it twice and has it as its input.
#[test]
fn every_use_of_a_parameter_counts_once() -> Result<()> {
    let device = Device::cpu();
    let (w, v) = (numbers(&device, &[4]), numbers(&device, &[4]));
    let square = w.reshape(&[2, 2])?;
    let of = |loss: &dyn Fn(&Tape, &Var) -> Result<Var>| -> Result<Vec<f32>> {
        let tape = Tape::new(&device);
        let gradients = loss(&tape, &tape.leaf(&w))?.sum()?.backward()?;
        gradients.of(&w).expect("it is used").to_vec()
    };
    assert_eq!(of(&|tape, x| x.add(&tape.leaf(&w)))?, [2.0; 4]);
    let reshaped = |tape: &Tape, x: &Var| x.add(&tape.leaf(&square).reshape(&[4])?.scale(5.0)?);
    assert_eq!(of(&reshaped)?, [6.0; 4]);
    let plus = |w: &Tensor| {
        let w = w.clone();
        move |x: &Var| x.add(&x.tape().expect("a tape").leaf(&w).scale(3.0)?)
    };
    assert_eq!(of(&|_, x| x.checkpoint(&[&w, &w], plus(&w)))?, [4.0; 4]);
    let unlisted = of(&|_, x| x.checkpoint(&[], plus(&v)));
    let message = error_of(unlisted);
    assert!(
        message.contains("1 tensors that are not listed"),
        "{message}"
    );
    let backward = |x: &Tensor| Tape::new(&device).leaf(x).sum()?.backward();
    let mut sum = backward(&w)?;
    sum.add(&device, backward(&square)?)?;
    for shape in [&w, &square] {
        let gradient = sum.of(shape).expect("it was used");
        assert_eq!(gradient.to_vec::<f32>()?, [2.0; 4]);
    }
    Ok(())
}

/// No operation panics for sizes of 0 to 2, forward or backward.
#[test]
fn no_shape_panics() {
    let device = Device::cpu();
    let mut shapes: Vec<Vec<usize>> = vec![vec![], vec![0], vec![2]];
    shapes.extend((0..9).map(|i| vec![i / 3, i % 3]));
    shapes.extend((0..81).map(|i| vec![i / 27, i / 9 % 3, i / 3 % 3, i % 3]));
    for (n, shape) in shapes.iter().enumerate() {
        let other = &shapes[(n * 7 + 3) % shapes.len()];
        let run = |operation: usize, [a, b]: [usize; 2]| -> Result<()> {
            let tape = Tape::new(&device);
            let [x, y] = [shape, other].map(|shape| tape.leaf(&numbers(&device, shape)));
            let labels = Tensor::zeros(&shape[..shape.len().min(1)], DType::U32, &device)?;
            let channels = shape.get(1).copied().unwrap_or(0);
            let result = match operation {
                0 => x.conv2d(
                    &y,
                    Conv2dOptions {
                        stride: a,
                        padding: b,
                    },
                ),
                1 => x.max_pool2d(Pool2dOptions {
                    kernel: a,
                    stride: a,
                    padding: b,
                }),
                2 => x.gemm(a == 0, &y, b == 0),
                3 => x.gemm(false, &x, true),
                4 => x.relu()?.add(&x.scale(0.0)?),
                5 => x.global_average_pool(),
                6 => x.concat(if b == 0 { &x } else { &y }),
                7 => x.slice(b, a),
                8 => x.cross_entropy(&labels),
                9 => x.l2_normalize(0.1),
                10 => x.nt_xent(0.1),
                11 => x.reshape(other),
                12 => x.sum(),
                _ => BatchNorm::new("bn", channels, &device)?.forward(&x),
            }?;
            let dy = Tensor::zeros(result.shape(), DType::F32, &device)?;
            result.backward_from(dy).map(drop)
        };
        for operation in 0..14 {
            for sizes in [[0, 0], [1, 0], [1, 1], [2, 1], [usize::MAX, usize::MAX]] {
                let outcome = catch_unwind(AssertUnwindSafe(|| run(operation, sizes)));
                assert!(
                    outcome.is_ok(),
                    "{operation} {sizes:?} of {shape:?} and {other:?}"
                );
            }
        }
    }
}
