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
    /// Storage bindings in the order of their numbers.
    storage: Vec<Binding>,
    uses_params: bool,
}

/// A storage binding.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Binding {
    number: u32,
    name: String,
    /// Whether the entry point writes it.
    writes: bool,
    /// A variant of `ElementType`.
    element: &'static str,
}

/// The element type of a binding, as a variant of `ElementType`.
fn element_type(module: &naga::Module, ty: naga::Handle<naga::Type>) -> &'static str {
    match &module.types[ty].inner {
        TypeInner::Array { base, .. } => element_type(module, *base),
        TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => {
            match (scalar.kind, scalar.width) {
                (ScalarKind::Float, 2) => "F16",
                (ScalarKind::Float, 4) => "F32",
                _ => "Words",
            }
        }
        _ => "Words",
    }
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
                        storage.push(Binding {
                            number: binding.binding,
                            name: variable.name.clone().unwrap_or_default(),
                            writes: access.contains(StorageAccess::STORE)
                                && usage[handle].contains(GlobalUse::WRITE),
                            element: element_type(&module, variable.ty),
                        });
                    }
                    (AddressSpace::Uniform, Some(_)) => uses_params = true,
                    _ => {}
                }
            }
            storage.sort();
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
            out += &self.params_struct();
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
            let storage: Vec<String> = entry.storage.iter().map(Binding::rust).collect();
            let params = match entry.uses_params {
                true => 4 * self.params.len(),
                false => 0,
            };
            writeln!(
                out,
                "    pub static {constant}: super::Kernel = super::Kernel {{ shader: {index}, name: {:?}, \
                 workgroup_size: {:?}, params: {params}, storage: &[{}], f16: {twin} }};",
                entry.name,
                entry.workgroup_size,
                storage.join(", "),
            )
            .expect("a string takes it");
        }
        out + "}\n"
    }

    /// The uniform as a launch fills it. Sizes are `usize`, and are checked as they become the
    /// shader's 32 bits.
    fn params_struct(&self) -> String {
        let mut out =
            String::from("    #[derive(Clone, Copy, Debug, Default)]\n    pub struct Params {\n");
        for (field, kind) in &self.params {
            let kind = if *kind == "u32" { "usize" } else { kind };
            writeln!(out, "        pub {field}: {kind},").expect("a string takes it");
        }
        out += "    }\n    impl super::Uniform for Params {\n";
        out += "        fn words(&self, out: &mut Vec<u32>) -> Option<()> {\n";
        for (field, kind) in &self.params {
            let word = match *kind {
                "u32" => format!("self.{field}.try_into().ok()?"),
                "i32" => format!("self.{field} as u32"),
                _ => format!("self.{field}.to_bits()"),
            };
            writeln!(out, "            out.push({word});").expect("a string takes it");
        }
        out + "            Some(())\n        }\n    }\n"
    }
}

impl Binding {
    fn rust(&self) -> String {
        format!(
            "super::Binding {{ number: {}, name: {:?}, writes: {}, element: super::ElementType::{} }}",
            self.number, self.name, self.writes, self.element
        )
    }
}
