//! Expands the shaders' imports and variants, has naga parse and validate every one, reflects their bindings, and
//! writes the table that `src/device/gpu/shaders.rs` includes. An error in a shader is an error of the build.

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
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let wgpu = locked_version(&root.join("Cargo.lock"), "wgpu");
    println!("cargo::rustc-env=PARALLAX_WGPU_VERSION={wgpu}");
    if let Err(message) = generate(&root.join("shaders"), &out.join("shaders.rs")) {
        // `cargo::error` prints the message as the build's error, without a panic's noise.
        for line in message.lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

/// The version of `package` in a lock file; "unlocked" where there is no such file, as where this is a dependency.
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

fn generate(shaders: &Path, target: &Path) -> Result<(), String> {
    let mut files: Vec<PathBuf> = fs::read_dir(shaders)
        .map_err(|e| format!("{}: {e}", shaders.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "wgsl"))
        .collect();
    files.sort();
    let mut expanded: Vec<(String, String, reflect::Reflected)> = Vec::new();
    for file in files {
        let name = file
            .file_stem()
            .expect("has one")
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
                // Where the expanded text cannot be kept, the message alone must do.
                let kept = fs::write(&expanded, &source).is_ok();
                let place = if kept {
                    format!(" (expanded: {})", expanded.display())
                } else {
                    String::new()
                };
                format!("{} variant '{variant}': {e}{place}", file.display())
            })?;
            // Tensors of one kernel may lie in one buffer, read ones and written ones, and a buffer has one use in a
            // dispatch (`src/device/gpu/buffers.rs`).
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
        .expect("a string takes it");
        let twin = format!("{module}_f16");
        let twin = expanded.iter().find(|(module, ..)| *module == twin);
        let twin = twin.map(|(module, _, shader)| (module.as_str(), shader));
        modules += &shader.rust_module(module, index, twin);
    }
    table += "];\n";
    fs::write(target, table + &modules).map_err(|e| format!("{}: {e}", target.display()))
}
