//! What Rust must know of a shader: its entry points, the bindings that each uses, and its uniform struct.

use std::fmt::Write as _;

use naga::valid::{Capabilities, GlobalUse, ValidationFlags, Validator};
use naga::{AddressSpace, ScalarKind, StorageAccess, TypeInner};

pub struct Reflected {
    pub entry_points: Vec<EntryPoint>,
    /// Fields of the uniform struct `Params` at binding 0, with their Rust types; empty where there is none.
    params: Vec<(String, &'static str)>,
}

pub struct EntryPoint {
    pub name: String,
    workgroup_size: [u32; 3],
    /// Binding number and whether the shader writes it, in the order of the numbers; the uniform is left out.
    storage: Vec<(u32, bool)>,
    uses_params: bool,
}

/// Parses and validates `source`.
pub fn reflect(source: &str) -> Result<Reflected, String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(source))?;
    let mut params = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        if variable.space == AddressSpace::Uniform {
            params = uniform_fields(&module, variable)?;
        }
    }
    let entry_points = module
        .entry_points
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            let usage = info.get_entry_point(index);
            let mut storage = Vec::new();
            let mut uses_params = false;
            for (handle, variable) in module.global_variables.iter() {
                if (usage[handle] & (GlobalUse::READ | GlobalUse::WRITE)).is_empty() {
                    continue;
                }
                match (variable.space, &variable.binding) {
                    (AddressSpace::Storage { access }, Some(binding)) => {
                        storage.push((binding.binding, access.contains(StorageAccess::STORE)));
                    }
                    (AddressSpace::Uniform, Some(_)) => uses_params = true,
                    _ => {}
                }
            }
            storage.sort_unstable();
            Ok(EntryPoint {
                name: entry.name.clone(),
                workgroup_size: entry.workgroup_size,
                storage,
                uses_params,
            })
        })
        .collect::<Result<_, String>>()?;
    Ok(Reflected {
        entry_points,
        params,
    })
}

fn uniform_fields(
    module: &naga::Module,
    variable: &naga::GlobalVariable,
) -> Result<Vec<(String, &'static str)>, String> {
    if variable
        .binding
        .is_none_or(|b| b.group != 0 || b.binding != 0)
    {
        return Err("the uniform must stand at @group(0) @binding(0)".to_string());
    }
    let TypeInner::Struct { members, .. } = &module.types[variable.ty].inner else {
        return Err("the uniform must be a struct".to_string());
    };
    members
        .iter()
        .map(|member| {
            let name = member
                .name
                .clone()
                .ok_or("a field of the uniform has no name")?;
            let kind = match &module.types[member.ty].inner {
                TypeInner::Scalar(scalar) if scalar.width == 4 => match scalar.kind {
                    ScalarKind::Uint => "u32",
                    ScalarKind::Sint => "i32",
                    ScalarKind::Float => "f32",
                    _ => return Err(format!("uniform field {name}: only u32, i32 and f32")),
                },
                _ => return Err(format!("uniform field {name}: only u32, i32 and f32")),
            };
            Ok((name, kind))
        })
        .collect()
}

impl Reflected {
    /// A Rust module with the uniform's struct and a static for each entry point. `twin` is the same shader for f16
    /// activations, where there is one, with its module's name.
    pub fn rust_module(
        &self,
        name: &str,
        index: usize,
        twin: Option<(&str, &Reflected)>,
    ) -> String {
        let mut out = format!("pub mod {name} {{\n");
        if !self.params.is_empty() {
            out += "    #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]\n    #[repr(C)]\n";
            out += "    pub struct Params {\n";
            for (field, kind) in &self.params {
                writeln!(out, "        pub {field}: {kind},").expect("a string takes it");
            }
            out += "    }\n";
        }
        for entry in &self.entry_points {
            let constant = entry.name.to_uppercase();
            let has_it =
                |shader: &Reflected| shader.entry_points.iter().any(|e| e.name == entry.name);
            let twin = match twin {
                Some((twin, shader)) if has_it(shader) => {
                    format!("Some(&super::{twin}::{constant})")
                }
                _ => "None".to_string(),
            };
            writeln!(
                out,
                "    pub static {constant}: super::EntryPoint = super::EntryPoint {{ shader: {index}, name: {:?}, \
                 workgroup_size: {:?}, uses_params: {}, storage: &{:?}, f16: {twin} }};",
                entry.name,
                entry.workgroup_size,
                entry.uses_params,
                entry.storage,
            )
            .expect("a string takes it");
        }
        out + "}\n"
    }
}
