//! Each convolution shape of a ResNet-50 in each direction, variant and type, and the kernels whose
//! rate the memory bounds.

use super::ceilings::noise;
use super::timer::Work;
use super::{Bench, Part, Unit};
use crate::device::gpu::variants::{Operation, ShapeClass, Variant, VariantTable};
use crate::device::{Device, Gpu};
use crate::error::Result;
use crate::nn::{Arch, ResNetConfig, Stem};
use crate::ops::conv2d::ConvGeometry;
use crate::ops::{
    Accumulate, Activation, AdamStep, AdamUpdate, Add, BatchNorm, BatchNormBackward,
    BatchNormStatistics, Cast, ChannelNorm, CheckFinite, Conv2d, Conv2dDw, Conv2dDx, Gemm, Linear,
    Relu, ReluBackward, Statistics, transposed,
};
use crate::tensor::{DType, Tensor};

/// Side of the images.
const SIDE: usize = 32;
/// FLOP per product or convolution, on hardware and in the small form.
const FLOPS: [u64; 2] = [40_000_000_000, 50_000_000];
/// Images of the tensors of kernels whose rate the memory bounds, likewise.
const IMAGES: [usize; 2] = [128, 4];
/// The shape of one image of these tensors.
const IMAGE: [usize; 3] = [256, 32, 32];
/// Rows, inputs and outputs of the projector's first layer, likewise.
const PRODUCT: [[usize; 3]; 2] = [[512, 2048, 2048], [64, 256, 256]];

pub fn measure(bench: &mut Bench<'_>) -> Result<()> {
    products(bench)?;
    memory_bound(bench)?;
    convolutions(bench)
}

/// A call whose variants are measured.
struct Problem<'a> {
    name: String,
    class: ShapeClass,
    dtype: DType,
    flops: f64,
    work: Box<dyn Fn() -> Result<Tensor> + 'a>,
}

/// Random activations.
fn activations(device: &Device, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let x = &device.run(noise(shape))?;
    device.run(Cast { x, dtype })
}

fn dtypes(bench: &Bench<'_>) -> Vec<DType> {
    let all = [DType::F32, DType::F16].into_iter();
    all.filter(|dtype| *dtype == DType::F32 || bench.has_f16)
        .collect()
}

fn convolutions(bench: &mut Bench<'_>) -> Result<()> {
    let device = bench.device;
    let network = ResNetConfig {
        arch: Arch::ResNet50,
        stem: Stem::Cifar { padding: 1 },
        width: 1.0,
    };
    let mut geometries: Vec<ConvGeometry> = Vec::new();
    for g in network.shape()?.geometries(SIDE)? {
        if !geometries.contains(&g) {
            geometries.push(g);
        }
    }
    for g in geometries {
        let flops = FLOPS[usize::from(bench.is_small)];
        let n = (flops / g.flops().max(1)).clamp(1, 512) as usize;
        let g = ConvGeometry { n, ..g };
        let shape = format!(
            "{}x{}/{} {} to {}, {n} x {}x{}",
            g.kh, g.kw, g.stride, g.c, g.o, g.oh, g.ow
        );
        for dtype in dtypes(bench) {
            if !bench.has_time(&format!("convolutions {shape}, {dtype}")) {
                continue;
            }
            let x = &activations(device, &g.x_shape(), dtype)?;
            let dy = &activations(device, &g.y_shape(), dtype)?;
            let w = &device.run(noise(&g.w_shape()))?;
            let options = g.options();
            let (x_shape, w_shape) = (g.x_shape(), g.w_shape());
            let problem = |operation: Operation, work| Problem {
                name: format!("{} {shape}, {dtype}", operation.name()),
                class: g.class(operation).with_f16_factors(dtype == DType::F16),
                dtype,
                flops: g.flops() as f64,
                work,
            };
            let forward = move || device.run(Conv2d { x, w, options });
            let dx = move || {
                device.run(Conv2dDx {
                    dy,
                    w,
                    x_shape,
                    options,
                })
            };
            let dw = move || {
                device.run(Conv2dDw {
                    dy,
                    x,
                    w_shape,
                    options,
                })
            };
            for problem in [
                problem(Operation::Conv2d, Box::new(forward)),
                problem(Operation::Conv2dDx, Box::new(dx)),
                problem(Operation::Conv2dDw, Box::new(dw)),
            ] {
                if bench.has_time(&problem.name) {
                    time_variants(bench, &problem)?;
                }
            }
        }
    }
    Ok(())
}

