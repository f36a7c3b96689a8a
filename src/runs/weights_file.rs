//! Files of an encoder, with or without a classifier on it. Files of this program name their
//! network. The network of other files follows from names and shapes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::safetensors_file::Stored;
use super::state_dict::{Found, StateDict, Wanted, expected};
use crate::console::note;
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result, listed};
use crate::evaluate::features::set_running_statistics;
use crate::nn::origin::{named, normalization};
use crate::nn::weights::save;
use crate::nn::{Linear, Module, Normalization, Parameter, ResNet, ResNetConfig};

pub use crate::nn::Origin;

/// The command in the [`Origin`] of a network that was not trained.
pub const UNTRAINED: &str = "untrained";
/// The command in the [`Origin`] of a network that another program trained.
const ELSEWHERE: &str = "elsewhere";
/// The value of unknown fields of such a network.
const UNKNOWN: &str = "unknown";

/// The bytes of a file of `encoder`, and of `head`, if there is one.
pub fn pack(encoder: &ResNet, head: Option<&Linear>, origin: &Origin) -> Result<Vec<u8>> {
    save(&state(encoder, head), &origin.to_map())
}

/// A network to evaluate.
pub struct Loaded {
    /// The file that it was read from, or "random weights".
    pub source: String,
    pub encoder: ResNet,
    /// `None` in a file that pretraining wrote.
    pub head: Option<Linear>,
    pub origin: Origin,
    /// Which of the file's tensors were used, converted or left out.
    pub record: WeightsRecord,
}

/// Which tensors of a file were used, converted or left out, as configurations and metadata record
/// it. Empty for a file that this program wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightsRecord {
    /// The prefix of the names, which was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_prefix: Option<String>,
    /// `sequential` if the parts of the network are numbered in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_names: Option<String>,
    /// Types that were converted to F32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_types: Vec<String>,
    /// Tensors of the network that keep their random values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_random: Vec<String>,
    /// How images are normalised, as [`Normalization`] is written: for weights of other programs,
    /// and for those of this program unless it is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalization: Option<String>,
    /// The number of tensors that do not belong to the network, by their first names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub init_left_out: BTreeMap<String, usize>,
}

/// A file of weights that was read and checked, and is not on a device yet.
pub struct WeightsFile {
    path: PathBuf,
    origin: Origin,
    found: Found,
    is_ours: bool,
}

impl WeightsFile {
    /// Reads an encoder, with its classifier if [`pack`] wrote one.
    ///
    /// # Errors
    /// `Error::Io` if the file cannot be read; `Error::Data` if it has no network, or a value that
    /// is not finite.
    pub fn read(path: &Path) -> Result<Self> {
        let file = StateDict::read(path)?;
        let is_ours = file.metadata.contains_key("arch");
        if !is_ours {
            let found = file.find(&Wanted {
                config: None,
                classes: None,
                keeps_first: true,
            })?;
            return Ok(Self::from_elsewhere(path, found));
        }
        let origin = Origin::from_map(&file.metadata, path)?;
        let found = file.find(&Wanted {
            config: Some(origin.encoder),
            classes: origin.classes,
            keeps_first: false,
        })?;
        Ok(WeightsFile {
            path: path.to_path_buf(),
            origin,
            found,
            is_ours,
        })
    }

    /// How images are normalised for the network of the file.
    pub fn normalization(&self) -> Normalization {
        self.origin.normalization
    }

    /// Sets how images are normalised for the network of the file, if it is given.
    ///
    /// # Errors
    /// `Error::Usage` if this program wrote the file for another normalisation.
    pub fn with_normalization(mut self, asked: Option<Normalization>) -> Result<Self> {
        let stored = self.origin.normalization;
        let asked = asked.unwrap_or(stored);
        if self.is_ours && asked.statistics() != stored.statistics() {
            return Err(Error::usage(format!(
                "the network of {} takes images of the normalisation {stored}, and --normalize is {asked}; leave the \
                 option out",
                self.path.display()
            )));
        }
        if !self.is_ours {
            self.origin.normalization = asked;
        }
        Ok(self)
    }

    /// Reads weights to start a network of the configuration `config` from. Its first convolution
    /// may differ, and a classifier is left out.
    ///
    /// # Errors
    /// As [`WeightsFile::read`].
    pub fn read_for(path: &Path, config: &ResNetConfig) -> Result<Self> {
        let file = StateDict::read(path)?;
        let is_ours = file.metadata.contains_key("arch");
        let found = file.find(&Wanted {
            config: Some(*config),
            classes: None,
            keeps_first: true,
        })?;
        let mut weights = Self::from_elsewhere(path, found);
        if is_ours {
            weights.is_ours = true;
            weights.origin.normalization = normalization(&file.metadata, path)?;
        }
        Ok(weights)
    }

