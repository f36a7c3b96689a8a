//! Programs that use the crate from outside: own modules, own operations, and mistakes, each of
//! which is an error that names its cause.

use std::sync::mpsc::channel;
use std::time::Duration;

use parallax::autograd::{PassOptions, Tape, Var};
use parallax::device::cpu::for_chunks;
use parallax::device::{Check, Cpu, Gpu, Op, RunOn};
use parallax::nn::{BatchNorm, Linear, Module, Parameter, buffers, parameters};
use parallax::ops::{Accumulate, Add, CopyTensor, Relu};
use parallax::optim::{Decay, Milestones, Optimization, Optimizer, OptimizerOptions, Schedule};
use parallax::train::{Objective, PartialObjective, Trainer};
use parallax::{DType, Device, Error, Result, Tensor};

fn tensor(device: &Device, shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|i| (i as f32 * 0.7).sin());
    Tensor::from_slice(&values.collect::<Vec<_>>(), shape, device).unwrap()
}

/// Asserts that `result` is an error whose message has `words`.
#[track_caller]
fn refused<T>(result: Result<T>, words: &str) {
    let message = result.err().expect("it is accepted").to_string();
    assert!(message.contains(words), "{words} is missing: {message}");
}

fn values(parameters: &[&Parameter]) -> Vec<Vec<f32>> {
    let values = parameters.iter().map(|p| p.value.to_vec());
    values.collect::<Result<_>>().unwrap()
}

/// A module with two inputs, which share a layer, and with a batch norm.
struct Pairs(Linear, BatchNorm, Linear);

impl Pairs {
    fn new(device: &Device) -> Result<Self> {
        let layer = |name, outputs| Linear::new(name, 4, outputs, 1, device);
        let norm = BatchNorm::new("norm", 4, device)?;
        Ok(Pairs(layer("shared", 4)?, norm, layer("head", 2)?))
    }

    fn compare(&self, a: &Var, b: &Var) -> Result<Var> {
        let sum = self.0.forward(a)?.add(&self.0.forward(b)?)?;
        let planes = sum.reshape(&[a.shape()[0], 4, 1, 1])?;
        let normalized = self.1.forward(&planes)?;
        self.2.forward(&normalized.reshape(sum.shape())?)
    }
}

impl Module for Pairs {
    fn forward(&self, x: &Var) -> Result<Var> {
        self.compare(x, x)
    }

    fn parameters(&self) -> Vec<&Parameter> {
        parameters([&self.0 as &dyn Module, &self.1, &self.2])
    }

    fn buffers(&self) -> Vec<&Parameter> {
        buffers([&self.1 as &dyn Module])
    }
}

/// Classifies rows of a tensor with these labels.
struct Classify(Tensor, [u32; 6]);

impl Objective<Pairs> for Classify {
    fn loss(&mut self, module: &Pairs, tape: &Tape, step: u64) -> Result<Var> {
        let samples = self.samples(step);
        self.score(&self.rows(module, tape, &samples, step)?, &samples)
    }
}

impl PartialObjective<Pairs> for Classify {
    const IS_MEAN: bool = true;

    fn samples(&mut self, _: u64) -> Vec<u32> {
        (0..6).collect()
    }

    fn rows(&self, module: &Pairs, tape: &Tape, samples: &[u32], _: u64) -> Result<Var> {
        let all = tape.constant(&self.0);
        let x = all.slice(samples[0] as usize, samples.len())?;
        module.compare(&x, &x.scale(0.5)?)
    }

    fn score(&self, rows: &Var, samples: &[u32]) -> Result<Var> {
        let labels: Vec<u32> = samples.iter().map(|&s| self.1[s as usize]).collect();
        let labels = Tensor::from_slice(&labels, &[labels.len()], &rows.device())?;
        rows.cross_entropy(&labels)
    }
}

fn trainer(device: &Device, labels: [u32; 6]) -> Result<Trainer<Pairs, Classify>> {
    let objective = Classify(tensor(device, &[6, 4]), labels);
    Trainer::new(Pairs::new(device)?, Optimization::adam(0.05), objective)
}

const LABELS: [u32; 6] = [0, 1, 0, 1, 1, 0];

fn train(trainer: &mut Trainer<Pairs, Classify>, steps: std::ops::Range<u64>) -> Result<f32> {
    let mut loss = f32::NAN;
    for step in steps {
        let pending = trainer.step(step)?;
        loss = trainer.finish(pending)?;
    }
    Ok(loss)
}

