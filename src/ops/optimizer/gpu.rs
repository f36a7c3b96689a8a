//! Launches of `shaders/optimizer.wgsl`: one invocation updates one vec4.

use super::{AdamUpdate, LarsUpdate, SgdUpdate};
use crate::device::gpu::kernels::optimizer::{self as kernels, Params};
use crate::device::gpu::{Grid, Launch, Slice};
use crate::device::{Gpu, RunOn};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Elements per workgroup of `lars_norms`.
const PART: usize = 4096;

/// The gate, or a new one that is not set.
pub(in crate::ops) fn gate_or_open(gpu: &Gpu, gate: Option<&Tensor>) -> Result<Tensor> {
    match gate {
        Some(gate) => Ok(gate.clone()),
        None => gpu.zeros(&[1], DType::U32),
    }
}

/// Records a launch with these parameters. One invocation updates one vec4.
fn run(launch: Launch<'_>, params: Params) -> Result<()> {
    launch.run(|slice: &Slice<'_>| {
        let count = slice.rows.div_ceil(4);
        (Params { count, ..params }, Grid::Invocations(count))
    })
}

impl RunOn<Gpu> for SgdUpdate<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<()> {
        let gate = gate_or_open(gpu, self.gate)?;
        let launch = gpu
            .launch(&kernels::SGD)
            .elements(self.parameter.len())
            .read("gate", &gate, ..)
            .read("gradient", self.gradient, 1)
            .write("parameter", self.parameter, 1)
            .write("first_moment", self.momentum, 1);
        let params = Params {
            learning_rate: self.step.learning_rate,
            momentum: self.step.momentum,
            nesterov: usize::from(self.step.nesterov),
            first: usize::from(self.step.first),
            weight_decay: self.step.weight_decay,
            unscale: 1.0 / self.step.gradient_scale,
            ..Params::default()
        };
        run(launch, params)
    }
}

impl RunOn<Gpu> for AdamUpdate<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<()> {
        let gate = gate_or_open(gpu, self.gate)?;
        let launch = gpu
            .launch(&kernels::ADAM)
            .elements(self.parameter.len())
            .read("gate", &gate, ..)
            .read("gradient", self.gradient, 1)
            .write("parameter", self.parameter, 1)
            .write("first_moment", self.first_moment, 1)
            .write("second_moment", self.second_moment, 1);
        let [step_size, root] = self.step.corrections();
        let params = Params {
            weight_decay: self.step.weight_decay,
            unscale: 1.0 / self.step.gradient_scale,
            step_size,
            root,
            beta1: self.step.beta1,
            beta2: self.step.beta2,
            eps: self.step.eps,
            ..Params::default()
        };
        run(launch, params)
    }
}

impl RunOn<Gpu> for LarsUpdate<'_> {
    /// No readback: the second launch computes the factors of the third one.
    fn run(&self, gpu: &Gpu, _: ()) -> Result<()> {
        let step = self.step;
        let parts = self.parameter.len().div_ceil(PART);
        let norms = gpu.floats(&[parts, 4])?;
        gpu.launch(&kernels::LARS_NORMS)
            .rows(parts)
            .read("gradient", self.gradient, PART)
            .read("parameter", self.parameter, PART)
            .write("norms", &norms, 4)
            .run(|slice| {
                let elements = slice.elements(self.parameter, PART);
                let params = Params {
                    count: elements.div_ceil(4),
                    elements,
                    norms_offset: slice.offset("norms") / 4,
                    ..Params::default()
                };
                (params, Grid::Workgroups(slice.rows))
            })?;
        let factors = gpu.floats(&[2])?;
        let params = Params {
            weight_decay: step.weight_decay,
            unscale: 1.0 / step.gradient_scale,
            learning_rate: step.learning_rate,
            momentum: step.momentum,
            trust_coefficient: step.trust_coefficient,
            eps: step.eps,
            ..Params::default()
        };
        gpu.launch(&kernels::LARS_FACTORS)
            .read("norms", &norms, ..)
            .write("factors", &factors, ..)
            .run(|_| {
                let params = Params {
                    count: parts,
                    ..params
                };
                (params, Grid::Workgroups(1))
            })?;
        let gate = gate_or_open(gpu, self.gate)?;
        let launch = gpu
            .launch(&kernels::LARS)
            .elements(self.parameter.len())
            .read("gate", &gate, ..)
            .read("factors", &factors, ..)
            .read("gradient", self.gradient, 1)
            .write("parameter", self.parameter, 1)
            .write("first_moment", self.momentum, 1);
        run(launch, params)
    }
}