    fn from_elsewhere(path: &Path, found: Found) -> Self {
        let unknown = || UNKNOWN.to_string();
        let origin = Origin::new(found.config, ELSEWHERE, unknown(), unknown());
        WeightsFile {
            path: path.to_path_buf(),
            origin,
            found,
            is_ours: false,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The origin of the weights that the file records.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether this program wrote the file.
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// The network.
    pub fn config(&self) -> ResNetConfig {
        self.origin.encoder
    }

    /// The network's tensors by torchvision's names, without those that keep random values.
    ///
    /// # Errors
    /// `Error::Usage` if the network is not possible.
    pub fn tensors(&self) -> Result<Vec<Stored<'_>>> {
        let all = expected(&self.config().shape()?, self.origin.classes);
        let stored = |(name, shape): (String, Vec<usize>)| {
            let bytes = bytemuck::cast_slice(self.found.values.get(&name)?);
            let dtype = "F32";
            Some(Stored {
                name,
                dtype,
                shape,
                bytes,
            })
        };
        Ok(all.into_iter().filter_map(stored).collect())
    }

    /// Which of the file's tensors were used, converted or left out.
    pub fn record(&self) -> WeightsRecord {
        let found = &self.found;
        WeightsRecord {
            init_prefix: Some(found.prefix.clone()).filter(|prefix| !prefix.is_empty()),
            init_names: found.is_numbered.then(|| "sequential".to_string()),
            init_types: found.converted.clone(),
            kept_random: found
                .kept_random
                .iter()
                .map(|(name, ..)| name.clone())
                .collect(),
            normalization: if self.is_ours {
                named(self.normalization())
            } else {
                Some(self.normalization().to_string())
            },
            init_left_out: found.left_out.clone(),
        }
    }

    /// Prints notices of the file's tensors that were converted or left out.
    pub fn print_notices(&self) {
        let found = &self.found;
        let file = self.path.display();
        if !self.is_ours {
            let ResNetConfig { arch, width, stem } = self.config();
            let images = match self.normalization() {
                Normalization::Cifar10 => "normalised by CIFAR-10's mean and standard deviation; \
                                           torchvision's weights want --normalize imagenet"
                    .to_string(),
                Normalization::ImageNet => {
                    "normalised by ImageNet's mean and standard deviation".to_string()
                }
                Normalization::None => "not normalised".to_string(),
                numbers => format!("normalised by {numbers}"),
            };
            note!("weights {file}: {arch}, width {width}, stem {stem}; images are {images}");
        }
        if !found.prefix.is_empty() {
            note!(
                "weights {file}: the prefix '{}' is removed from the names",
                found.prefix
            );
        }
        if found.is_numbered {
            note!("weights {file}: its numbered parts are read as conv1, bn1 and layer1 to layer4");
        }
        if !found.converted.is_empty() {
            note!(
                "weights {file}: {} is converted to F32",
                listed(&found.converted, ", ")
            );
        }
        if !found.left_out.is_empty() {
            let all: usize = found.left_out.values().sum();
            let counts = found
                .left_out
                .iter()
                .map(|(name, count)| format!("{name} {count}"));
            let counts: Vec<String> = counts.collect();
            note!(
                "weights {file}: {all} tensors are left out: {}",
                listed(&counts, ", ")
            );
        }
        for (name, theirs, ours) in &found.kept_random {
            let theirs = match theirs {
                Some(shape) => format!("{shape:?}"),
                None => "no such tensor".to_string(),
            };
            note!(
                "weights {file}: {name} keeps its random values, since the file has {theirs} and the network {ours:?}"
            );
        }
    }

    /// Overwrites the parameters of a network, and those of its classifier, with the file's values.
    ///
    /// # Errors
    /// `Error::Device` if a transfer fails.
    pub fn fill(&self, encoder: &ResNet, head: Option<&Linear>) -> Result<()> {
        for parameter in state(encoder, head) {
            if let Some(values) = self.found.values.get(&parameter.name) {
                parameter.value.overwrite(values)?;
            }
        }
        Ok(())
    }

    /// Builds the network on `device`, and prints the notices.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub fn load(self, device: &Device) -> Result<Loaded> {
        self.print_notices();
        let encoder =
            ResNet::new(&self.origin.encoder, 0, device)?.with_normalization(self.normalization());
        let classes = self.origin.classes;
        let head = classes
            .map(|classes| Linear::new("fc", encoder.feature_width(), classes, 0, device))
            .transpose()?;
        self.fill(&encoder, head.as_ref())?;
        Ok(Loaded {
            source: self.path.display().to_string(),
            record: self.record(),
            encoder,
            head,
            origin: self.origin,
        })
    }
}

/// Returns a network with random weights, which `seed` determines as in a pretraining. Its running
/// statistics are estimated on the first batches of `dataset`'s training images, which are
/// normalised by `normalization`.
///
/// # Errors
/// `Error::Usage` if the network cannot be built.
pub fn untrained(
    device: &Device,
    (config, normalization): (&ResNetConfig, Normalization),
    protocol: String,
    dataset: &Dataset,
    seed: u64,
) -> Result<Loaded> {
    let encoder = ResNet::new(config, seed, device)?.with_normalization(normalization);
    set_running_statistics(device, &encoder, &dataset.train)?;
    Ok(Loaded {
        source: "random weights".to_string(),
        encoder,
        head: None,
        record: WeightsRecord::default(),
        origin: Origin {
            seed,
            normalization,
            ..Origin::new(*config, UNTRAINED, protocol, dataset.name.clone())
        },
    })
}

/// Returns the tensors that a file of `encoder` and `head` stores.
pub fn state<'a>(encoder: &'a ResNet, head: Option<&'a Linear>) -> Vec<&'a Parameter> {
    let mut state = encoder.state();
    state.extend(head.map(Module::parameters).unwrap_or_default());
    state
}
