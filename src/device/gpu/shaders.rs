//! The expanded shaders, with what the build script read off them (`build.rs`).

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
}

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
