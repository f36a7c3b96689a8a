//! The metadata of a file of weights: which network it holds, and how that was trained.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{Normalization, ResNetConfig};
use crate::error::{Error, Result};

/// The metadata entry of the normalisation.
const NORMALIZATION: &str = "normalization";

/// The origin of weights, as their file records it.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    pub encoder: ResNetConfig,
    /// The command that trained the network.
    pub command: String,
    /// The protocol, as in results.
    pub protocol: String,
    /// The name of the training data set.
    pub data: String,
    pub seed: u64,
    /// Number of training steps.
    pub step: u64,
    pub batch_size: usize,
    /// Number of classes of the head, if there is one.
    pub classes: Option<usize>,
    /// Names of the classes in the order of labels. Earlier versions did not store them.
    pub class_names: Vec<String>,
    /// For a classifier, the fraction of the labels that it was trained on.
    pub label_fraction: Option<f64>,
    /// For a fine-tuned classifier, the command that pretrained its encoder.
    pub pretrained_by: Option<String>,
    /// How images are normalised for it. A file stores it unless it is the default.
    pub normalization: Normalization,
}

impl Origin {
    /// An encoder that was not trained.
    pub fn new(encoder: ResNetConfig, command: &str, protocol: String, data: String) -> Self {
        Origin {
            encoder,
            command: command.to_string(),
            protocol,
            data,
            seed: 0,
            step: 0,
            batch_size: 0,
            classes: None,
            class_names: Vec::new(),
            label_fraction: None,
            pretrained_by: None,
            normalization: Normalization::default(),
        }
    }

    /// The entries that a file stores.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::from(
            [
                ("arch", self.encoder.arch.to_string()),
                ("width", self.encoder.width.to_string()),
                ("stem", self.encoder.stem.to_string()),
                ("command", self.command.clone()),
                ("protocol", self.protocol.clone()),
                ("data", self.data.clone()),
                ("seed", self.seed.to_string()),
                ("step", self.step.to_string()),
                ("batch_size", self.batch_size.to_string()),
            ]
            .map(|(key, value)| (key.to_string(), value)),
        );
        let optional = [
            ("classes", self.classes.map(|n| n.to_string())),
            ("label_fraction", self.label_fraction.map(|x| x.to_string())),
            ("pretrained_by", self.pretrained_by.clone()),
            (NORMALIZATION, named(self.normalization)),
            (
                "class_names",
                (!self.class_names.is_empty()).then(|| json!(self.class_names).to_string()),
            ),
        ];
        for (key, value) in optional {
            map.extend(value.map(|value| (key.to_string(), value)));
        }
        map
    }

    /// Reads the entries of a file at `path`, which is named in errors.
    ///
    /// # Errors
    /// `Error::Data` if an entry is missing or has no meaning.
    pub fn from_map(map: &BTreeMap<String, String>, path: &Path) -> Result<Self> {
        let text = |key: &str| {
            map.get(key).ok_or_else(|| {
                Error::data(
                    path,
                    format!(
                        "its metadata has no {key}; expected what a training of this program writes"
                    ),
                )
            })
        };
        fn number<T: std::str::FromStr>(key: &str, word: &str, path: &Path) -> Result<T> {
            word.parse()
                .map_err(|_| Error::data(path, format!("its metadata gives '{word}' as {key}")))
        }
        let encoder = ResNetConfig {
            arch: number("arch", text("arch")?, path)?,
            stem: number("stem", text("stem")?, path)?,
            width: number("width", text("width")?, path)?,
        };
        let impossible = |e| Error::data(path, format!("its metadata has no network: {e}"));
        encoder.shape().map_err(impossible)?;
        Ok(Origin {
            encoder,
            command: text("command")?.clone(),
            protocol: text("protocol")?.clone(),
            data: text("data")?.clone(),
            seed: number("seed", text("seed")?, path)?,
            step: number("step", text("step")?, path)?,
            batch_size: number("batch_size", text("batch_size")?, path)?,
            classes: map
                .get("classes")
                .map(|word| number("classes", word, path))
                .transpose()?,
            class_names: match map.get("class_names") {
                None => Vec::new(),
                Some(names) => serde_json::from_str(names).map_err(|e| {
                    Error::data(path, format!("its metadata has wrong class_names: {e}"))
                })?,
            },
            label_fraction: map
                .get("label_fraction")
                .map(|word| number("label_fraction", word, path))
                .transpose()?,
            pretrained_by: map.get("pretrained_by").cloned(),
            normalization: normalization(map, path)?,
        })
    }
}

/// The name of a normalisation, unless it is the default.
pub(crate) fn named(normalization: Normalization) -> Option<String> {
    (normalization != Normalization::default()).then(|| normalization.to_string())
}

/// The normalisation in the metadata of a file.
pub(crate) fn normalization(map: &BTreeMap<String, String>, path: &Path) -> Result<Normalization> {
    let words = map.get(NORMALIZATION).map(|words| words.parse());
    let wrong = |e| Error::data(path, format!("its metadata has no normalisation: {e}"));
    Ok(words.transpose().map_err(wrong)?.unwrap_or_default())
}
