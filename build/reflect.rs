//! Reflection of a shader: its entry points, the bindings that each of them uses, and its uniform.

use std::fmt::Write as _;

use naga::valid::{Capabilities, GlobalUse, ValidationFlags, Validator};
use naga::{AddressSpace, ScalarKind, StorageAccess, TypeInner};

pub struct Reflected {
    pub entry_points: Vec<EntryPoint>,
    /// The fields of the uniform at binding 0 and their types. Empty if there is no uniform.
    params: Vec<(String, &'static str)>,
}

pub struct EntryPoint {
    pub name: String,
    workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    workgroup_bytes: u32,
    /// Rows of its cooperative matrices; 0 if it has none.
    matrix: u32,
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
    let matrix = module.types.iter().find_map(|(_, ty)| match ty.inner {
        TypeInner::CooperativeMatrix { rows, .. } => Some(rows as u32),
        _ => None,
    });
    let entry_points = module
        .entry_points
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            let usage = info.get_entry_point(index);
            let mut storage = Vec::new();
            let mut uses_params = false;
            let mut workgroup_bytes = 0;
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
                    (AddressSpace::WorkGroup, None) => {
                        workgroup_bytes += module.types[variable.ty].inner.size(module.to_ctx());
                    }
                    _ => {}
                }
            }
            storage.sort();
            Ok(EntryPoint {
                name: entry.name.clone(),
                workgroup_size: entry.workgroup_size,
                workgroup_bytes,
                matrix: matrix.unwrap_or(0),
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
        return Err("the uniform must be at @group(0) @binding(0)".to_string());
    }
    let TypeInner::Struct { members, .. } = &module.types[variable.ty].inner else {
        return Err("the uniform must be a struct".to_string());
    };
    let unsupported = |name: &str| format!("uniform field {name}: expected u32, i32 or f32");
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
                    _ => return Err(unsupported(&name)),
                },
                _ => return Err(unsupported(&name)),
            };
            Ok((name, kind))
        })
        .collect()
}

impl Reflected {
    /// A Rust module with the struct of the uniform and one static per entry point. `f16` is the
    /// variant of the shader for f16 activations, if there is one, and the name of its module.
    pub fn rust_module(&self, name: &str, index: usize, f16: Option<(&str, &Reflected)>) -> String {
        let mut out = format!("pub mod {name} {{\n");
        if !self.params.is_empty() {
            out += &self.params_struct();
        }
        for entry in &self.entry_points {
            let constant = entry.name.to_uppercase();
            let has_it =
                |shader: &Reflected| shader.entry_points.iter().any(|e| e.name == entry.name);
            let f16 = match f16 {
                Some((module, shader)) if has_it(shader) => {
                    format!("Some(&super::{module}::{constant})")
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
                 workgroup_size: {:?}, workgroup_bytes: {}, matrix: {}, params: {params}, storage: &[{}], f16: {f16} }};",
                entry.name,
                entry.workgroup_size,
                entry.workgroup_bytes,
                entry.matrix,
                storage.join(", "),
            )
            .expect("writing to a string succeeds");
        }
        out + "}\n"
    }

    /// The struct of the uniform. Sizes are `usize`; the conversion to the shader's `u32` is
    /// checked.
    fn params_struct(&self) -> String {
        let mut out =
            String::from("    #[derive(Clone, Copy, Debug, Default)]\n    pub struct Params {\n");
        for (field, kind) in &self.params {
            let kind = if *kind == "u32" { "usize" } else { kind };
            writeln!(out, "        pub {field}: {kind},").expect("writing to a string succeeds");
        }
        out += "    }\n    impl super::Uniform for Params {\n";
        out += "        fn words(&self, out: &mut Vec<u32>) -> Option<()> {\n";
        for (field, kind) in &self.params {
            let word = match *kind {
                "u32" => format!("self.{field}.try_into().ok()?"),
                "i32" => format!("self.{field} as u32"),
                _ => format!("self.{field}.to_bits()"),
            };
            writeln!(out, "            out.push({word});").expect("writing to a string succeeds");
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
