//! Files of an encoder, with or without a classifier on it: safetensors that say what network they are of.

use std::collections::BTreeMap;
use std::path::Path;

use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate::features::set_running_statistics;
use crate::nn::weights::{Matching, load, metadata, save};
use crate::nn::{Linear, Module, Parameter, ResNet, ResNetConfig};

/// The command in the [`Origin`] of a network that was not trained.
pub const UNTRAINED: &str = "untrained";

/// What a file says of its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    pub encoder: ResNetConfig,
    /// The command that trained it.
    pub command: String,
    /// As results name it.
    pub protocol: String,
    /// The name of the data set that it was trained on.
    pub data: String,
    pub seed: u64,
    /// Steps that it was trained for.
    pub step: u64,
    pub batch_size: usize,
    /// Classes of the head, where there is one.
    pub classes: Option<usize>,
    /// The part of the labels that it learned from, of a classifier.
    pub label_fraction: Option<f64>,
    /// The command that pretrained the encoder, of a fine-tuned one.
    pub pretrained_by: Option<String>,
}

impl Origin {
    fn to_map(&self) -> BTreeMap<String, String> {
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
        ];
        for (key, value) in optional {
            map.extend(value.map(|value| (key.to_string(), value)));
        }
        map
    }

    fn from_map(map: &BTreeMap<String, String>, path: &Path) -> Result<Self> {
        let text = |key: &str| {
            map.get(key).ok_or_else(|| {
                Error::data(
                    path,
                    format!(
                        "its metadata has no {key}; expected a file that a training of this program wrote \
                         (weights from elsewhere can start a training: --init)"
                    ),
                )
            })
        };
        fn number<T: std::str::FromStr>(key: &str, word: &str, path: &Path) -> Result<T> {
            word.parse()
                .map_err(|_| Error::data(path, format!("its metadata gives '{word}' as {key}")))
        }
        Ok(Origin {
            encoder: ResNetConfig {
                arch: number("arch", text("arch")?, path)?,
                stem: number("stem", text("stem")?, path)?,
                width: number("width", text("width")?, path)?,
            },
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
            label_fraction: map
                .get("label_fraction")
                .map(|word| number("label_fraction", word, path))
                .transpose()?,
            pretrained_by: map.get("pretrained_by").cloned(),
        })
    }
}

/// The bytes of a file of `encoder`, and of `head` where there is one.
pub fn pack(encoder: &ResNet, head: Option<&Linear>, origin: &Origin) -> Result<Vec<u8>> {
    save(&state(encoder, head), &origin.to_map())
}

/// A network to evaluate.
pub struct Loaded {
    /// The file that it was read from, or "random weights".
    pub source: String,
    pub encoder: ResNet,
    /// None in a file that pretraining wrote.
    pub head: Option<Linear>,
    pub origin: Origin,
}

/// Reads a file that [`pack`] made.
///
/// # Errors
/// `Error::Io` where it cannot be read; `Error::Data` where it is something else.
pub fn read(device: &Device, path: &Path) -> Result<Loaded> {
    let bytes = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    let origin = Origin::from_map(&metadata(&bytes, path)?, path)?;
    let encoder = ResNet::new(&origin.encoder, 0, device)?;
    let head = origin
        .classes
        .map(|classes| Linear::new("fc", encoder.feature_width(), classes, 0, device))
        .transpose()?;
    load(
        &bytes,
        path,
        &state(&encoder, head.as_ref()),
        Matching::Exact,
    )?;
    Ok(Loaded {
        source: path.display().to_string(),
        encoder,
        head,
        origin,
    })
}

/// Returns a network with random weights, which `seed` determines as in a pretraining. Its running
/// statistics are estimated on the first batches of `dataset`'s training images.
///
/// # Errors
/// `Error::Usage` if the network cannot be built.
pub fn untrained(
    device: &Device,
    config: &ResNetConfig,
    protocol: String,
    dataset: &Dataset,
    seed: u64,
) -> Result<Loaded> {
    let encoder = ResNet::new(config, seed, device)?;
    set_running_statistics(device, &encoder, &dataset.train)?;
    Ok(Loaded {
        source: "random weights".to_string(),
        encoder,
        head: None,
        origin: Origin {
            encoder: *config,
            command: UNTRAINED.to_string(),
            protocol,
            data: dataset.name.clone(),
            seed,
            step: 0,
            batch_size: 0,
            classes: None,
            label_fraction: None,
            pretrained_by: None,
        },
    })
}

/// Starts `encoder` from another task's weights, torchvision's too: its first convolution may differ, a head is left
/// out.
///
/// # Errors
/// As [`read`].
pub fn initialize(encoder: &ResNet, path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    load(&bytes, path, &state(encoder, None), Matching::Initialize)?;
    Ok(())
}

/// Returns the tensors that a file of `encoder` and `head` stores.
pub fn state<'a>(encoder: &'a ResNet, head: Option<&'a Linear>) -> Vec<&'a Parameter> {
    let mut state = encoder.state();
    state.extend(head.map(Module::parameters).unwrap_or_default());
    state
}
