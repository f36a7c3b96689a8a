//! Tester of operations: each runs an operation on devices, and compares the results with expected
//! values. The unit tests and the self-test of an adapter run the same cases.
//!
//! The file `cases.rs` of an operation has a function of the type [`Run`]. In it, a loop over
//! [`Tester::all`] runs the operation on each device, and [`On::agree`] compares a result. If
//! [`On::has_f16`], it does the same with [`On::put16`] and [`On::agree16`].

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;

use half::f16;
use web_time::Instant;

use super::accuracy::FLUSH;
use super::{Expected, SEED, bits};
use crate::autograd::gradcheck::{GradientCheck, Leaf, relative_errors};
use crate::autograd::{Tape, Var};
use crate::device::gpu::variants::{Variant, VariantTable};
use crate::device::profiler::Trace;
use crate::device::{Cpu, Device, Gpu, RunOn};
use crate::error::Result;
use crate::ops::Cast;
use crate::philox::Philox;
use crate::tensor::{DType, Element, Tensor};

/// A binding limit in bytes at which tensors of a few thousand elements are cut into slices.
pub const SMALL_BINDING: usize = 64 * 1024;

/// The largest relative error of a leaf's gradient, in the Euclidean norm.
pub const GRADIENT_TOLERANCE: f64 = 2e-3;
/// The step of a central difference, relative to the root mean square of the leaf.
pub(super) const GRADIENT_STEP: f64 = 1e-2;

/// The cases of an operation.
pub type Run = fn(&Tester) -> Result<()>;

/// A device that runs cases.
#[derive(Clone)]
pub struct Candidate {
    /// The name in messages.
    name: String,
    device: Device,
    /// The variant of products and convolutions that it runs, if that is fixed.
    variant: Option<Variant>,
    /// The table that selects the variants of a GPU.
    table: Option<VariantTable>,
    /// Whether it runs the cases of operations with variants, and no others.
    is_for_products: bool,
    /// Whether it rounds the factors of f32 products to f16, as variants on matrices do.
    rounds_factors: bool,
    /// Whether the bindings of a GPU have at most [`SMALL_BINDING`] bytes.
    is_sliced: bool,
}

impl Candidate {
    /// A device with large bindings, which runs every case.
    pub fn new(name: impl Into<String>, device: Device) -> Self {
        Candidate {
            name: name.into(),
            table: device.variants(),
            device,
            variant: None,
            is_for_products: false,
            rounds_factors: false,
            is_sliced: false,
        }
    }

    /// A device whose bindings have at most [`SMALL_BINDING`] bytes.
    pub fn sliced(name: impl Into<String>, device: Device) -> Self {
        Candidate {
            is_sliced: true,
            ..Candidate::new(name, device)
        }
    }

    /// A device that differs from another one in products and convolutions only. A GPU runs
    /// `variant` of them. One on matrices rounds the factors of f32 products to f16.
    pub fn of_products(name: impl Into<String>, device: Device, variant: Option<Variant>) -> Self {
        let table = device
            .variants()
            .zip(variant)
            .map(|(table, variant)| VariantTable::only(variant, table.key));
        Candidate {
            variant,
            table,
            is_for_products: true,
            rounds_factors: variant.is_some_and(Variant::is_on_matrices),
            ..Candidate::new(name, device)
        }
    }

    /// A device that rounds the factors of f32 products to f16, on any variant.
    #[cfg(test)]
    pub fn rounding(name: impl Into<String>, device: Device) -> Self {
        Candidate {
            rounds_factors: true,
            ..Candidate::of_products(name, device, None)
        }
    }
}

/// The comparison of one result with its expected values.
pub struct Comparison {
    /// The name of the operation.
    pub operation: &'static str,
    pub variant: Option<Variant>,
    /// The largest error as a multiple of its bound; more than 1 if the result is wrong.
    pub excess: f64,
    /// Describes the case, the device and the error of a wrong result.
    pub failure: Option<String>,
    /// A digest of the bits of the result; 0 for comparisons that are not of bits.
    pub digest: u64,
}

/// The gradient checks of an operation's cases, one of which is started.
#[derive(Default)]
pub struct Collected {
    /// The index of the check that is started.
    pub wanted: usize,
    /// The name of each case.
    pub cases: Vec<String>,
    pub started: Option<StartedCheck>,
}

