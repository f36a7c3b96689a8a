//! An operation from outside of the crate, for both kinds of device: softplus,
//! `y = ln(1 + exp(x))`, with the gradient `dx = dy / (1 + exp(-x))`. Compares the gradient with
//! central differences on the CPU, and on the named device if that is a GPU.
//!
//! `cargo run --example custom_op -- [cpu|gpu|auto|ADAPTER]`

use std::sync::LazyLock;

use parallax::autograd::Var;
use parallax::autograd::gradcheck::{Leaf, relative_errors};
use parallax::device::gpu::{Grid, Kernel};
use parallax::device::{Check, Cpu, Gpu, Op, RunOn};
use parallax::{Device, Result, Tensor};

const WGSL: &str = "
@group(0) @binding(0) var<uniform> count: u32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn softplus(@builtin(global_invocation_id) at: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let i = at.y * groups.x * 64u + at.x;
    if i < count {
        y[i] = max(x[i], 0.0) + log(1.0 + exp(-abs(x[i])));
    }
}

@compute @workgroup_size(64)
fn softplus_backward(@builtin(global_invocation_id) at: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let i = at.y * groups.x * 64u + at.x;
    if i < count {
        y[i] = dy[i] / (1.0 + exp(-x[i]));
    }
}
";

/// The kernels of the forward and of the backward pass.
static KERNELS: LazyLock<[Kernel; 2]> = LazyLock::new(|| {
    ["softplus", "softplus_backward"]
        .map(|name| Kernel::new(name, WGSL).expect("the WGSL is valid"))
});

/// The forward pass, or the backward pass if there is a `dy`.
struct Softplus<'a> {
    x: &'a Tensor,
    dy: Option<&'a Tensor>,
}

impl Op for Softplus<'_> {
    const NAME: &'static str = "softplus";
    type Sizes = ();
    type Output = Tensor;

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.f32("x", self.x)?;
        match self.dy {
            Some(dy) => check.same(("x", self.x), ("dy", dy)),
            None => Ok(()),
        }
    }

    fn flops(&self, _: ()) -> u64 {
        4 * self.x.len() as u64
    }

    fn label(&self, _: ()) -> Option<String> {
        self.dy.map(|_| "backward".to_string())
    }
}

impl RunOn<Cpu> for Softplus<'_> {
    fn run(&self, cpu: &Cpu, _: ()) -> Result<Tensor> {
        let x = cpu.read(self.x)?;
        let dy = self.dy.map(|dy| cpu.read(dy)).transpose()?;
        Ok(cpu.filled(self.x.shape(), |y| {
            for (i, y) in y.iter_mut().enumerate() {
                *y = match &dy {
                    Some(dy) => dy[i] / (1.0 + (-x[i]).exp()),
                    None => x[i].max(0.0) + (-x[i].abs()).exp().ln_1p(),
                };
            }
        }))
    }
}

impl RunOn<Gpu> for Softplus<'_> {
    fn run(&self, gpu: &Gpu, _: ()) -> Result<Tensor> {
        let y = gpu.floats(self.x.shape())?;
        let kernel = &KERNELS[usize::from(self.dy.is_some())];
        let mut launch = gpu.launch(kernel).elements(self.x.len());
        launch = launch.read("x", self.x, 1).write("y", &y, 1);
        if let Some(dy) = self.dy {
            launch = launch.read("dy", dy, 1);
        }
        launch.run(|slice| ([slice.rows as u32], Grid::Invocations(slice.rows)))?;
        Ok(y)
    }
}

/// `ln(1 + exp(x))` of each element. Saves `x`.
fn softplus(x: &Var) -> Result<Var> {
    let saved = x.tensor().clone();
    let y = x.device().run(Softplus {
        x: &saved,
        dy: None,
    })?;
    Var::record(Softplus::NAME, y, [("x", x)], move |device, dy| {
        let (x, dy) = (&saved, Some(&dy));
        Ok([device.run(Softplus { x, dy })?])
    })
}

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or("auto".to_string());
    let named = Some(Device::open(&name)?).filter(|device| device.as_gpu().is_some());
    let values = [-5.0f32, -1.0, -0.1, 0.0, 0.5, 2.0, 5.0];
    for device in [Device::cpu()].into_iter().chain(named) {
        let x = Tensor::from_slice(&values, &[values.len()], &device)?;
        let y = softplus(&Var::from(x))?.tensor().to_vec::<f32>()?;
        println!("{}: softplus of {values:?} is {y:?}", device.name());
        let leaf = Leaf::new(&[values.len()], values.to_vec());
        let error = relative_errors(&device, &[leaf], 1e-2, |x| softplus(&x[0]))?[0];
        println!("its gradient differs from central differences by {error:.1e} of its size");
        assert!(error < 2e-3, "the gradient is wrong");
    }
    Ok(())
}