#[test]
fn an_own_module_trains_resumes_and_evaluates() -> Result<()> {
    let device = Device::cpu();
    let [mut whole, mut before, mut after] = [(); 3].map(|()| trainer(&device, LABELS).unwrap());
    assert!(train(&mut whole, 0..60)? < 0.1);
    train(&mut before, 0..25)?;
    for (from, to) in before.state().iter().zip(after.state()) {
        to.value.overwrite(&from.value.to_vec::<f32>()?)?;
    }
    after.resume_at(before.optimizer_steps());
    train(&mut after, 25..60)?;
    assert_eq!(values(&after.state()), values(&whole.state()));
    // Evaluation of one row: it has no variance, so these are the running statistics.
    let y = whole.module.forward(&Var::from(tensor(&device, &[1, 4])))?;
    assert!(y.tensor().to_vec::<f32>()?.iter().all(|y| y.is_finite()));
    assert_eq!(values(&after.state()), values(&whole.state()));
    let mut chunks = trainer(&device, LABELS)?.with_micro_batch(3);
    assert!(train(&mut chunks, 0..60)? < 0.3);
    Ok(())
}

/// A learning rate that is set during a training acts as one of a schedule: the optimiser keeps its
/// state.
#[test]
fn a_learning_rate_that_changes_keeps_the_optimiser() -> Result<()> {
    let device = Device::cpu();
    let mut set = trainer(&device, LABELS)?;
    train(&mut set, 0..3)?;
    set.set_learning_rate(0.005);
    train(&mut set, 3..6)?;
    let (at, gamma) = (Milestones::new(&[3])?, 0.1);
    let decay = Decay::Milestones { at, gamma };
    let optimization = Optimization {
        schedule: Schedule { warmup: 0, decay },
        ..Optimization::adam(0.05)
    };
    let objective = Classify(tensor(&device, &[6, 4]), LABELS);
    let mut scheduled = Trainer::new(Pairs::new(&device)?, optimization, objective)?;
    train(&mut scheduled, 0..6)?;
    assert_eq!(values(&set.state()), values(&scheduled.state()));
    Ok(())
}

/// Steps are finished in another order or not at all, while a gradient overflows.
#[test]
fn pending_steps_in_another_order_lose_nothing() -> Result<()> {
    let device = Device::cpu();
    let with = |activations| PassOptions {
        activations,
        ..PassOptions::default()
    };
    let steps = |order: &[usize]| -> Result<_> {
        let objective = |module: &Linear, tape: &Tape, step: u64| {
            let size = if step == 7 { 1e35 } else { 1.0 };
            let x = tape.constant(&tensor(&device, &[4, 3]));
            module.forward(&x)?.scale(1.0 / size)?.scale(size)?.sum()
        };
        let module = Linear::new("fc", 3, 2, 0, &device)?;
        let trainer = Trainer::new(module, Optimization::adam(0.1), objective)?;
        let mut trainer = trainer.with_options(with(DType::F16))?;
        let pending = [3, 7, 5].map(|step| trainer.step(step));
        let mut pending = pending.into_iter().collect::<Result<Vec<_>>>()?;
        let mut errors = String::new();
        for &index in order {
            let finished = trainer.finish(pending.remove(index));
            errors.extend(finished.err().map(|error| error.to_string()));
        }
        Ok((values(&trainer.state()), trainer.optimizer_steps(), errors))
    };
    let in_order = steps(&[0, 0, 0])?;
    assert_eq!((in_order.1, in_order.2.as_str()), (3, ""));
    let (state, _, errors) = steps(&[2, 0, 0])?;
    assert_eq!(state, in_order.0);
    assert!(errors.contains("step 6 is not finite, or step 4"));
    let (_, _, errors) = steps(&[1])?;
    assert!(errors.contains("step 8 is not finite, or step 4"));
    let [mut one, mut other] = [(); 2].map(|()| trainer(&device, LABELS).unwrap());
    refused(one.finish(other.step(0)?), "by another trainer");
    one.resume_at(u32::MAX);
    train(&mut one, 1..2)?;
    refused(one.with_options(with(DType::U8)), "use f32 or f16");
    let elsewhere = |_: &Pairs, tape: &Tape, _| {
        let w = tensor(tape.device(), &[2]);
        Tape::new(tape.device()).leaf(&w).sum()
    };
    let step = Trainer::new(Pairs::new(&device)?, Optimization::adam(0.1), elsewhere)?.step(0);
    refused(step, "the loss is on another tape");
    Ok(())
}