/// A gradient check that is recorded, and may not have been computed yet.
pub struct StartedCheck {
    /// The shape of each leaf.
    pub shapes: Vec<Vec<usize>>,
    /// The calls of the forward pass, and those of the backward pass.
    pub passes: [Trace; 2],
    pub check: GradientCheck,
}

/// Runs cases on devices, and collects the comparisons.
pub struct Tester {
    devices: Vec<Candidate>,
    seed: u64,
    /// After this time, no device runs further cases.
    deadline: Option<Instant>,
    comparisons: RefCell<Vec<Comparison>>,
    skipped: Cell<usize>,
    /// If set, gradient checks are collected, and no case runs.
    collected: Option<RefCell<Collected>>,
}

impl Tester {
    pub fn new(devices: Vec<Candidate>, seed: u64, deadline: Option<Instant>) -> Self {
        Tester {
            devices,
            seed,
            deadline,
            comparisons: RefCell::default(),
            skipped: Cell::new(0),
            collected: None,
        }
    }

    /// Collects the gradient checks of `run` on `device` without running its cases. Starts the one
    /// with the index `wanted`.
    ///
    /// # Errors
    /// Those of the check.
    pub fn collect(device: &Device, run: Run, wanted: usize) -> Result<Collected> {
        let collected = Collected {
            wanted,
            ..Collected::default()
        };
        let tester = Tester {
            collected: Some(RefCell::new(collected)),
            ..Tester::new(vec![Candidate::new("", device.clone())], SEED, None)
        };
        run(&tester)?;
        Ok(tester
            .collected
            .map(RefCell::into_inner)
            .unwrap_or_default())
    }

    /// The generator of the input of some cases.
    pub fn random(&self, stream: u32) -> Philox {
        Philox::new(self.seed, [stream, 0, 0])
    }

    /// The devices for a case of an operation without variants; none after the deadline.
    pub fn all(&self) -> impl Iterator<Item = On<'_>> {
        self.devices_for(|candidate| !candidate.is_for_products)
    }

    /// The devices for a case of an operation with variants; none after the deadline.
    pub fn all_variants(&self) -> impl Iterator<Item = On<'_>> {
        self.devices_for(|_| true)
    }

    fn devices_for(&self, takes_part: fn(&Candidate) -> bool) -> impl Iterator<Item = On<'_>> {
        let runs_none = self.is_late() || self.collected.is_some();
        let devices = if runs_none { &[] } else { &self.devices[..] };
        devices
            .iter()
            .filter(move |c| takes_part(c))
            .map(|candidate| {
                candidate.device.round_factors(candidate.rounds_factors);
                if let (Some(gpu), Some(table)) = (candidate.device.as_gpu(), &candidate.table) {
                    gpu.use_variants(table.clone());
                    gpu.limit_bindings(candidate.is_sliced.then_some(SMALL_BINDING as u64));
                }
                On {
                    tester: self,
                    candidate,
                    operation: Cell::new(""),
                }
            })
    }

    /// Whether the deadline has passed. If it has, counts a case that does not run.
    pub fn is_late(&self) -> bool {
        let is_late = self.deadline.is_some_and(|end| Instant::now() >= end);
        self.skipped.set(self.skipped.get() + usize::from(is_late));
        is_late
    }

    /// The comparisons so far, in their order.
    pub fn take_comparisons(&self) -> Vec<Comparison> {
        self.comparisons.take()
    }

    /// Number of cases that were left out because the time was up.
    pub fn skipped(&self) -> usize {
        self.skipped.get()
    }

    /// Compares the gradients of `function` with central differences.
    ///
    /// The function is in the middle of a graph: its inputs are multiplied by 1.7, its result by
    /// -0.6, and each element of the result has its own coefficient. So a backward pass that drops
    /// or scales the gradient of its result is found.
    pub fn gradients(
        &self,
        case: &str,
        leaves: &[Leaf],
        function: impl Fn(&[Var]) -> Result<Var>,
    ) -> Result<()> {
        let scaled = |leaves: &[Var]| {
            let inputs = leaves.iter().map(|leaf| leaf.scale(1.7));
            function(&inputs.collect::<Result<Vec<_>>>()?)?.scale(-0.6)
        };
        if let Some(collected) = &self.collected {
            let mut collected = collected.borrow_mut();
            if collected.cases.len() == collected.wanted {
                let device = &self.devices[0].device;
                collected.started = Some(StartedCheck {
                    shapes: leaves.iter().map(|leaf| leaf.shape.clone()).collect(),
                    passes: trace(device, leaves, &function)?,
                    check: GradientCheck::start(device, leaves, GRADIENT_STEP, scaled)?,
                });
            }
            collected.cases.push(case.to_string());
        }
        for on in self.all() {
            on.operation.set("gradients of");
            let errors = relative_errors(&on, leaves, GRADIENT_STEP, scaled)?;
            // A NaN is not below the tolerance.
            let worst = errors.iter().fold(
                0.0,
                |worst, &error| {
                    if error <= worst { worst } else { error }
                },
            );
            let what = format!("relative errors {errors:?} of the gradients");
            on.report(case, worst / GRADIENT_TOLERANCE, 0, || what);
        }
        Ok(())
    }
}

