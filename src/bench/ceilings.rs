//! The rates that bound those of kernels: arithmetic, workgroup memory, and memory.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::timer::{Time, seconds};
use super::{Bench, Part, Unit};
use crate::device::gpu::{Grid, Kernel};
use crate::device::{Device, Gpu};
use crate::error::Result;
use crate::ops::{Broadcast, CopyTensor, Gemm, NoiseKey, Sum, Uniform};
use crate::tensor::{DType, Tensor};

/// Work before the first measurement, so that clocks are those under load.
const WARM_UP: Duration = Duration::from_millis(500);
/// Side of the product with which the CPU's arithmetic is measured.
const CPU_PRODUCT: usize = 768;
/// Tensors that take turns in measurements of memory, so that caches hold none of them.
const TURNS: usize = 4;
/// Workgroups of the kernels of this file: many waves on a large GPU, and few on a software
/// adapter.
const WORKGROUPS: [usize; 2] = [132 * 64, 16];
const INVOCATIONS: usize = 256;
/// Repetitions of the loop's body.
const LOOPS: u32 = 64;
/// Instructions of the loop's body: per accumulator, and accumulators.
const UNROLLED: usize = 8;
const ACCUMULATORS: usize = 8;
const LANES: usize = 4;

/// Independent chains of fused multiply-adds.
fn fma(name: &'static str, scalar: &str) -> Kernel {
    let vector = format!("vec4<{scalar}>");
    let each = |line: &dyn Fn(usize) -> String| -> String { (0..ACCUMULATORS).map(line).collect() };
    let declared = each(&|i| format!("var a{i} = {vector}({scalar}(at.x + {i}u));\n"));
    let body = each(&|i| format!("a{i} = fma(a{i}, m, b);\n")).repeat(UNROLLED);
    let sum = each(&|i| format!(" + a{i}"));
    let enable = if scalar == "f16" { "enable f16;\n" } else { "" };
    let source = format!(
        "{enable}@group(0) @binding(0) var<uniform> loops: u32;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size({INVOCATIONS})
fn {name}(@builtin(local_invocation_id) at: vec3u, @builtin(workgroup_id) group: vec3u) {{
    let m = {vector}({scalar}(0.5));
    let b = {vector}({scalar}(group.x & 7u));
    {declared}
    for (var i = 0u; i < loops; i++) {{ {body} }}
    let sum = {vector}(){sum};
    y[group.x * {INVOCATIONS}u + at.x] = f32(sum.x + sum.y + sum.z + sum.w);
}}"
    );
    Kernel::new(name, &source).expect("the WGSL is valid")
}

static FMA_F32: LazyLock<Kernel> = LazyLock::new(|| fma("fma_f32", "f32"));
static FMA_F16: LazyLock<Kernel> = LazyLock::new(|| fma("fma_f16", "f16"));

/// Reads of vec4s from workgroup memory.
static WORKGROUP: LazyLock<Kernel> = LazyLock::new(|| {
    let body = "k = (k + 1u) & 255u; sum += tile[k];\n".repeat(UNROLLED);
    let source = format!(
        "@group(0) @binding(0) var<uniform> loops: u32;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<workgroup> tile: array<vec4f, {INVOCATIONS}>;
@compute @workgroup_size({INVOCATIONS})
fn workgroup_memory(@builtin(local_invocation_id) at: vec3u, @builtin(workgroup_id) group: vec3u) {{
    tile[at.x] = vec4f(f32(at.x));
    workgroupBarrier();
    var k = at.x;
    var sum = vec4f();
    for (var i = 0u; i < loops; i++) {{ {body} }}
    y[group.x * {INVOCATIONS}u + at.x] = sum.x + sum.y + sum.z + sum.w;
}}"
    );
    Kernel::new("workgroup_memory", &source).expect("the WGSL is valid")
});