/// The products of a projector of 2048 inputs, forward and backward.
fn products(bench: &mut Bench<'_>) -> Result<()> {
    let device = bench.device;
    let [rows, inputs, outputs] = PRODUCT[usize::from(bench.is_small)];
    let x = &device.run(noise(&[rows, inputs]))?;
    let dy = &device.run(noise(&[rows, outputs]))?;
    let w = &device.run(noise(&[outputs, inputs]))?;
    let bias = &device.run(noise(&[outputs]))?;
    let flops = 2.0 * (rows * inputs * outputs) as f64;
    let problem = |operation: Operation, what: &str, sizes: [usize; 3], work| Problem {
        name: format!(
            "{} {what} {rows}x{inputs} to {outputs}, f32",
            operation.name()
        ),
        class: ShapeClass::product(operation, sizes),
        dtype: DType::F32,
        flops,
        work,
    };
    let forward = move || device.run(Linear { x, w, bias });
    let dx = move || device.run(Gemm::new(dy, w));
    let dw = move || device.run(Gemm::new(transposed(dy), x));
    for problem in [
        problem(
            Operation::Linear,
            "forward",
            [rows, outputs, inputs],
            Box::new(forward) as _,
        ),
        problem(
            Operation::Gemm,
            "dx",
            [rows, inputs, outputs],
            Box::new(dx) as _,
        ),
        problem(
            Operation::Gemm,
            "dw",
            [outputs, inputs, rows],
            Box::new(dw) as _,
        ),
    ] {
        if bench.has_time(&problem.name) {
            time_variants(bench, &problem)?;
        }
    }
    Ok(())
}

