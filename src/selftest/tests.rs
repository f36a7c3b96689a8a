//! The self-test finds wrong kernels, and has a case for every kernel.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Family, NEVER_LAUNCHED, Report, Wrong, all, run, test};
use crate::device::gpu::variants::{Operation, ShapeClass, TileSize, Variant};
use crate::device::gpu::{Grid, Kernel};
use crate::device::{Check, Cpu, Device, Gpu, Op, RunOn};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::testing::tester::Run;
use crate::testing::{Expected, Tester, devices};

/// `y = 2 x`, with an error in element `wrong`, if there is such an element.
const WGSL: &str = "
@group(0) @binding(0) var<uniform> params: vec2u;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn doubled(@builtin(global_invocation_id) at: vec3u) {
    if at.x < params.x {
        y[at.x] = 2.0 * x[at.x] * select(1.0, 1.00001, at.x == params.y);
    }
}
";

static KERNEL: LazyLock<Kernel> =
    LazyLock::new(|| Kernel::new("doubled", WGSL).expect("the WGSL is valid"));
const COUNT: usize = 100;
const TILED: Variant = Variant::Tiled(TileSize::Small);

/// An operation with the name of one that has variants, whose tiled variant is wrong.
struct WrongIfTiled<'a>(&'a Tensor);

impl Op for WrongIfTiled<'_> {
    const NAME: &'static str = "conv2d_dx";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.f32("x", self.0)
    }
}

impl RunOn<Cpu> for WrongIfTiled<'_> {
    fn run(&self, cpu: &Cpu, (): ()) -> Result<Tensor> {
        let x = cpu.read(self.0)?;
        Ok(cpu.filled(self.0.shape(), |y| {
            y.iter_mut().zip(&x[..]).for_each(|(y, x)| *y = 2.0 * x);
        }))
    }
}

impl RunOn<Gpu> for WrongIfTiled<'_> {
    fn run(&self, gpu: &Gpu, (): ()) -> Result<Tensor> {
        let is_tiled = gpu.variants().cost.contains_key(&TILED);
        doubled(gpu, self.0, if is_tiled { 77 } else { COUNT })
    }
}

/// An operation that is wrong on a GPU.
struct AlwaysWrong<'a>(&'a Tensor);

impl Op for AlwaysWrong<'_> {
    const NAME: &'static str = "doubled";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.f32("x", self.0)
    }
}

impl RunOn<Cpu> for AlwaysWrong<'_> {
    fn run(&self, cpu: &Cpu, (): ()) -> Result<Tensor> {
        WrongIfTiled(self.0).run(cpu, ())
    }
}

impl RunOn<Gpu> for AlwaysWrong<'_> {
    fn run(&self, gpu: &Gpu, (): ()) -> Result<Tensor> {
        doubled(gpu, self.0, 3)
    }
}

fn doubled(gpu: &Gpu, x: &Tensor, wrong: usize) -> Result<Tensor> {
    let y = gpu.floats(x.shape())?;
    let launch = gpu.launch(&KERNEL).read("x", x, ..).write("y", &y, ..);
    let params = [x.len() as u32, wrong as u32];
    launch.run(|_| (params, Grid::Invocations(params[0] as usize)))?;
    Ok(y)
}

fn input() -> (Vec<f32>, Expected) {
    let x: Vec<f32> = (0..COUNT).map(|i| i as f32 + 0.5).collect();
    let y = x.iter().map(|x| 2.0 * f64::from(*x)).collect();
    (x, Expected::elementwise(y))
}

fn wrong_if_tiled(tester: &Tester) -> Result<()> {
    let (x, expected) = input();
    for on in tester.all_variants() {
        let y = on.run(WrongIfTiled(&on.put(&x, &[COUNT])?))?;
        on.agree("of 100", &y, &[COUNT], &expected)?;
    }
    Ok(())
}

fn always_wrong(tester: &Tester) -> Result<()> {
    let (x, expected) = input();
    for on in tester.all() {
        let y = on.run(AlwaysWrong(&on.put(&x, &[COUNT])?))?;
        on.agree("of 100", &y, &[COUNT], &expected)?;
    }
    Ok(())
}

/// Results within their bound, but with other bits in each call.
fn never_equal(tester: &Tester) -> Result<()> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    for on in tester.all() {
        let bits = 1f32.to_bits() + CALLS.fetch_add(1, Ordering::Relaxed) % 4;
        let expected = Expected::elementwise(vec![1.0]);
        on.agree_on_host("of 1", &[f32::from_bits(bits)], &expected);
    }
    Ok(())
}