/// Records the calls of a forward pass of `function` and of its backward pass.
fn trace(
    device: &Device,
    leaves: &[Leaf],
    function: impl Fn(&[Var]) -> Result<Var>,
) -> Result<[Trace; 2]> {
    let tensors = leaves
        .iter()
        .map(|leaf| Tensor::from_slice(&leaf.values, &leaf.shape, device))
        .collect::<Result<Vec<_>>>()?;
    let tape = Tape::new(device);
    let vars: Vec<Var> = tensors.iter().map(|tensor| tape.leaf(tensor)).collect();
    device.start_trace();
    let y = function(&vars);
    let forward = device.stop_trace();
    let y = y?;
    drop(vars);
    let dy = Tensor::from_slice(&vec![1.0f32; y.tensor().len()], y.shape(), device)?;
    device.start_trace();
    let gradients = y.backward_from(dy);
    let backward = device.stop_trace();
    gradients.map(|_| [forward, backward])
}

/// A device that runs a case.
pub struct On<'a> {
    tester: &'a Tester,
    candidate: &'a Candidate,
    /// The operation that ran last.
    operation: Cell<&'static str>,
}

impl Deref for On<'_> {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.candidate.device
    }
}

impl On<'_> {
    /// Whether bindings are small.
    pub fn is_sliced(&self) -> bool {
        self.candidate.is_sliced
    }

    /// Whether the device rounds the factors of f32 products to f16.
    pub fn rounds_factors(&self) -> bool {
        self.candidate.rounds_factors
    }

    /// Whether a variant on matrices runs, if the operation has it.
    pub fn is_on_matrices(&self) -> bool {
        let variant = self.candidate.variant;
        variant.is_some_and(Variant::is_on_matrices)
    }

    /// Whether tensors may be f16.
    pub fn has_f16(&self) -> bool {
        Tensor::zeros(&[1], DType::F16, self).is_ok()
    }

    /// Computes `op`. Comparisons are attributed to the operation that ran last.
    pub fn run<O: RunOn<Cpu> + RunOn<Gpu>>(&self, op: O) -> Result<O::Output> {
        self.operation.set(O::NAME);
        self.candidate.device.run(op)
    }

    /// Copies elements to the device.
    pub fn put<T: Element>(&self, data: &[T], shape: &[usize]) -> Result<Tensor> {
        Tensor::from_slice(data, shape, self)
    }

    /// Copies f16 numbers, given as f32, to the device as an f16 tensor.
    pub fn put16(&self, data: &[f32], shape: &[usize]) -> Result<Tensor> {
        let (x, dtype) = (&self.put(data, shape)?, DType::F16);
        self.candidate.device.run(Cast { x, dtype })
    }

    /// Compares an f32 result. It has to have this shape, and every element has to be within its
    /// bound.
    pub fn agree(
        &self,
        case: &str,
        x: &Tensor,
        shape: &[usize],
        expected: &Expected,
    ) -> Result<()> {
        self.compare(case, x, (shape, DType::F32), expected)
    }

    /// As [`On::agree`], for an f16 result.
    pub fn agree16(
        &self,
        case: &str,
        x: &Tensor,
        shape: &[usize],
        expected: &Expected,
    ) -> Result<()> {
        let expected = expected.clone().stored_as_f16();
        self.compare(case, x, (shape, DType::F16), &expected)
    }

    fn compare(
        &self,
        case: &str,
        x: &Tensor,
        (shape, dtype): (&[usize], DType),
        expected: &Expected,
    ) -> Result<()> {
        if x.shape() != shape || x.dtype() != dtype {
            let (found, of) = (x.shape(), x.dtype());
            self.check(case, false, || {
                format!("the result is {of} {found:?}; expected {dtype} {shape:?}")
            });
            return Ok(());
        }
        let bytes = x.read()?.wait()?;
        let actual: Vec<f32> = match dtype {
            DType::F16 => bytemuck::pod_collect_to_vec::<u8, f16>(&bytes)
                .into_iter()
                .map(f16::to_f32)
                .collect(),
            _ => bytemuck::pod_collect_to_vec(&bytes),
        };
        self.compare_floats(case, &actual, shape, expected);
        Ok(())
    }

    /// Compares numbers of the host.
    pub fn agree_on_host(&self, case: &str, found: &[f32], expected: &Expected) {
        self.compare_floats(case, found, &[found.len()], expected);
    }

    fn compare_floats(&self, case: &str, actual: &[f32], shape: &[usize], expected: &Expected) {
        let mut hasher = DefaultHasher::new();
        bits(actual).hash(&mut hasher);
        let (excess, wrong) = difference(actual, shape, expected);
        self.report(case, excess, hasher.finish(), || wrong.unwrap_or_default());
    }

    /// Compares two lists of bits or integers.
    pub fn equal(&self, case: &str, found: &[u32], expected: &[u32]) {
        let first = (0..expected.len().max(found.len())).find(|&i| found.get(i) != expected.get(i));
        self.check(case, first.is_none(), || {
            let i = first.unwrap_or_default();
            let at = |list: &[u32]| list.get(i).copied();
            format!(
                "element {i} is {:?}; expected {:?}",
                at(found),
                at(expected)
            )
        });
    }

    /// Reports a wrong result unless `is_right`. `what` describes it.
    pub fn check(&self, case: &str, is_right: bool, what: impl FnOnce() -> String) {
        let excess = if is_right { 0.0 } else { f64::INFINITY };
        self.report(case, excess, 0, what);
    }

    fn report(&self, case: &str, excess: f64, digest: u64, what: impl FnOnce() -> String) {
        let operation = self.operation.get();
        let is_wrong = excess.is_nan() || excess > 1.0;
        let failure = is_wrong.then(|| {
            let name = &self.candidate.name;
            format!("{operation} {case}, on {name}: {}", what())
        });
        self.tester.comparisons.borrow_mut().push(Comparison {
            operation,
            variant: self.candidate.variant,
            excess,
            failure,
            digest,
        });
    }
}