#[test]
fn mistakes_are_named() -> Result<()> {
    let (device, other) = (Device::cpu(), Device::cpu());
    let x = tensor(&device, &[4]);
    refused(Device::open(""), "the device has no name");
    let parameter = |name: &str, value: &Tensor| {
        let (name, value) = (name.to_string(), value.clone());
        Parameter { name, value }
    };
    let integers = Tensor::zeros(&[4], DType::U32, &device)?;
    for (name, value, words) in [
        ("v", &x, "'w' and 'v' share one tensor; list a tensor once"),
        ("v", &x.reshape(&[2, 2])?, "'w' and 'v' share one tensor"),
        ("w", &tensor(&device, &[4]), "two parameters are named 'w'"),
        ("v", &integers, "parameter v is u32; expected f32"),
    ] {
        let parameters = [&parameter("w", &x), &parameter(name, value)];
        refused(
            Optimizer::new(&parameters, OptimizerOptions::adam(0.0)),
            words,
        );
    }
    let mut wrong = trainer(&device, [0, 1, 2, 0, 1, 0])?;
    let before = values(&wrong.state());
    refused(train(&mut wrong, 0..1), "label of row 2 is 2");
    assert_eq!(values(&wrong.state()), before, "the step had an effect");
    refused(x.to_vec::<u32>(), "F32; expected U32");
    refused(x.read()?.wait_as::<u8>(), "F32; expected U8");
    refused(x.overwrite(&[1u32; 4]), "F32 [4]; expected U32");
    let short = Tensor::from_slice(&[1.0f32; 3], &[2, 2], &device);
    refused(short, "3 values for shape [2, 2]; expected 4");
    refused(x.reshape(&[usize::MAX, 2]), "more than 2^32 - 1");
    let huge = Tensor::zeros(&[0, 1 << 40], DType::F32, &device);
    refused(huge, "more than 2^32 - 1");
    refused(other.run(Relu { x: &x }), "another device named cpu");
    refused(Tape::new(&other).leaf(&x).relu(), "named cpu");
    let layer = Linear::new("fc", 0, 2, 0, &device)?;
    assert_eq!(values(&layer.parameters()), [vec![], vec![0.0; 2]]);
    Ok(())
}

/// Adds labels to `x`, in place if nothing shares it.
struct AddLabels<'a>(Tensor, &'a Tensor);

impl Op for AddLabels<'_> {
    const NAME: &'static str = "add_labels";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.f32("x", &self.0)?;
        check.tensor("labels", self.1, self.0.shape(), DType::U32)
    }

    fn flops(&self, _: ()) -> u64 {
        self.0.len() as u64
    }
}

impl RunOn<Cpu> for AddLabels<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        let labels = cpu.read_u32(self.1)?;
        let y = if self.0.is_unshared() {
            self.0.clone()
        } else {
            cpu.run(CopyTensor { x: &self.0 })?
        };
        for_chunks(&mut cpu.write(&y)?, 2, |i, part| {
            let labels = labels[2 * i..].iter();
            for (x, &label) in part.iter_mut().zip(labels) {
                *x += label as f32;
            }
        });
        Ok(y)
    }
}

impl RunOn<Gpu> for AddLabels<'_> {
    fn run(&self, _: &Gpu, _: ()) -> Result<Tensor> {
        Err(Error::usage("the test runs on the CPU"))
    }
}

/// The threads use one device and one tensor, which is also both arguments of operations.
#[test]
fn own_operations_run_in_place_and_from_several_threads() -> Result<()> {
    let device = Device::cpu();
    let labels = Tensor::from_slice(&[1u32, 2, 3], &[3], &device)?;
    let x = Tensor::from_slice(&[0.5f32; 3], &[3], &device)?;
    let (id, held) = (x.id(), x.clone());
    let y = device.run(AddLabels(x, &labels))?;
    assert_eq!(y.to_vec::<f32>()?, [1.5, 2.5, 3.5]);
    assert_eq!(held.to_vec::<f32>()?, [0.5; 3]);
    let z = device.run(AddLabels(held, &labels))?;
    assert_eq!((z.id(), z.to_vec::<f32>()?), (id, vec![1.5, 2.5, 3.5]));

    z.overwrite(&[2.0f32; 3])?;
    let sum = |sum: Tensor, x: &Tensor| x.device().run(Accumulate { sum, x });
    let (done, finished) = channel();
    for thread in 0..3 {
        let (z, done) = (z.clone(), done.clone());
        std::thread::spawn(move || {
            let step = |_| match thread {
                0 => z.overwrite(&[2.0f32; 3]).map(|()| z.clone()),
                1 => z.device().run(Add { a: &z, b: &z }),
                _ => sum(z.clone(), &z),
            };
            let last = (0..20_000).try_fold(z.clone(), |_, i| step(i));
            done.send(last).unwrap();
        });
    }
    for _ in 0..3 {
        let last = finished.recv_timeout(Duration::from_secs(60));
        let last = last.expect("no deadlock")?.to_vec::<f32>()?;
        assert!(last.iter().all(|x| [2.0, 4.0].contains(x)), "{last:?}");
    }
    Ok(())
}
