//! Expands the imports and variants of the shaders, validates them with naga, reflects their
//! bindings, and writes the table that `src/device/gpu/kernels.rs` includes. A shader error fails
//! the build. Writes the table of recipes that `src/runs/recipes.rs` includes.

#[path = "build/preprocess.rs"]
mod preprocess;
#[path = "build/reflect.rs"]
mod reflect;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=shaders");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-changed=recipes");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets this variable"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets this variable"));
    let wgpu = locked_version(&root.join("Cargo.lock"), "wgpu");
    println!("cargo::rustc-env=PARALLAX_WGPU_VERSION={wgpu}");
    let shaders = generate(&root.join("shaders"), &out.join("shaders.rs"));
    let recipes = list_recipes(&root.join("recipes"), &out.join("recipes.rs"));
    if let Err(message) = shaders.and(recipes) {
        // `cargo::error` reports an error without the output of a panic.
        for line in message.lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

/// The version of `package` in a lock file, or "unlocked" if there is none, as in a dependency.
fn locked_version(lock: &Path, package: &str) -> String {
    let text = fs::read_to_string(lock).unwrap_or_default();
    let mut lines = text.lines();
    let name = format!("name = \"{package}\"");
    let found = lines.by_ref().find(|line| *line == name).and(lines.next());
    found
        .and_then(|line| line.strip_prefix("version = \""))
        .and_then(|line| line.strip_suffix('"'))
        .unwrap_or("unlocked")
        .to_string()
}

/// The files of `folder` with this extension, by name.
fn files_of(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|e| format!("{}: {e}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
    Ok(files)
}

fn list_recipes(folder: &Path, target: &Path) -> Result<(), String> {
    let mut table = String::from("pub static RECIPES: &[Recipe] = &[\n");
    for file in files_of(folder, "toml")? {
        let name = file.file_stem().expect("the file has an extension");
        writeln!(
            table,
            "    Recipe {{ name: {:?}, text: include_str!({file:?}) }},",
            name.to_string_lossy()
        )
        .expect("writing to a string succeeds");
    }
    table += "];\n";
    fs::write(target, table).map_err(|e| format!("{}: {e}", target.display()))
}

fn generate(shaders: &Path, target: &Path) -> Result<(), String> {
    let mut expanded: Vec<(String, String, reflect::Reflected)> = Vec::new();
    for file in files_of(shaders, "wgsl")? {
        let name = file
            .file_stem()
            .expect("the file has an extension")
            .to_string_lossy()
            .to_string();
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        for (variant, source) in preprocess::expand(&text, &shaders.join("shared"))
            .map_err(|e| format!("{}: {e}", file.display()))?
        {
            let module = match variant.as_str() {
                "" => name.clone(),
                variant => format!("{name}_{variant}"),
            };
            let shader = reflect::reflect(&source).map_err(|e| {
                let expanded = target.with_file_name(format!("{module}.wgsl"));
                // If the expanded text cannot be written, the message alone is reported.
                let place = match fs::write(&expanded, &source) {
                    Ok(()) => format!(" (expanded: {})", expanded.display()),
                    Err(_) => String::new(),
                };
                format!("{} variant '{variant}': {e}{place}", file.display())
            })?;
            // Tensors share buffers, and a buffer has one usage per dispatch: see
            // `src/device/gpu/buffers.rs`.
            let source = source.replace("var<storage, read>", "var<storage, read_write>");
            expanded.push((module, source, shader));
        }
    }
    let mut modules = String::new();
    let mut table = String::from("pub static SHADERS: &[Shader] = &[\n");
    for (index, (module, source, shader)) in expanded.iter().enumerate() {
        let entry_points: Vec<&str> = shader
            .entry_points
            .iter()
            .map(|e| e.name.as_str())
            .collect();
        writeln!(
            table,
            "    Shader {{ name: {module:?}, source: {source:?}, entry_points: &{entry_points:?} }},"
        )
        .expect("writing to a string succeeds");
        let f16 = format!("{module}_f16");
        let f16 = expanded.iter().find(|(module, ..)| *module == f16);
        let f16 = f16.map(|(module, _, shader)| (module.as_str(), shader));
        modules += &shader.rust_module(module, index, f16);
    }
    table += "];\n";
    fs::write(target, table + &modules).map_err(|e| format!("{}: {e}", target.display()))
}
