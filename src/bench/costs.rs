//! The costs of launches on the device and on the host, of transfers, and of compilation.

use std::sync::LazyLock;
use std::time::Instant;

use super::timer::Time;
use super::{Bench, Part, Unit};
use crate::device::Gpu;
use crate::device::gpu::{Grid, Kernel};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Launches per measurement, and tensors that they take turns with.
const LAUNCHES: usize = 1000;
const TENSORS: usize = 64;
/// Rounds per measurement.
const ROUNDS: usize = 5;

static NOTHING: LazyLock<Kernel> =
    LazyLock::new(|| Kernel::new("nothing", &nothing(1)).expect("the WGSL is valid"));

/// A kernel of one invocation, which writes `number`.
fn nothing(number: u32) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64)
fn nothing(@builtin(local_invocation_id) at: vec3u) {{ y[at.x] = {number}u; }}"
    )
}

/// Times `work` in a few rounds; it returns its seconds.
fn rounds(work: impl Fn() -> Result<f64>) -> Result<Time> {
    let mut samples = (0..ROUNDS).map(|_| work()).collect::<Result<Vec<f64>>>()?;
    samples.sort_by(f64::total_cmp);
    Ok(Time {
        min: samples[0],
        median: samples[ROUNDS / 2],
    })
}

pub fn measure(bench: &mut Bench<'_>) -> Result<()> {
    transfers(bench)?;
    let Some(gpu) = bench.device.as_gpu() else {
        return Ok(());
    };
    let tensors = (0..TENSORS).map(|_| gpu.allocate(&[64], DType::U32));
    let tensors = tensors.collect::<Result<Vec<Tensor>>>()?;
    let launch = |y: &Tensor| {
        let launch = gpu.launch(&NOTHING).write("y", y, ..);
        launch.run(|_| ([0u32; 0], Grid::Workgroups(1)))
    };
    // Seconds per launch until all are submitted, and until all have run.
    let launches = |count: usize, is_submitted: bool| -> Result<[f64; 2]> {
        let started = Instant::now();
        for i in 0..LAUNCHES {
            launch(&tensors[i % count])?;
            if is_submitted {
                gpu.submit()?;
            }
        }
        gpu.submit()?;
        let recorded = started.elapsed().as_secs_f64() / LAUNCHES as f64;
        gpu.wait()?;
        Ok([recorded, started.elapsed().as_secs_f64() / LAUNCHES as f64])
    };
    launches(1, false)?;
    launches(TENSORS, false)?;
    for (name, count, is_submitted, index) in [
        ("launch of nothing, one tensor", 1, false, 1),
        ("launch of nothing, 64 tensors in turn", TENSORS, false, 1),
        ("launch of nothing, one submission each", 1, true, 1),
        ("host, recording of a launch", 1, false, 0),
    ] {
        if bench.has_time(name) {
            let time = rounds(|| Ok(launches(count, is_submitted)?[index]))?;
            bench.add(bench.row(Part::Costs, name, time, None));
        }
    }
    if bench.has_time("launch and wait") {
        let time = rounds(|| {
            let started = Instant::now();
            launch(&tensors[0])?;
            gpu.wait()?;
            Ok(started.elapsed().as_secs_f64())
        })?;
        bench.add(bench.row(Part::Costs, "launch and wait", time, None));
    }
    compilation(bench, gpu, &tensors[0])
}

/// Uploads and readbacks of a large tensor.
fn transfers(bench: &mut Bench<'_>) -> Result<()> {
    let device = bench.device;
    let mib: usize = if bench.is_small { 8 } else { 64 };
    let values = vec![1.0f32; mib << 18];
    let shape = [values.len()];
    let amount = Some(((mib << 20) as f64, Unit::Bytes));
    let name = format!("upload {mib} MiB");
    if bench.has_time(&name) {
        let upload = || Tensor::from_slice(&values, &shape, device);
        let time = bench.time_one(Box::new(move |_| upload()))?;
        bench.add(bench.row(Part::Costs, name, time, amount));
    }
    let name = format!("readback {mib} MiB");
    if bench.has_time(&name) {
        let x = Tensor::from_slice(&values, &shape, device)?;
        let time = rounds(|| {
            let started = Instant::now();
            x.read()?.wait()?;
            Ok(started.elapsed().as_secs_f64())
        })?;
        bench.add(bench.row(Part::Costs, name, time, amount));
    }
    Ok(())
}

/// The first launch of a kernel that no cache of the driver can have, and of the same kernel again.
fn compilation(bench: &mut Bench<'_>, gpu: &Gpu, y: &Tensor) -> Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let source = nothing(now.map_or(0, |now| now.subsec_nanos()));
    for name in ["compilation, a new kernel", "compilation, the same kernel"] {
        if !bench.has_time(name) {
            continue;
        }
        // The memory of a kernel is never freed.
        let kernel: &'static Kernel = Box::leak(Box::new(Kernel::new("nothing", &source)?));
        let started = Instant::now();
        let launch = gpu.launch(kernel).write("y", y, ..);
        launch.run(|_| ([0u32; 0], Grid::Workgroups(1)))?;
        // Waits for the compilation.
        gpu.submit()?;
        let seconds = started.elapsed().as_secs_f64();
        let time = Time {
            min: seconds,
            median: seconds,
        };
        bench.add(bench.row(Part::Costs, name, time, None));
    }
    Ok(())
}
