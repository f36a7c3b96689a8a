//! naga translates every expanded shader to the languages of all platforms, including those that no
//! test runs on: SPIR-V, MSL (Metal), HLSL (DirectX), and GLSL, as far as they have the features
//! that a shader uses. So the kernels on matrices of 16 x 16 are translated, which no software
//! adapter runs.

use std::collections::BTreeSet;

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};
use parallax::device::gpu::kernels::{SHADERS, Shader};

/// Shaders that cannot be translated, with the language. Remove a line once its translation works.
const KNOWN_FAILURES: &[(&str, &str)] = &[];

/// The writer of one language. Fails if it cannot write this entry point.
type Translate = fn(&Module, &ModuleInfo, &str) -> Result<(), String>;

const LANGUAGES: [(&str, Translate); 4] = [
    ("SPIR-V", to_spirv),
    ("MSL", to_msl),
    ("HLSL", to_hlsl),
    ("GLSL", to_glsl),
];

fn to_spirv(module: &Module, info: &ModuleInfo, entry_point: &str) -> Result<(), String> {
    let pipeline = spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: entry_point.to_string(),
    };
    let options = spv::Options {
        ..Default::default()
    };
    let words = spv::write_vec(module, info, &options, Some(&pipeline));
    words
        .map_err(|e| e.to_string())
        .and_then(|words| written(words.len()))
}

fn to_msl(module: &Module, info: &ModuleInfo, entry_point: &str) -> Result<(), String> {
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry_point.to_string())),
        ..Default::default()
    };
    let options = msl::Options {
        lang_version: (2, 4),
        fake_missing_bindings: true,
        ..Default::default()
    };
    let (text, translated) =
        msl::write_string(module, info, &options, &pipeline).map_err(|e| e.to_string())?;
    for name in translated.entry_point_names {
        name.map_err(|e| e.to_string())?;
    }
    written(text.len())
}

fn to_hlsl(module: &Module, info: &ModuleInfo, entry_point: &str) -> Result<(), String> {
    let pipeline = hlsl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry_point.to_string())),
    };
    let options = hlsl::Options {
        // The first version with f16 as a type.
        shader_model: hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        ..Default::default()
    };
    let mut text = String::new();
    let mut writer = hlsl::Writer::new(&mut text, &options, &pipeline);
    let translated = writer
        .write(module, info, None)
        .map_err(|e| e.to_string())?;
    for name in translated.entry_point_names {
        name.map_err(|e| e.to_string())?;
    }
    written(text.len())
}

fn to_glsl(module: &Module, info: &ModuleInfo, entry_point: &str) -> Result<(), String> {
    let pipeline = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: entry_point.to_string(),
        multiview: None,
    };
    let options = glsl::Options {
        version: glsl::Version::new_gles(310),
        ..Default::default()
    };
    let mut text = String::new();
    glsl::Writer::new(
        &mut text,
        module,
        info,
        &options,
        &pipeline,
        BoundsCheckPolicies::default(),
    )
    .and_then(|mut writer| writer.write())
    .map_err(|e| e.to_string())?;
    written(text.len())
}

/// Fails if the translation is empty.
fn written(length: usize) -> Result<(), String> {
    if length == 0 {
        return Err("nothing was written".to_string());
    }
    Ok(())
}

/// Whether the language lacks what the shader uses: GLSL ES has no f16, and naga 30 writes
/// cooperative matrices neither to HLSL nor to GLSL.
fn lacks_features(language: &str, shader: &Shader) -> bool {
    let uses = |feature: &str| shader.source.contains(&format!("enable {feature};"));
    match language {
        "GLSL" => uses("f16") || uses("wgpu_cooperative_matrix"),
        "HLSL" => uses("wgpu_cooperative_matrix"),
        _ => false,
    }
}

#[test]
fn every_shader_translates() {
    assert!(!SHADERS.is_empty());
    let mut failures = Vec::new();
    let mut failed = BTreeSet::new();
    for shader in SHADERS {
        let module = naga::front::wgsl::parse_str(shader.source)
            .unwrap_or_else(|e| panic!("{}: {}", shader.name, e.emit_to_string(shader.source)));
        let info = Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .unwrap_or_else(|e| panic!("{}: {}", shader.name, e.emit_to_string(shader.source)));
        assert!(
            !shader.entry_points.is_empty(),
            "{} has no kernel",
            shader.name
        );
        for (language, translate) in LANGUAGES {
            if lacks_features(language, shader) {
                continue;
            }
            for entry_point in shader.entry_points {
                let Err(error) = translate(&module, &info, entry_point) else {
                    continue;
                };
                failed.insert((shader.name, language));
                if !KNOWN_FAILURES.contains(&(shader.name, language)) {
                    failures.push(format!(
                        "{} ({entry_point}) to {language}: {error}",
                        shader.name
                    ));
                }
            }
        }
    }
    let on_matrices = SHADERS
        .iter()
        .filter(|s| s.name.contains("matrix16"))
        .count();
    assert!(
        on_matrices > 0,
        "no kernel on matrices of 16 x 16 is translated"
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    for known in KNOWN_FAILURES {
        assert!(
            failed.contains(known),
            "{} to {} works now, or no longer exists; remove it from the list",
            known.0,
            known.1
        );
    }
}
