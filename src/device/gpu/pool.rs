//! Launches of `shaders/pool.wgsl`.

use super::shaders::pool::{self as kernels, Params};
use super::{EntryPoint, GpuDevice};
use crate::device::kernels::MaxPool;
use crate::device::shapes::{self, Pool2d};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// What a launch reads and writes: tensors of so many elements a plane, read ones first.
struct Planes<'a> {
    planes: usize,
    inputs: &'a [&'a Tensor],
    input_len: usize,
    outputs: &'a [&'a Tensor],
    output_len: usize,
    /// Of the activations.
    dtype: DType,
}

/// Records `entry` over ranges of planes that fit the bindings.
fn launch(
    device: &GpuDevice,
    operation: &'static str,
    entry: &'static EntryPoint,
    params: Params,
    tensors: Planes<'_>,
) -> Result<()> {
    let lens = [tensors.input_len, tensors.output_len];
    for (start, count) in device.row_ranges(operation, tensors.planes, &lens, usize::MAX)? {
        let mut params = Params {
            count: (count * tensors.output_len) as u32,
            ..params
        };
        let mut parts = Vec::with_capacity(4);
        for x in tensors.inputs {
            let len = tensors.input_len;
            let (part, offset) = device.part_from(operation, "x", x, start * len, count * len)?;
            match x.dtype() {
                DType::U32 => params.places_offset = offset as u32,
                _ => params.in_offset = offset as u32,
            }
            parts.push(part);
        }
        for y in tensors.outputs {
            let len = tensors.output_len;
            let (part, offset) = device.part_from(operation, "y", y, start * len, count * len)?;
            match y.dtype() {
                DType::U32 => params.places_offset = offset as u32,
                _ => params.out_offset = offset as u32,
            }
            parts.push(part);
        }
        let workgroups = (count * tensors.output_len).div_ceil(256);
        device.launch_for(tensors.dtype, entry, params, &parts, workgroups)?;
    }
    Ok(())
}

/// What the kernels are told of a pooling of planes `h` x `w` into `oh` x `ow`.
fn params([h, w]: [usize; 2], [oh, ow]: [usize; 2], pool: Pool2d) -> Params {
    Params {
        count: 0,
        in_offset: 0,
        out_offset: 0,
        places_offset: 0,
        h: h as u32,
        w: w as u32,
        oh: oh as u32,
        ow: ow as u32,
        kernel: pool.kernel as u32,
        stride: pool.stride as u32,
        padding: pool.padding as u32,
    }
}

/// The pooling of a whole plane into one number.
fn global([h, w]: [usize; 2]) -> Params {
    let whole = Pool2d {
        kernel: 0,
        stride: 1,
        padding: 0,
    };
    params([h, w], [1, 1], whole)
}

pub(super) fn max_pool2d(device: &GpuDevice, x: &Tensor, pool: Pool2d) -> Result<MaxPool> {
    let operation = "max_pool2d";
    shapes::activations(operation, "x", x)?;
    let [n, c, h, w] = x.nchw(operation, "x")?;
    let shape = shapes::pool2d(operation, [n, c, h, w], pool)?;
    let y = device.allocate(&shape, x.dtype())?;
    let argmax = device.allocate(&shape, DType::U32)?;
    let tensors = Planes {
        planes: n * c,
        inputs: &[x],
        input_len: h * w,
        outputs: &[&y, &argmax],
        output_len: shape[2] * shape[3],
        dtype: x.dtype(),
    };
    let params = params([h, w], [shape[2], shape[3]], pool);
    launch(device, operation, &kernels::MAX_POOL2D, params, tensors)?;
    Ok(MaxPool { y, argmax })
}

pub(super) fn max_pool2d_backward(
    device: &GpuDevice,
    dy: &Tensor,
    argmax: &Tensor,
    x_shape: [usize; 4],
    pool: Pool2d,
) -> Result<Tensor> {
    let operation = "max_pool2d_backward";
    let [n, c, h, w] = x_shape;
    let shape = shapes::pool2d(operation, x_shape, pool)?;
    shapes::activations(operation, "dy", dy)?;
    dy.expect(operation, "dy", &shape, dy.dtype())?;
    argmax.expect(operation, "argmax", &shape, DType::U32)?;
    let dx = device.allocate(&x_shape, dy.dtype())?;
    let tensors = Planes {
        planes: n * c,
        inputs: &[dy, argmax],
        input_len: shape[2] * shape[3],
        outputs: &[&dx],
        output_len: h * w,
        dtype: dy.dtype(),
    };
    let params = params([h, w], [shape[2], shape[3]], pool);
    let entry = &kernels::MAX_POOL2D_BACKWARD;
    launch(device, operation, entry, params, tensors)?;
    Ok(dx)
}

pub(super) fn global_average_pool(device: &GpuDevice, x: &Tensor) -> Result<Tensor> {
    let operation = "global_average_pool";
    let [n, c, h, w] = shapes::batch_norm_input(operation, "x", x)?;
    let y = device.floats(&[n, c])?;
    let tensors = Planes {
        planes: n * c,
        inputs: &[x],
        input_len: h * w,
        outputs: &[&y],
        output_len: 1,
        dtype: x.dtype(),
    };
    let entry = &kernels::GLOBAL_AVERAGE_POOL;
    launch(device, operation, entry, global([h, w]), tensors)?;
    Ok(y)
}

pub(super) fn global_average_pool_backward(
    device: &GpuDevice,
    dy: &Tensor,
    x_shape: [usize; 4],
    x_dtype: DType,
) -> Result<Tensor> {
    let operation = "global_average_pool_backward";
    shapes::activation_type(operation, "x", x_dtype)?;
    let [n, c, h, w] = x_shape;
    dy.expect(operation, "dy", &[n, c], DType::F32)?;
    shapes::check_elements(operation, &x_shape)?;
    let dx = device.allocate(&x_shape, x_dtype)?;
    let tensors = Planes {
        planes: n * c,
        inputs: &[dy],
        input_len: 1,
        outputs: &[&dx],
        output_len: h * w,
        dtype: x_dtype,
    };
    let entry = &kernels::GLOBAL_AVERAGE_POOL_BACKWARD;
    launch(device, operation, entry, global([h, w]), tensors)?;
    Ok(dx)
}