/// The rates of arithmetic and of workgroup memory.
pub fn arithmetic(bench: &mut Bench<'_>) -> Result<()> {
    let Some(gpu) = bench.device.as_gpu() else {
        return arithmetic_of_cpu(bench);
    };
    let workgroups = WORKGROUPS[usize::from(bench.is_small)];
    let y = &gpu.floats(&[workgroups * INVOCATIONS])?;
    let steps = f64::from(LOOPS) * (UNROLLED * workgroups * INVOCATIONS) as f64;
    let flops = 2.0 * steps * (ACCUMULATORS * LANES) as f64;
    let bytes = steps * (LANES * size_of::<f32>()) as f64;
    warm_up(bench.device, gpu, y, workgroups)?;
    let mut kernels = vec![("fma f32", &*FMA_F32, flops, Unit::Flops)];
    if bench.has_f16 {
        kernels.push(("fma f16", &*FMA_F16, flops, Unit::Flops));
    }
    kernels.push(("workgroup memory, reads", &*WORKGROUP, bytes, Unit::Bytes));
    for (name, kernel, amount, unit) in kernels {
        // The ceilings are measured even if there is no time, because shares depend on them.
        let time = bench.time_one(Box::new(move |_| launch(gpu, kernel, y, workgroups)))?;
        let row = bench.row(Part::Ceilings, name, time, Some((amount, unit)));
        match name {
            "fma f32" => bench.ceilings.f32 = row.rate,
            "fma f16" => bench.ceilings.f16 = row.rate,
            _ => {}
        }
        bench.add(row);
    }
    Ok(())
}

fn launch(gpu: &Gpu, kernel: &'static Kernel, y: &Tensor, workgroups: usize) -> Result<Tensor> {
    let launch = gpu.launch(kernel).write("y", y, ..);
    launch.run(|_| ([LOOPS], Grid::Workgroups(workgroups)))?;
    Ok(y.clone())
}

fn warm_up(device: &Device, gpu: &Gpu, y: &Tensor, workgroups: usize) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < WARM_UP {
        let work: super::timer::Work<'_> = Box::new(|_| launch(gpu, &FMA_F32, y, workgroups));
        seconds(device, &work, 8)?;
    }
    Ok(())
}

/// The CPU's ceiling is its largest product, since no kernel of it is written for this purpose.
fn arithmetic_of_cpu(bench: &mut Bench<'_>) -> Result<()> {
    let device = bench.device;
    let n = CPU_PRODUCT;
    let x = &device.run(noise(&[n, n]))?;
    let time = bench.time_one(Box::new(move |_| device.run(Gemm::new(x, x))))?;
    let flops = 2.0 * (n * n * n) as f64;
    let name = format!("product of {n} x {n} x {n}, f32");
    let row = bench.row(Part::Ceilings, name, time, Some((flops, Unit::Flops)));
    bench.ceilings.f32 = row.rate;
    bench.add(row);
    Ok(())
}

/// Uniform random numbers in [-1, 1).
pub fn noise(shape: &[usize]) -> Uniform<'_> {
    Uniform {
        key: NoiseKey { seed: 0, stream: 0 },
        low: -1.0,
        high: 1.0,
        shape,
    }
}

/// Copies, reads and writes of large tensors.
pub fn memory(bench: &mut Bench<'_>) -> Result<()> {
    let device = bench.device;
    let mebibytes: [usize; 2] = if bench.is_small { [4, 32] } else { [64, 1024] };
    for mib in mebibytes {
        if bench.ceilings.copy.is_some() && !bench.has_time(&format!("memory, {mib} MiB")) {
            continue;
        }
        let shape = [mib << 18];
        let tensors = (0..TURNS).map(|_| Tensor::zeros(&shape, DType::F32, device));
        let tensors = &tensors.collect::<Result<Vec<Tensor>>>()?;
        let bytes = (mib << 20) as f64;
        let x = |i: usize| &tensors[i % TURNS];
        let value = &Tensor::from_slice(&[1.0f32], &[1], device)?;
        let shape = &shape;
        let times: [(&str, f64, Time); 3] = [
            (
                "copy",
                2.0 * bytes,
                bench.time_one(Box::new(move |i| device.run(CopyTensor { x: x(i) })))?,
            ),
            (
                "read",
                bytes,
                bench.time_one(Box::new(move |i| device.run(Sum { x: x(i) })))?,
            ),
            (
                "write",
                bytes,
                bench.time_one(Box::new(move |_| device.run(Broadcast { value, shape })))?,
            ),
        ];
        for (name, bytes, time) in times {
            let name = format!("{name} {mib} MiB");
            let row = bench.row(Part::Memory, name, time, Some((bytes, Unit::Bytes)));
            // The larger one, which no cache holds; in the small form, that of the kernels' size.
            let is_ceiling = bench.ceilings.copy.is_none() || !bench.is_small;
            if row.name.starts_with("copy") && is_ceiling {
                bench.ceilings.copy = row.rate;
            }
            bench.add(row);
        }
    }
    Ok(())
}
