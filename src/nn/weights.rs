//! Conversion of parameters to and from the bytes of a safetensors file. The caller reads and
//! writes the file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use sha2::{Digest, Sha256};

use super::Parameter;
use crate::error::{Error, Result};

/// How [`load`] treats tensors that differ between the file and the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// The file must have exactly the tensors of the network, with their shapes.
    #[default]
    Exact,
    /// Allows weights of another task. Tensors of `conv1` and `fc` that are missing in the file, or
    /// differ in shape, are not changed. Tensors of `conv1` and `fc` that the network does not have
    /// are ignored.
    Initialize,
}

/// The suffix of tensors in torch's files that are not needed here.
const IGNORED_SUFFIX: &str = "num_batches_tracked";

/// The only metadata entry of a file, a JSON object.
const METADATA_KEY: &str = "parallax";

/// Reads back `parameters` and returns the bytes of a safetensors file with them and `metadata`.
/// Equal values give equal bytes.
///
/// # Errors
/// `Error::Usage` if two parameters have the same name; `Error::Device` if a readback fails.
pub fn save(parameters: &[&Parameter], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut seen = BTreeSet::new();
    let mut values = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        if !seen.insert(&parameter.name) {
            return Err(Error::usage(format!(
                "two parameters are named '{}'; give each parameter a name of its own",
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
    // The library writes several entries in the random order of a hash map, so the file has one.
    let entry = serde_json::to_string(metadata)
        .map_err(|error| Error::usage(format!("metadata cannot be packed: {error}")))?;
    let entries = HashMap::from([(METADATA_KEY.to_string(), entry)]);
    serialize(views, Some(entries))
        .map_err(|error| Error::usage(format!("weights cannot be packed: {error}")))
}

/// The SHA-256 digest of the names, shapes and bits of `parameters`, in hexadecimal.
///
/// # Errors
/// `Error::Device` if a readback fails.
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

/// Loads `parameters` in place from the `bytes` of a safetensors file. Returns the names of the
/// parameters that were not changed, which is empty for [`Matching::Exact`]. If there is an error,
/// no parameter is changed. Entries named `num_batches_tracked` are ignored. `path` is named in
/// errors.
///
/// # Errors
/// `Error::Data` if the bytes are not a safetensors file of f32, or if tensors are missing,
/// unexpected, or of another shape. The message lists all of them.
pub fn load(
    bytes: &[u8],
    path: &Path,
    parameters: &[&Parameter],
    matching: Matching,
) -> Result<Vec<String>> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| Error::data(path, format!("not a safetensors file: {error}")))?;
    let initialize = matching == Matching::Initialize;
    let mut problems = Vec::new();
    let mut unchanged = Vec::new();
    let mut values = Vec::new();
    for &parameter in parameters {
        let name = &parameter.name;
        let may_differ = initialize && is_conv1_or_fc(name);
        match file.tensor(name) {
            Ok(view) if view.shape() == parameter.value.shape() => match view.dtype() {
                Dtype::F32 => values.push((parameter, floats(&view))),
                other => problems.push(format!("{name} has type {other:?}, expected F32")),
            },
            _ if may_differ => unchanged.push(name.clone()),
            Ok(view) => problems.push(format!(
                "{name} has shape {:?}, expected {:?}",
                view.shape(),
                parameter.value.shape()
            )),
            Err(_) => problems.push(format!("{name} is missing")),
        }
    }
    let expected: BTreeSet<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    let mut present = file.names();
    present.sort_unstable();
    for name in present {
        let ignored = name.ends_with(IGNORED_SUFFIX) || (initialize && is_conv1_or_fc(name));
        if !expected.contains(name) && !ignored {
            problems.push(format!("{name} is unexpected"));
        }
    }
    if !problems.is_empty() {
        let problems = problems.join("; ");
        let message = format!(
            "its tensors do not fit the network ({problems}); check architecture and width"
        );
        return Err(Error::data(path, message));
    }
    for (parameter, values) in values {
        parameter.value.overwrite(&values)?;
    }
    Ok(unchanged)
}

/// Returns the metadata of a file that [`save`] wrote. Other files have none.
///
/// # Errors
/// `Error::Data` if the bytes are not a safetensors file, or if the metadata is damaged.
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

/// Copies the elements, which may be unaligned in the file.
fn floats(view: &TensorView<'_>) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(view.data())
}
