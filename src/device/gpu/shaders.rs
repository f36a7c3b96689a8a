//! The expanded shaders, with what the build script read off them (`build.rs`).

use sha2::{Digest, Sha256};

use crate::tensor::DType;

/// One expanded WGSL file.
pub struct Shader {
    /// The file's name, with the variant's behind an underscore.
    pub name: &'static str,
    pub source: &'static str,
    pub entry_points: &'static [&'static str],
}

/// One kernel.
pub struct EntryPoint {
    /// Its shader's index in [`SHADERS`].
    pub(super) shader: usize,
    pub(super) name: &'static str,
    pub workgroup_size: [u32; 3],
    pub(super) uses_params: bool,
    /// Storage bindings in order: the number, and whether the kernel writes it.
    pub(super) storage: &'static [(u32, bool)],
    /// The same kernel for f16 activations, where there is one.
    pub(super) f16: Option<&'static EntryPoint>,
}

impl EntryPoint {
    /// The kernel for activations of this type, which its launch has checked.
    pub(super) fn for_activations(&'static self, dtype: DType) -> &'static EntryPoint {
        match dtype {
            DType::F16 => self
                .f16
                .expect("a kernel whose launch takes f16 has a twin"),
            _ => self,
        }
    }
}

/// SHA-256 over every expanded shader, the first 16 digits.
pub fn digest() -> String {
    let mut hasher = Sha256::new();
    for shader in SHADERS {
        hasher.update(shader.name);
        hasher.update([0]);
        hasher.update(shader.source);
        hasher.update([0]);
    }
    let bytes = hasher.finalize();
    bytes[..8].iter().map(|b| format!("{b:02x}")).collect()
}

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