/// The largest error as a multiple of its bound, and a description of it if it is more than 1.
pub(super) fn difference(
    actual: &[f32],
    shape: &[usize],
    expected: &Expected,
) -> (f64, Option<String>) {
    if actual.len() != expected.value.len() {
        let message = format!(
            "{} elements; expected {}",
            actual.len(),
            expected.value.len()
        );
        return (f64::INFINITY, Some(message));
    }
    // Infinite if one of both numbers is not finite.
    let excess = |i: usize| {
        let (actual, value) = (f64::from(actual[i]), expected.value[i]);
        if value.is_nan() && actual.is_nan() || actual == value {
            0.0
        } else if !value.is_finite() || !actual.is_finite() {
            f64::INFINITY
        } else {
            (actual - value).abs() / (expected.bound[i] + FLUSH)
        }
    };
    let Some(worst) = (0..actual.len()).max_by(|&a, &b| excess(a).total_cmp(&excess(b))) else {
        return (0.0, None);
    };
    let largest = excess(worst);
    if largest <= 1.0 {
        return (largest, None);
    }
    let message = format!(
        "{} of {} elements are wrong; the worst, at {:?} of {shape:?}, is {:e}; expected {:e} \
         within {:.1e} (the error is {:.1e}, {largest:.1} times the bound)",
        (0..actual.len()).filter(|&i| excess(i) > 1.0).count(),
        actual.len(),
        position(worst, shape),
        actual[worst],
        expected.value[worst],
        expected.bound[worst],
        (f64::from(actual[worst]) - expected.value[worst]).abs(),
    );
    (largest, Some(message))
}

/// The coordinates of element `index`.
fn position(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut coordinates = vec![0; shape.len()];
    for (coordinate, size) in coordinates.iter_mut().zip(shape).rev() {
        *coordinate = index % size;
        index /= size;
    }
    coordinates
}
