//! The expanded shaders and their kernels, as `build.rs` reflects them.

use std::sync::{PoisonError, RwLock};

use sha2::{Digest, Sha256};
use wgpu::naga::valid::{Capabilities, GlobalUse, ValidationFlags, Validator};
use wgpu::naga::{AddressSpace, ScalarKind, TypeInner};

use super::stream::PARAMS_BYTES;
use crate::error::{Error, Result};
use crate::sha256::hex;

/// One expanded WGSL file.
pub struct Shader {
    /// The name of the file, followed by an underscore and the variant.
    pub name: &'static str,
    pub source: &'static str,
    pub entry_points: &'static [&'static str],
}

/// One entry point of a shader, with its bindings.
pub struct Kernel {
    /// The index of its shader; see [`shader`].
    pub(crate) shader: usize,
    pub(crate) name: &'static str,
    pub(crate) workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub(crate) workgroup_bytes: u32,
    /// Rows of its cooperative matrices; 0 if it has none. The workgroup has four subgroups then.
    pub(crate) matrix: u32,
    /// Bytes of the uniform; 0 if there is none.
    pub(crate) params: usize,
    /// Storage bindings in the order of their numbers.
    pub(crate) storage: &'static [Binding],
    /// The same kernel for f16 activations, if there is one.
    pub(crate) f16: Option<&'static Kernel>,
}

/// A storage binding, as the shader declares it.
pub(crate) struct Binding {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) writes: bool,
    pub(crate) element: ElementType,
}

/// The element type of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType {
    F32,
    F16,
    /// Words of 32 bits, which may hold any type.
    Words,
}

/// The uniform of a kernel. The build script generates one per shader, named `Params`.
pub trait Uniform {
    /// Appends the words of the uniform. Returns `None` if a size does not fit 32 bits.
    fn words(&self, out: &mut Vec<u32>) -> Option<()>;
}

impl<const N: usize> Uniform for [u32; N] {
    fn words(&self, out: &mut Vec<u32>) -> Option<()> {
        out.extend_from_slice(self);
        Some(())
    }
}

/// Maximum invocations per workgroup of a kernel from another crate. Adapters allow up to 1,024.
const MAX_INVOCATIONS: u64 = 1024;

/// Shaders from other crates. Their indices follow those of [`SHADERS`].
static CUSTOM: RwLock<Vec<&'static Shader>> = RwLock::new(Vec::new());

/// The shader with this index, and whether it belongs to this crate.
pub(crate) fn shader(index: usize) -> (&'static Shader, bool) {
    match SHADERS.get(index) {
        Some(shader) => (shader, true),
        None => {
            let custom = CUSTOM.read().unwrap_or_else(PoisonError::into_inner);
            (custom[index - SHADERS.len()], false)
        }
    }
}

impl Kernel {
    /// Whether the limits of an adapter allow the workgroups of this kernel.
    pub(crate) fn runs(&self, limits: &wgpu::Limits) -> bool {
        let invocations: u32 = self.workgroup_size.iter().product();
        invocations <= limits.max_compute_invocations_per_workgroup
            && self.workgroup_bytes <= limits.max_compute_workgroup_storage_size
    }

