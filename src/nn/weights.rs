//! Conversion of parameters to and from the bytes of a safetensors file. The caller reads and
//! writes the file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use safetensors::serialize;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use super::Parameter;
use crate::device::block_on;
use crate::error::{Error, Result, list_of};
use crate::file_kind::FileKind;
use crate::sha256::hex;

/// End of the names of counters that torch's files hold and no network here needs.
pub const COUNTER: &str = "num_batches_tracked";

/// End of the names of running variances, which are never negative.
const VARIANCE: &str = "running_var";

/// The only metadata entry of a file, a JSON object.
const METADATA_KEY: &str = "parallax";

/// Bytes of the number at the start of a safetensors file, the length of its header.
const LENGTH_BYTES: usize = 8;
/// Longest header that is read, as the safetensors library has it.
const LONGEST_HEADER: u64 = 100_000_000;
/// Examples of each kind of tensor that does not fit, in a message.
const EXAMPLES: usize = 3;

/// Reads back `parameters` and returns the bytes of a safetensors file with them and `metadata`.
/// Equal values give equal bytes.
///
/// # Errors
/// `Error::Usage` if two parameters have the same name; `Error::Device` if a readback fails.
pub fn save(parameters: &[&Parameter], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    block_on(save_async(parameters, metadata))
}

/// As [`save`]. Outside of a browser, it blocks the thread.
///
/// # Errors
/// As [`save`].
pub async fn save_async(
    parameters: &[&Parameter],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut seen = BTreeSet::new();
    let mut values = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        if !seen.insert(&parameter.name) {
            return Err(Error::usage(format!(
                "two parameters are named '{}'; give each parameter a name of its own",
                parameter.name
            )));
        }
        values.push(parameter.value.to_vec_async::<f32>().await?);
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
    Ok(hex(&hasher.finalize()))
}

/// Loads `parameters` in place from the `bytes` of a safetensors file of f32. The file must have
/// exactly these tensors, with their shapes. If there is an error, no parameter is changed. Entries
/// named `num_batches_tracked` are ignored. `path` is named in errors.
///
/// # Errors
/// `Error::Data` if the bytes are not a whole safetensors file, if tensors do not fit, with their
/// numbers, or if a value is not finite.
pub fn load(bytes: &[u8], path: &Path, parameters: &[&Parameter]) -> Result<()> {
    let file = parse(bytes, path)?;
    let mut mismatch = Mismatch::default();
    let mut values = Vec::new();
    for &parameter in parameters {
        let name = &parameter.name;
        let expected = parameter.value.shape();
        match file.tensor(name) {
            Ok(view) if view.shape() != expected => {
                mismatch.misshaped(name, view.shape(), expected);
            }
            Ok(view) if view.dtype() != Dtype::F32 => {
                let what = format!("{name} holds {}, expected F32", view.dtype());
                return Err(Error::data(path, what));
            }
            Ok(view) => values.push((parameter, floats(&view))),
            Err(_) => mismatch.missing.push(name.clone()),
        }
    }
    let wanted: BTreeSet<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    let mut present = file.names();
    present.retain(|name| !wanted.contains(name) && !name.ends_with(COUNTER));
    present.sort_unstable();
    mismatch.unexpected = present.into_iter().map(str::to_string).collect();
    if !mismatch.is_empty() {
        let what = format!("its tensors do not fit: {mismatch}");
        return Err(Error::data(path, what));
    }
    for (parameter, values) in &values {
        check_values(&parameter.name, values).map_err(|what| Error::data(path, what))?;
    }
    for (parameter, values) in values {
        parameter.value.overwrite(&values)?;
    }
    Ok(())
}

/// Tensors of a file that do not fit a network.
#[derive(Clone, Debug, Default)]
pub struct Mismatch {
    pub missing: Vec<String>,
    pub unexpected: Vec<String>,
    /// With both shapes.
    misshaped: Vec<String>,
}

