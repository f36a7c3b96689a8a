//! Parameters to and from the bytes of a safetensors file. Reading and writing the file itself is the caller's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use sha2::{Digest, Sha256};

use super::Parameter;
use crate::error::{Error, Result};

/// How strict [`load`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// Every tensor must be there, with its shape, and no other.
    #[default]
    Exact,
    /// To start from another task's weights: tensors under `conv1` and `fc` may differ in shape or be absent, and keep
    /// their present values then; the file's own `fc` may be one more than is asked for.
    Initialize,
}

/// Tensors that torch's files carry and nothing here needs.
const IGNORED_SUFFIX: &str = "num_batches_tracked";

/// The one metadata entry of a file: a JSON object.
const METADATA_KEY: &str = "parallax";

/// Reads `parameters` back from their device and packs them as a safetensors file with `metadata`. Equal values give equal
/// bytes.
///
/// # Errors
/// `Error::Usage` where two parameters have one name; `Error::Device` where a readback fails.
pub fn save(parameters: &[&Parameter], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut seen = BTreeSet::new();
    let mut values = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        if !seen.insert(&parameter.name) {
            return Err(Error::usage(format!(
                "two parameters are named {}; a file of weights needs distinct names",
                parameter.name
            )));
        }
        values.push(parameter.value.to_vec::<f32>()?);
    }
    let views = parameters
        .iter()
        .zip(&values)
        .map(|(parameter, values)| {
            let shape = parameter.value.shape().to_vec();
            let bytes = bytemuck::cast_slice(values);
            TensorView::new(Dtype::F32, shape, bytes).map(|view| (parameter.name.as_str(), view))
        })
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|error| Error::usage(format!("weights cannot be packed: {error}")))?;
    // One entry, since the library writes several in the random order of a hash map.
    let entry = serde_json::to_string(metadata)
        .map_err(|error| Error::usage(format!("metadata cannot be packed: {error}")))?;
    let entries = HashMap::from([(METADATA_KEY.to_string(), entry)]);
    serialize(views, Some(entries))
        .map_err(|error| Error::usage(format!("weights cannot be packed: {error}")))
}

/// SHA-256, in hexadecimal, over the names, shapes and bits of `parameters`: equal exactly where these are.
///
/// # Errors
/// `Error::Device` where a readback fails.
pub fn digest(parameters: &[&Parameter]) -> Result<String> {
    let mut hasher = Sha256::new();
    for parameter in parameters {
        hasher.update(parameter.name.as_bytes());
        hasher.update([0]);
        for size in parameter.value.shape() {
            hasher.update((*size as u64).to_le_bytes());
        }
        let values = parameter.value.to_vec::<f32>()?;
        hasher.update(bytemuck::cast_slice(&values));
    }
    let bytes = hasher.finalize();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Fills `parameters`, in place, from the `bytes` of a safetensors file, and returns the names of those that kept their
/// present values (always none where `matching` is exact). Nothing changes unless everything fits. Entries named
/// `num_batches_tracked` are ignored. `path` is where the bytes came from, for messages.
///
/// # Errors
/// `Error::Data` where the bytes are no safetensors file of f32, or listing every tensor that is missing, unexpected,
/// or of another shape.
pub fn load(
    bytes: &[u8],
    path: &Path,
    parameters: &[&Parameter],
    matching: Matching,
) -> Result<Vec<String>> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| Error::data(path, format!("not a safetensors file: {error}")))?;
    let initialize = matching == Matching::Initialize;
    let mut complaints = Vec::new();
    let mut kept = Vec::new();
    let mut values = Vec::new();
    for &parameter in parameters {
        let name = &parameter.name;
        let may_differ = initialize && is_conv1_or_fc(name);
        match file.tensor(name) {
            Ok(view) if view.shape() == parameter.value.shape() => match view.dtype() {
                Dtype::F32 => values.push((parameter, floats(&view))),
                other => complaints.push(format!("{name} holds {other:?}, expected F32")),
            },
            _ if may_differ => kept.push(name.clone()),
            Ok(view) => complaints.push(format!(
                "{name} has shape {:?}, expected {:?}",
                view.shape(),
                parameter.value.shape()
            )),
            Err(_) => complaints.push(format!("{name} is missing")),
        }
    }
    let wanted: BTreeSet<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    let mut present = file.names();
    present.sort_unstable();
    for name in present {
        let ignored = name.ends_with(IGNORED_SUFFIX) || (initialize && is_conv1_or_fc(name));
        if !wanted.contains(name) && !ignored {
            complaints.push(format!("{name} is unexpected"));
        }
    }
    if !complaints.is_empty() {
        return Err(Error::data(
            path,
            format!(
                "its tensors do not fit the network ({}); check --arch and --width",
                complaints.join("; ")
            ),
        ));
    }
    for (parameter, values) in values {
        parameter.value.overwrite(&values)?;
    }
    Ok(kept)
}

/// The metadata that [`save`] was given; empty for a file from elsewhere.
///
/// # Errors
/// `Error::Data` where the bytes are no safetensors file, or the metadata is damaged.
pub fn metadata(bytes: &[u8], path: &Path) -> Result<BTreeMap<String, String>> {
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| Error::data(path, format!("not a safetensors file: {error}")))?;
    match header.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)) {
        Some(entry) => serde_json::from_str(entry)
            .map_err(|error| Error::data(path, format!("its metadata is damaged: {error}"))),
        None => Ok(BTreeMap::new()),
    }
}

fn is_conv1_or_fc(name: &str) -> bool {
    name.starts_with("conv1.") || name.starts_with("fc.")
}

/// The elements, which need not be aligned in the file.
fn floats(view: &TensorView<'_>) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(view.data())
}