    /// The entry point `name` of `wgsl`, for an operation of another crate. It runs with the
    /// run-time checks of wgpu. Create it once, in a `LazyLock`: its memory is never freed.
    ///
    /// All bindings are in group 0. A uniform of up to 128 bytes has number 0; the others are
    /// storage buffers. A launch runs workgroups along one dimension: see
    /// [`Grid`](crate::device::gpu::Grid).
    ///
    /// # Errors
    /// `Error::Usage` if `wgsl` is not valid, has no such entry point, or has other bindings.
    pub fn new(name: &'static str, wgsl: &str) -> Result<Kernel> {
        let invalid = |what: String| Error::usage(format!("kernel {name}: {what}"));
        let module = wgpu::naga::front::wgsl::parse_str(wgsl)
            .map_err(|error| invalid(error.emit_to_string(wgsl)))?;
        let info = Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .map_err(|error| invalid(error.emit_to_string(wgsl)))?;
        let position = module.entry_points.iter().position(|e| e.name == name);
        let position =
            position.ok_or_else(|| invalid("there is no such entry point".to_string()))?;
        let usage = info.get_entry_point(position);
        let entry = &module.entry_points[position];
        let invocations = entry.workgroup_size.iter().map(|&n| u64::from(n)).product();
        if entry.workgroup_size_overrides.is_some() || !(1..=MAX_INVOCATIONS).contains(&invocations)
        {
            return Err(invalid(format!(
                "its workgroup has {invocations} invocations; expected a compute shader with a constant workgroup size \
                 of 1 to {MAX_INVOCATIONS}"
            )));
        }
        let (mut storage, mut params, mut workgroup_bytes) = (Vec::new(), 0, 0);
        for (handle, variable) in module.global_variables.iter() {
            let ty = &module.types[variable.ty].inner;
            if variable.space == AddressSpace::WorkGroup && !usage[handle].is_empty() {
                workgroup_bytes += ty.size(module.to_ctx());
            }
            let (false, Some(binding)) = (usage[handle].is_empty(), &variable.binding) else {
                continue;
            };
            let name = variable.name.clone().unwrap_or_default();
            match (variable.space, binding.group, binding.binding) {
                (AddressSpace::Uniform, 0, 0) => params = ty.size(module.to_ctx()) as usize,
                (AddressSpace::Storage { .. }, 0, number) => storage.push(Binding {
                    number,
                    name: name.leak(),
                    writes: usage[handle].intersects(GlobalUse::WRITE | GlobalUse::ATOMIC),
                    element: element_type(&module, ty),
                }),
                (_, group, number) => {
                    return Err(invalid(format!(
                        "{name} is at @group({group}) @binding({number}); expected storage buffers in group 0, and \
                         a uniform at @group(0) @binding(0) only"
                    )));
                }
            }
        }
        if params > PARAMS_BYTES {
            let message =
                format!("its uniform has {params} bytes; expected at most {PARAMS_BYTES}");
            return Err(invalid(message));
        }
        storage.sort_by_key(|binding| binding.number);
        let shader: &'static Shader = Box::leak(Box::new(Shader {
            name,
            source: read_write(&module, wgsl).leak(),
            entry_points: vec![name].leak(),
        }));
        let mut custom = CUSTOM.write().unwrap_or_else(PoisonError::into_inner);
        custom.push(shader);
        Ok(Kernel {
            shader: SHADERS.len() + custom.len() - 1,
            name,
            workgroup_size: entry.workgroup_size,
            workgroup_bytes,
            matrix: 0,
            params,
            storage: storage.leak(),
            f16: None,
        })
    }
}

/// `wgsl` with the access `read_write` for all storage variables, because tensors share buffers:
/// see `buffers.rs`.
fn read_write(module: &wgpu::naga::Module, wgsl: &str) -> String {
    let variables = module.global_variables.iter();
    let storage = variables.filter(|(_, v)| matches!(v.space, AddressSpace::Storage { .. }));
    let mut ranges: Vec<_> = storage
        .filter_map(|(handle, _)| {
            let declared = module.global_variables.get_span(handle).to_range()?;
            let mut words = wgsl[declared.clone()].match_indices("var");
            // `var`, white space, and the template list.
            words.find_map(|(at, word)| {
                let start = declared.start + at + word.len();
                let rest = &wgsl[start..];
                let list = rest
                    .trim_start()
                    .starts_with('<')
                    .then(|| rest.find('>'))??;
                Some(start..start + list + 1)
            })
        })
        .collect();
    ranges.sort_by_key(|range| std::cmp::Reverse(range.start));
    let mut source = wgsl.to_string();
    for range in ranges {
        source.replace_range(range, "<storage, read_write>");
    }
    source
}