impl Mismatch {
    /// Adds a tensor with the shape that the file has and the one that was expected.
    pub fn misshaped(&mut self, name: &str, found: &[usize], expected: &[usize]) {
        let both = format!("{name} has shape {found:?}, expected {expected:?}");
        self.misshaped.push(both);
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.missing.len() + self.unexpected.len() + self.misshaped.len()
    }

    /// Whether every tensor fits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = [
            (&self.missing, "missing"),
            (&self.unexpected, "unexpected"),
            (&self.misshaped, "of another shape"),
        ];
        for (number, (names, kind)) in kinds.into_iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{} {kind}", names.len())?;
            if !names.is_empty() {
                write!(f, " ({})", list_of(names, EXAMPLES, ", "))?;
            }
        }
        Ok(())
    }
}

/// Fails if a value of the tensor `name` is not finite, or a running variance is negative, with a
/// message that names the value.
pub fn check_values(name: &str, values: &[f32]) -> std::result::Result<(), String> {
    let is_variance = name.ends_with(VARIANCE);
    let is_wrong = |&&x: &&f32| !x.is_finite() || (is_variance && x < 0.0);
    match values.iter().find(is_wrong) {
        None => Ok(()),
        Some(x) if x.is_finite() => Err(format!(
            "{name} holds the negative variance {x}; the file is damaged, use another one"
        )),
        Some(x) => Err(format!(
            "{name} holds {x}, which is no finite number; the file is damaged, use another one"
        )),
    }
}

/// Returns the metadata of a file that [`save`] wrote. Other files have none.
///
/// # Errors
/// `Error::Data` if the bytes are not a whole safetensors file, or if the metadata is damaged.
pub fn metadata(bytes: &[u8], path: &Path) -> Result<BTreeMap<String, String>> {
    let (_, header) = header(bytes, bytes.len() as u64, path)?;
    metadata_of(&header, path)
}

/// As [`metadata`], from a header that was already read.
///
/// # Errors
/// `Error::Data` if the metadata is damaged.
pub fn metadata_of(header: &Metadata, path: &Path) -> Result<BTreeMap<String, String>> {
    match header.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)) {
        Some(entry) => serde_json::from_str(entry)
            .map_err(|error| Error::data(path, format!("its metadata is damaged: {error}"))),
        None => Ok(BTreeMap::new()),
    }
}

/// The tensors of a safetensors file.
///
/// # Errors
/// As [`header`].
fn parse<'a>(bytes: &'a [u8], path: &Path) -> Result<SafeTensors<'a>> {
    header(bytes, bytes.len() as u64, path)?;
    SafeTensors::deserialize(bytes)
        .map_err(|error| Error::data(path, format!("not a safetensors file: {error}")))
}

/// Reads the header of a safetensors file of `len` bytes, of which `bytes` are the first. Returns
/// where the values start, and what is stored.
///
/// Of the file, [`SNIFFED_BYTES`](crate::file_kind::SNIFFED_BYTES) suffice to recognise another
/// kind of file, and [`header_bytes`] to read the header.
///
/// # Errors
/// `Error::Data` if it is another kind of file, which the message names, if it ends early, with the
/// number of bytes found and expected, or if its header is damaged.
pub fn header(bytes: &[u8], len: u64, path: &Path) -> Result<(usize, Metadata)> {
    let refuse = |what: String| Err(Error::data(path, what));
    if len == 0 {
        return refuse("the file is empty; expected a safetensors file".to_string());
    }
    if let Some(kind) = FileKind::of(bytes) {
        let advice = advice(kind, path);
        return refuse(format!(
            "this is {}, not a safetensors file; {advice}",
            kind.name()
        ));
    }
    let ends_early = |expected: String| {
        refuse(format!(
            "the file ends early: {len} bytes found, {expected} expected; copy or download it again"
        ))
    };
    let Some(end) = header_bytes(bytes) else {
        return ends_early(format!("at least {LENGTH_BYTES}"));
    };
    let opens = bytes.get(LENGTH_BYTES).is_none_or(|&first| first == b'{');
    if end > LONGEST_HEADER || !opens {
        return refuse(
            "not a safetensors file; expected one, such as a training of this program writes"
                .to_string(),
        );
    }
    if len < end {
        return ends_early(format!("at least {end}"));
    }
    let start = end as usize;
    let header: Metadata = match bytes.get(LENGTH_BYTES..start).map(serde_json::from_slice) {
        Some(Ok(header)) => header,
        Some(Err(error)) => return refuse(format!("its header is damaged: {error}")),
        None => return refuse("its header was not read whole".to_string()),
    };
    match end.checked_add(header.data_len() as u64) {
        Some(expected) if expected == len => Ok((start, header)),
        Some(expected) if len < expected => ends_early(expected.to_string()),
        _ => refuse(format!(
            "it has {len} bytes, more than its header describes; the file is damaged, copy or download it again"
        )),
    }
}

