//! The bytes of a safetensors file. The safetensors library writes the entries of the metadata in a
//! random order; here they are sorted, so that equal content gives equal bytes.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use crate::error::{Error, Result};

/// A tensor of the file.
pub struct Stored<'a> {
    pub name: String,
    /// As the format names it, such as `F32`.
    pub dtype: &'a str,
    pub shape: Vec<usize>,
    pub bytes: &'a [u8],
}

/// Returns a file with these tensors, in this order, and these entries of metadata. Tensors of
/// wider numbers must come first, so that all are aligned.
///
/// # Errors
/// `Error::Usage` if the header cannot be written.
pub fn packed(tensors: &[Stored<'_>], about: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut header = Map::new();
    if !about.is_empty() {
        header.insert("__metadata__".to_string(), json!(about));
    }
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.bytes.len();
        let entry = json!({
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [start, end],
        });
        header.insert(tensor.name.clone(), entry);
        start = end;
    }
    let mut text = serde_json::to_vec(&header)
        .map_err(|e| Error::usage(format!("the header of a file cannot be written: {e}")))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.reserve(text.len() + start);
    file.extend(text);
    for tensor in tensors {
        file.extend_from_slice(tensor.bytes);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn the_library_reads_the_file() {
        let stored = |name: &str, dtype, shape: &[usize], bytes| Stored {
            name: name.to_string(),
            dtype,
            shape: shape.to_vec(),
            bytes,
        };
        let tensors = [
            stored("z", "I64", &[], &[1, 0, 0, 0, 0, 0, 0, 0][..]),
            stored("a", "F32", &[2, 1], &[0; 8]),
        ];
        let about = BTreeMap::from([("k".to_string(), "\"quoted\"".to_string())]);
        let file = packed(&tensors, &about).unwrap();
        let (_, header) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["k"], "\"quoted\"");
        let found = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(found.tensor("a").unwrap().shape(), [2, 1]);
        assert_eq!(found.tensor("z").unwrap().data()[0], 1);
        let bare = packed(&[], &BTreeMap::new()).unwrap();
        assert!(SafeTensors::deserialize(&bare).unwrap().is_empty());
    }
}