fn tested(device: &Device, cases: &[(&str, Run)], seconds: f64) -> Report {
    test(device, cases, (seconds, 4), &mut |_| {}).expect("the device is not lost")
}

/// A GPU of its own, because the test changes its table of variants.
fn gpu() -> Device {
    devices::open_gpu(false, None).into()
}

/// The kernels that an adapter cannot run, because it has no such matrices.
fn without_matrices(gpu: &Gpu) -> Vec<&'static str> {
    let missing = Variant::ALL.into_iter().filter(|v| !gpu.has(*v));
    missing.map(Variant::name).collect()
}

#[test]
fn a_wrong_variant_is_found_and_no_longer_selected() {
    let device = gpu();
    let before = device.variants();
    let report = tested(&device, &[("doubled", wrong_if_tiled)], 60.0);
    let variant = Some(TILED);
    let operation = "conv2d_dx".to_string();
    assert_eq!(report.wrong, [Wrong { operation, variant }]);
    assert_eq!(report.rejected(), [(Operation::Conv2dDx, TILED)]);
    assert!(!report.is_ok());
    let family = &report.families[0];
    assert_eq!((family.failures, family.passes), (4, 4));
    for words in ["tiled64x64", "[77]", "of 100", "1 of 100 elements"] {
        assert!(
            family.described[0].contains(words),
            "{:?}",
            family.described
        );
    }
    assert_eq!(device.variants(), before, "the table is that of before");

    let mut table = before.expect("a GPU has a table");
    table.cost.insert(TILED, 1);
    let class = ShapeClass::convolution(Operation::Conv2dDx, [3, 3], 1, [64; 3]);
    let available = [(Variant::Plain, 100), (TILED, 1)];
    assert_eq!(table.choose(&class, &available), TILED);
    table.reject(report.rejected());
    assert_eq!(table.choose(&class, &available), Variant::Plain);
}

#[test]
fn an_operation_whose_plain_variant_is_wrong_is_found_on_a_gpu_only() {
    let cases: [(&str, Run); 1] = [("doubled", always_wrong)];
    let report = tested(&gpu(), &cases, 60.0);
    let (operation, variant) = ("doubled".to_string(), None);
    assert_eq!(report.wrong, [Wrong { operation, variant }]);
    assert_eq!(report.rejected(), []);
    let report = tested(&devices::cpu(), &cases, 60.0);
    assert!(report.is_ok() && report.wrong.is_empty());
    assert!(report.families[0].comparisons > 0);
}

#[test]
fn results_that_do_not_repeat_are_found() {
    let report = tested(&devices::cpu(), &[("equal", never_equal)], 60.0);
    assert_eq!(report.families[0].failures, 1);
    assert!(report.families[0].described[0].contains("other bits"));
}

#[test]
fn cases_after_the_time_are_counted() {
    let report = run(&devices::cpu(), 0.0, &mut |_| {}).expect("nothing runs");
    let (comparisons, not_run) = report.families.iter().fold((0, 0), |(c, n), family| {
        (c + family.comparisons, n + family.not_run)
    });
    assert_eq!(comparisons, 0);
    assert!(report.families.iter().all(|family| family.passes == 0));
    assert_eq!(not_run, report.families.len());
}

/// Every kernel of the shader table, in every variant that the adapter runs, is right.
#[test]
fn every_kernel_has_a_case() {
    let gpu = devices::gpu_with_matrices();
    let missing = without_matrices(&gpu);
    let device = gpu.into();
    let mut failures = Vec::new();
    let mut add = |family: &Family| failures.extend(family.described.clone());
    let report = test(&device, &all(), (1e6, 1), &mut add).expect("the device is not lost");
    assert!(report.is_ok(), "{}", failures.join("\n"));
    let mut not_run = report.kernels_not_run;
    not_run.retain(|kernel| !missing.iter().any(|variant| kernel.contains(variant)));
    assert_eq!(not_run, [""; 0]);
    let compiled = device.as_gpu().expect("a GPU").kernels_used();
    for kernel in NEVER_LAUNCHED {
        assert!(!compiled.contains(&kernel), "{kernel:?} was launched");
    }
    assert!(report.families.iter().all(|family| family.comparisons > 0));
}