/// Returns the number of bytes up to the end of the header, or `None` if `bytes` is too short to
/// tell.
pub fn header_bytes(bytes: &[u8]) -> Option<u64> {
    let length = bytes.first_chunk::<LENGTH_BYTES>()?;
    Some(u64::from_le_bytes(*length).saturating_add(LENGTH_BYTES as u64))
}

/// What to do to get a safetensors file.
fn advice(kind: FileKind, path: &Path) -> String {
    match kind {
        FileKind::LfsPointer => "download the file itself with: git lfs pull".to_string(),
        FileKind::Html | FileKind::Xml => {
            "a server answered with it in place of the file; download the file itself".to_string()
        }
        FileKind::PyTorch => {
            let quoted =
                |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "\\'"));
            format!(
                "convert it with: python3 -c \"import torch, safetensors.torch as s; d = torch.load({}, \
                 map_location='cpu'); d = d.get('state_dict', d); s.save_file({{k: v.contiguous() for k, v in \
                 d.items()}}, {})\"",
                quoted(path),
                quoted(&path.with_extension("safetensors"))
            )
        }
        FileKind::Other(_) => "name a file of weights".to_string(),
    }
}

/// Copies the elements, which may be unaligned in the file.
fn floats(view: &TensorView<'_>) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(view.data())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        header(bytes, bytes.len() as u64, Path::new("dir/x.pth"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn other_kinds_of_files_are_named() {
        let zip = [&b"PK\x03\x04"[..], &[0; 26], b"archive/data.pkl"].concat();
        let kinds: [(&[u8], &str); 12] = [
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
                "Git LFS pointer",
            ),
            (b"<!DOCTYPE html><html><title>404</title>", "HTML page"),
            (b"\xef\xbb\xbf\r\n <HTML lang=\"en\">", "HTML page"),
            (
                b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>",
                "XML page",
            ),
            (&zip, "PyTorch file"),
            (b"\x80\x02}q\x00X\n\x00\x00\x00state_dict", "PyTorch file"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "PyTorch file"),
            (b"PK\x03\x04\x14\x00weights.npy", "ZIP archive"),
            (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "gzip"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"{\"weight_map\": {}}", "JSON"),
            (b"", "empty"),
        ];
        for (bytes, word) in kinds {
            let message = refusal(bytes);
            assert!(message.contains(word), "{message}");
        }
        let message = refusal(&zip);
        assert!(message.contains("torch.load('dir/x.pth'"), "{message}");
        assert!(message.contains("'dir/x.safetensors'"), "{message}");
    }

    #[test]
    fn values_that_are_no_numbers_are_named() {
        assert_eq!(check_values("bn1.running_mean", &[-1.0, 0.0]), Ok(()));
        for (name, value, word) in [
            ("fc.weight", f32::NAN, "fc.weight holds NaN"),
            ("fc.weight", f32::NEG_INFINITY, "holds -inf"),
            ("bn1.running_var", -0.5, "negative variance -0.5"),
        ] {
            let message = check_values(name, &[1.0, value]).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }
}