fn element_type(module: &wgpu::naga::Module, ty: &TypeInner) -> ElementType {
    match ty {
        TypeInner::Array { base, .. } => element_type(module, &module.types[*base].inner),
        TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => {
            match (scalar.kind, scalar.width) {
                (ScalarKind::Float, 4) => ElementType::F32,
                (ScalarKind::Float, 2) => ElementType::F16,
                _ => ElementType::Words,
            }
        }
        _ => ElementType::Words,
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of all expanded shaders. Comments and indentation
/// do not count, so a change of these keeps tuned tables and compiled pipelines.
pub fn digest() -> String {
    let mut hasher = Sha256::new();
    for shader in SHADERS {
        hasher.update(shader.name);
        hasher.update([0]);
        let lines = shader.source.lines().map(|line| line.split("//").next());
        for line in lines
            .flatten()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            hasher.update(line);
            hasher.update("\n");
        }
        hasher.update([0]);
    }
    hex(&hasher.finalize()[..8])
}

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::{
        Kernel, conv2d_dw_rows, conv2d_dw_tiled_gather_64x64, conv2d_tiled_128x128,
        conv2d_tiled_matrix16, gemm_tiled_elements_64x128, gemm_tiled_matrix8_elements,
        gemm_tiled_vectors_64x64,
    };
    use crate::device::gpu::{Grid, Slice};
    use crate::tensor::{DType, Tensor};
    use crate::testing::devices;

    const DOUBLE: &str = "
@group(0) @binding(0) var<uniform> count: u32;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn doubled(@builtin(global_invocation_id) at: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let i = at.y * groups.x * 64u + at.x;
    if i < count {
        y[i] = 2.0 * x[i];
    }
}
";

    static KERNEL: LazyLock<Kernel> = LazyLock::new(|| Kernel::new("doubled", DOUBLE).unwrap());

    /// The sizes that the headers of the shaders state.
    #[test]
    fn workgroups_are_compared_with_the_limits() {
        for (kernel, bytes, invocations) in [
            (&gemm_tiled_vectors_64x64::GEMM, 16 * 1024, 128),
            (&gemm_tiled_elements_64x128::GEMM_OF_SPLIT, 24 * 1024, 128),
            (&conv2d_tiled_128x128::CONV2D, 32 * 1024, 256),
            (&conv2d_dw_tiled_gather_64x64::PARTIAL, 16 * 1024, 128),
            (&conv2d_dw_rows::PARTIAL, 15_104, 128),
            (&gemm_tiled_matrix8_elements::GEMM_WITH_BIAS, 7_680, 32),
            (&conv2d_tiled_matrix16::CONV2D_OF_SPLIT, 34_816, 128),
            (&super::gemm_plain::GEMM, 0, 64),
        ] {
            let limits = |fewer_bytes: u32, fewer_invocations: u32| wgpu::Limits {
                max_compute_workgroup_storage_size: bytes - fewer_bytes,
                max_compute_invocations_per_workgroup: invocations - fewer_invocations,
                ..Default::default()
            };
            assert!(kernel.runs(&limits(0, 0)), "{}", kernel.name);
            assert!(!kernel.runs(&limits(0, 1)), "{}", kernel.name);
            assert!(bytes == 0 || !kernel.runs(&limits(1, 0)), "{}", kernel.name);
        }
    }

    #[test]
    fn a_kernel_of_another_crate_runs() {
        // Several slices of small bindings, and more workgroups than an adapter runs along x.
        for (count, device) in [
            (40_001, devices::gpu_sliced()),
            (64 * 70_000 + 1, devices::gpu(false)),
        ] {
            let gpu = device.as_gpu().unwrap();
            let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
            let x = Tensor::from_slice(&values, &[count], &device).unwrap();
            let y = gpu.floats(&[count]).unwrap();
            gpu.launch(&KERNEL)
                .elements(count)
                .read("x", &x, 1)
                .write("y", &y, 1)
                .run(|slice| ([slice.rows as u32], Grid::Invocations(slice.rows)))
                .unwrap();
            let doubled: Vec<f32> = values.iter().map(|x| 2.0 * x).collect();
            assert!(y.to_vec::<f32>().unwrap() == doubled, "{count} elements");
        }
    }

    /// Each form of a declaration that is only read, in one dispatch with a written tensor.
    #[test]
    fn every_declaration_of_a_read_binding_runs() {
        let device = devices::gpu(false);
        let gpu = device.as_gpu().unwrap();
        let x = Tensor::from_slice(&[3.0f32; 4], &[4], &device).unwrap();
        for form in [
            "var<storage>",
            "var<storage,read>",
            "var /* x */\n< storage, read >",
        ] {
            let form = form.replace("/* x */", "");
            let wgsl = DOUBLE.replace("var<storage, read>", &form);
            let kernel: &'static Kernel =
                Box::leak(Box::new(Kernel::new("doubled", &wgsl).unwrap()));
            let y = gpu.floats(&[4]).unwrap();
            let launch = gpu.launch(kernel).elements(4);
            let launch = launch.read("x", &x, 1).write("y", &y, 1);
            let run = launch.run(|slice| ([slice.rows as u32], Grid::Invocations(slice.rows)));
            run.expect(&form);
            assert_eq!(y.to_vec::<f32>().unwrap(), [6.0; 4], "{form}");
        }
    }

    #[test]
    fn a_launch_that_does_not_fit_its_kernel_is_an_error() {
        let device = devices::gpu(false);
        let gpu = device.as_gpu().unwrap();
        let zeros = |count| Tensor::zeros(&[count], DType::F32, &device).unwrap();
        let (x, y) = (zeros(100), zeros(100));
        let launch = || gpu.launch(&KERNEL);
        let one = |slice: &Slice<'_>| ([slice.rows as u32], Grid::Invocations(slice.rows));
        let offset = |slice: &Slice<'_>| ([slice.offset("z") as u32], Grid::Invocations(1));
        for (result, words) in [
            (
                launch()
                    .rows(3..9)
                    .read("x", &x, 50)
                    .write("y", &y, 1)
                    .run(one),
                "elements",
            ),
            (
                launch().read("x", &x, 90..101).write("y", &y, ..).run(one),
                "elements 90..101",
            ),
            (
                launch()
                    .read("x", &x, ..)
                    .read("x", &y, ..)
                    .write("y", &y, ..)
                    .run(one),
                "two tensors",
            ),
            (
                launch()
                    .elements(9)
                    .read("x", &x, 5..9)
                    .write("y", &y, 1)
                    .run(one),
                "aligned",
            ),
            (
                launch().read("x", &x, ..).write("y", &y, ..).run(offset),
                "bound to z",
            ),
            (launch().read("x", &x, ..).run(one), "variable y"),
            (
                launch().read("x", &y, ..).write("y", &y, ..).run(one),
                "overlaps x",
            ),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(words), "{words}: {message}");
        }
        // Bytes that do not fill words would be written beyond the tensor.
        assert!(gpu.words(&[1u8; 257]).is_err());
    }

    #[test]
    fn a_kernel_that_cannot_run_is_an_error() {
        for (name, wgsl, words) in [
            ("doubled", "fn doubled(", "expected"),
            ("triple", DOUBLE, "no such entry point"),
            (
                "doubled",
                &DOUBLE.replace("workgroup_size(64)", "workgroup_size(4096, 4096, 4096)"),
                "expected a compute shader",
            ),
            (
                "doubled",
                &format!(
                    "override n: u32 = 64;{}",
                    DOUBLE.replace("size(64)", "size(n)")
                ),
                "constant workgroup size",
            ),
            ("dot", "@fragment fn dot() {}", "expected a compute shader"),
            (
                "doubled",
                &DOUBLE
                    .replace("count: u32", "count: array<vec4u, 9>")
                    .replace("i < count", "i < count[0].x"),
                "its uniform has 144 bytes",
            ),
            (
                "doubled",
                &DOUBLE.replace("binding(0)", "binding(3)"),
                "count is at @group(0) @binding(3)",
            ),
            (
                "doubled",
                &DOUBLE.replace("group(0)", "group(1)"),
                "@group(1)",
            ),
        ] {
            let Err(error) = Kernel::new(name, wgsl) else {
                panic!("{name} of {wgsl} was accepted");
            };
            let message = error.to_string();
            assert!(
                message.contains(name) && message.contains(words),
                "{message}"
            );
        }
    }
}
