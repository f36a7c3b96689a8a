//! One operation, step by step: what [`parallax::selftest::step_through`] records, as JSON.

use parallax::device::gpu::Gpu;
use parallax::device::gpu::kernels::SHADERS;
use parallax::device::gpu::variants::{Variant, VariantTable};
use parallax::device::profiler::{KernelLaunch, Trace};
use parallax::ops::Gemm;
use parallax::selftest::{GRADIENT_TOLERANCE, differentiable, step_through};
use parallax::{DType, Tensor};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::{Result, Session, usage};

#[wasm_bindgen]
impl Session {
    /// The names of the operations.
    pub fn operations(&self) -> Vec<String> {
        differentiable().map(str::to_string).to_vec()
    }

    /// The names of the variants of products and convolutions.
    pub fn variants(&self) -> Vec<String> {
        Variant::ALL
            .map(|variant| variant.name().to_string())
            .to_vec()
    }

    /// Records a case of an operation: its cases, shapes, calls and kernel launches.
    pub fn operation(&mut self, name: &str, case: usize, variant: &str) -> Result<String> {
        let (device, operation) = (self.device.clone(), name.to_string());
        let steps = self.with_variant(variant, || step_through(&device, &operation, case))?;
        let about = json!({
            "cases": steps.cases,
            "shapes": steps.shapes,
            "passes": steps.passes.iter().map(calls).collect::<Vec<_>>(),
        });
        self.operation = Some(steps);
        Ok(about.to_string())
    }

    /// The gradients of the last recorded case: by the tape and by differences, for each leaf.
    pub async fn gradients(&mut self) -> Result<String> {
        let steps = self.operation.take();
        let steps = steps.ok_or_else(|| usage("no operation is recorded; select one"))?;
        let gradients = steps.gradients().await?;
        let leaves: Vec<Value> = gradients
            .iter()
            .map(|leaf| {
                json!({
                    "tape": leaf.tape,
                    "differences": leaf.differences,
                    "error": leaf.relative_error(),
                })
            })
            .collect();
        Ok(json!({ "leaves": leaves, "tolerance": GRADIENT_TOLERANCE }).to_string())
    }

    /// The calls of a product of matrices `[m, k] [k, n]`.
    pub fn product(&self, m: usize, n: usize, k: usize, variant: &str) -> Result<String> {
        let zeros = |shape: [usize; 2]| Tensor::zeros(&shape, DType::F32, &self.device);
        let (a, b) = (zeros([m, k])?, zeros([k, n])?);
        let trace = self.with_variant(variant, || {
            self.device.start_trace();
            let result = self.device.run(Gemm::new(&a, &b));
            let trace = self.device.stop_trace();
            result.map(|_| trace)
        })?;
        Ok(Value::from(calls(&trace)).to_string())
    }

    /// The WGSL of a shader.
    pub fn shader(&self, name: &str) -> Result<String> {
        let found = SHADERS.iter().find(|shader| shader.name == name);
        let found = found.ok_or_else(|| usage(&format!("there is no shader {name}")))?;
        Ok(found.source.to_string())
    }

    /// Records work while products and convolutions run `variant`, or those of the adapter's table
    /// if it is empty.
    fn with_variant<T>(
        &self,
        variant: &str,
        record: impl FnOnce() -> parallax::Result<T>,
    ) -> Result<T> {
        let gpu = self.device.as_gpu();
        let before = gpu.map(Gpu::variants);
        if let (Some(gpu), Some(before), false) = (gpu, &before, variant.is_empty()) {
            let variant: Variant = variant.parse().map_err(|e: String| usage(&e))?;
            gpu.use_variants(VariantTable::only(variant, before.key.clone()));
        }
        let result = record();
        if let (Some(gpu), Some(before)) = (gpu, before) {
            gpu.use_variants(before);
        }
        Ok(result?)
    }
}

fn calls(trace: &Trace) -> Vec<Value> {
    let call = |(index, call): (usize, &parallax::device::profiler::Call)| {
        let launches = trace.launches.iter().filter(|launch| launch.call == index);
        json!({
            "name": call.name,
            "inputs": call.work.shapes[0],
            "outputs": call.work.shapes[1],
            "flops": call.work.flops,
            "bytes": call.work.bytes,
            "launches": launches.map(launch).collect::<Vec<_>>(),
        })
    };
    trace.calls.iter().enumerate().map(call).collect()
}

fn launch(launch: &KernelLaunch) -> Value {
    let bindings = launch.bindings.iter();
    let bindings = bindings
        .map(|(name, writes, bytes)| json!({ "name": name, "writes": writes, "bytes": bytes }));
    json!({
        "shader": launch.shader,
        "entryPoint": launch.entry_point,
        "workgroupSize": launch.workgroup_size,
        "workgroupBytes": launch.workgroup_bytes,
        "workgroups": launch.workgroups,
        "bindings": bindings.collect::<Vec<_>>(),
    })
}