/// Times the variants of a problem in turn. A variant that launches the same kernels as an earlier
/// one, which it falls back to, is left out.
fn time_variants(bench: &mut Bench<'_>, problem: &Problem<'_>) -> Result<()> {
    let device = bench.device;
    let variants = match device.as_gpu() {
        Some(gpu) => distinct_variants(gpu, problem)?,
        None => vec![None],
    };
    let use_variant = |device: &Device, i: usize| {
        if let (Some(gpu), Some(variant)) = (device.as_gpu(), variants[i]) {
            gpu.use_variants(VariantTable::only(variant, gpu.variants().key));
        }
    };
    let works: Vec<Work<'_>> = variants
        .iter()
        .map(|_| -> Work<'_> { Box::new(|_| (problem.work)()) })
        .collect();
    let bytes = work_of(device, &works[0])?[1];
    let times = bench.time(&works, &use_variant)?;
    drop(works);
    for (variant, time) in variants.into_iter().zip(times) {
        let amount = Some((problem.flops, Unit::Flops));
        let mut row = bench.row(Part::Kernels, &problem.name, time, amount);
        let ceiling = match problem.dtype {
            DType::F16 => bench.ceilings.f16,
            _ => bench.ceilings.f32,
        };
        row.variant = variant;
        row.class = variant.map(|_| problem.class);
        row.share = row.rate.zip(ceiling).map(|(rate, ceiling)| rate / ceiling);
        row.intensity = Some(problem.flops / bytes);
        bench.add(row);
    }
    Ok(())
}

/// The variants that launch other kernels than those before them.
fn distinct_variants(gpu: &Gpu, problem: &Problem<'_>) -> Result<Vec<Option<Variant>>> {
    let mut seen: Vec<Vec<String>> = Vec::new();
    let mut distinct = Vec::new();
    for variant in Variant::ALL.into_iter().filter(|v| gpu.has(*v)) {
        gpu.use_variants(VariantTable::only(variant, gpu.variants().key));
        gpu.start_timing();
        let ran = (problem.work)();
        let timed = gpu.stop_timing()?;
        ran?;
        let kernels: Vec<String> = timed.into_iter().map(|kernel| kernel.name).collect();
        // Without timestamps, the kernels are not known.
        if kernels.is_empty() || !seen.contains(&kernels) {
            distinct.push(Some(variant));
            seen.push(kernels);
        }
    }
    Ok(distinct)
}

/// FLOP and bytes of one call, as profiles count them.
fn work_of(device: &Device, work: &Work<'_>) -> Result<[f64; 2]> {
    device.start_recording();
    let ran = work(0);
    let recording = device.stop_recording()?;
    ran?;
    let sum = |of: fn(&crate::device::profiler::Work) -> u64| {
        let calls = recording.calls.iter();
        calls.map(|call| of(&call.work)).sum::<u64>() as f64
    };
    Ok([sum(|work| work.flops), sum(|work| work.bytes).max(1.0)])
}

fn memory_bound(bench: &mut Bench<'_>) -> Result<()> {
    let device = bench.device;
    let images = IMAGES[usize::from(bench.is_small)];
    let [c, h, w] = IMAGE;
    let shape = [images, c, h, w];
    for dtype in dtypes(bench) {
        let new = || activations(device, &shape, dtype);
        let (x, y, dy) = (&new()?, &new()?, &new()?);
        let channels = || device.run(noise(&[c]));
        let norm = &ChannelNorm {
            statistics: device.run(BatchNormStatistics { x })?,
            gamma: channels()?,
            beta: channels()?,
            eps: 1e-5,
        };
        let flag = &Tensor::zeros(&[1], DType::U32, device)?;
        let moments = [x, y, dy].map(|x| {
            device.run(Cast {
                x,
                dtype: DType::F32,
            })
        });
        let [parameter, first, second] = &match moments {
            [Ok(parameter), Ok(first), Ok(second)] => [parameter, first, second],
            _ => continue,
        };
        let step = AdamStep {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            gradient_scale: 1.0,
            step: 1,
        };
        let mut kernels: Vec<(&str, Work<'_>)> = vec![
            ("relu", Box::new(|_| device.run(Relu { x }))),
            (
                "relu_backward",
                Box::new(|_| {
                    let dy = dy.clone();
                    device.run(ReluBackward { dy, y })
                }),
            ),
            ("add", Box::new(|_| device.run(Add { a: x, b: y }))),
            (
                "accumulate",
                Box::new(|_| {
                    let sum = y.clone();
                    device.run(Accumulate { sum, x })
                }),
            ),
            (
                "batch_norm_statistics",
                Box::new(|_| Ok(device.run(BatchNormStatistics { x })?.mean)),
            ),
            (
                "batch_norm, relu",
                Box::new(|_| {
                    device.run(BatchNorm {
                        x,
                        norm,
                        activation: Activation::Relu,
                    })
                }),
            ),
            (
                "batch_norm_backward, relu",
                Box::new(|_| {
                    let gradients = device.run(BatchNormBackward {
                        dy: dy.clone(),
                        x: x.clone(),
                        norm,
                        activation: Activation::Relu,
                        statistics: Statistics::OfTheBatch,
                    });
                    Ok(gradients?.dx)
                }),
            ),
        ];
        kernels.push((
            "check_finite",
            Box::new(|_| {
                device.run(CheckFinite { x, flag })?;
                Ok(flag.clone())
            }),
        ));
        if dtype == DType::F32 {
            kernels.push((
                "adam_update",
                Box::new(|_| {
                    device.run(AdamUpdate {
                        step,
                        parameter,
                        gradient: x,
                        first_moment: first,
                        second_moment: second,
                        gate: None,
                    })?;
                    Ok(parameter.clone())
                }),
            ));
        }
        for (name, work) in kernels {
            let name = format!("{name} {images}x{c}x{h}x{w}, {dtype}");
            if !bench.has_time(&name) {
                continue;
            }
            let [flops, bytes] = work_of(device, &work)?;
            let time = bench.time_one(work)?;
            let mut row = bench.row(Part::Kernels, name, time, Some((bytes, Unit::Bytes)));
            let share = row.rate.zip(bench.ceilings.copy);
            row.share = share.map(|(rate, copy)| rate / copy);
            row.intensity = Some(flops / bytes);
            bench.add(row);
        }
    }
    Ok(())
}
