//! A network's tensors in a safetensors file of any origin: under which names they are stored, and
//! of which network they are.
//!
//! The names that this program writes are torchvision's. Other programs put a prefix before them
//! (`backbone.`, `module.encoder_q.`), or number the parts of the network, as
//! `nn.Sequential(*resnet.children())` does.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::error::{Error, Result, listed};
use crate::file_kind::SNIFFED_BYTES;
use crate::nn::weights::{COUNTER, Mismatch, check_values, header, header_bytes, metadata_of};
use crate::nn::{Arch, BlockKind, ConvShape, ResNetConfig, ResNetShape, Stem};

/// The first convolution, which may differ from the network's and then keeps its random values.
const FIRST: &str = "conv1.weight";
/// A tensor that every ResNet has, by which prefixes are found.
const ANCHOR: &str = "layer1.0.conv1.weight";
/// The same tensor in a numbered network, behind the number of its first stage.
const NUMBERED_ANCHOR: &str = ".0.conv1.weight";
/// First words of the names of a ResNet's own tensors.
const PARTS: [&str; 6] = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"];

/// The tensors of a file, as they are stored.
pub struct StateDict {
    path: PathBuf,
    values: Vec<u8>,
    tensors: BTreeMap<String, TensorInfo>,
    /// What [`crate::nn::weights::save`] was given; empty for a file from elsewhere.
    pub metadata: BTreeMap<String, String>,
}

/// A way to store a network's names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Naming {
    prefix: String,
    /// The numbers that stand for [`PARTS`], in a numbered network.
    numbers: Option<[u32; 6]>,
}

impl Naming {
    /// Returns the file's name of a network's tensor.
    fn stored(&self, name: &str) -> String {
        let renamed = self.numbers.and_then(|numbers| {
            let (part, rest) = name.split_once('.')?;
            let index = PARTS.iter().position(|known| *known == part)?;
            Some(format!("{}{}.{rest}", self.prefix, numbers[index]))
        });
        renamed.unwrap_or_else(|| format!("{}{name}", self.prefix))
    }

    /// Returns the first word of a network's name, from the file's name. `None` if the name is not
    /// under the prefix.
    fn part<'a>(&self, stored: &'a str) -> Option<&'a str> {
        let rest = stored.strip_prefix(&self.prefix)?;
        let word = rest.split('.').next()?;
        let Some(numbers) = self.numbers else {
            return Some(word);
        };
        let number = word.parse().ok();
        let index = numbers.iter().position(|n| Some(*n) == number);
        Some(index.map_or(word, |index| PARTS[index]))
    }

    /// Whether a tensor of the file belongs to a ResNet's own layers.
    fn is_own(&self, stored: &str) -> bool {
        let Some(part) = self.part(stored) else {
            return false;
        };
        // A fifth stage belongs to another network.
        let stage = part.strip_prefix("layer").map(str::parse::<u32>);
        PARTS.contains(&part) || matches!(stage, Some(Ok(_)))
    }
}

/// A network's tensors in a file.
pub struct Found {
    pub config: ResNetConfig,
    /// By the network's names, converted to f32.
    pub values: BTreeMap<String, Vec<f32>>,
    pub prefix: String,
    /// Whether the network's parts are numbered.
    pub is_numbered: bool,
    /// Types that were converted to f32.
    pub converted: Vec<String>,
    /// The number of tensors that do not belong to the network, by their first names.
    pub left_out: BTreeMap<String, usize>,
    /// Tensors that keep their random values, with the shape in the file, if there is one, and the
    /// network's.
    pub kept_random: Vec<(String, Option<Vec<usize>>, Vec<usize>)>,
}

/// The expected content of a file.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The network; `None` takes the one that names and shapes describe.
    pub config: Option<ResNetConfig>,
    /// Classes of the linear layer that is part of it.
    pub classes: Option<usize>,
    /// Whether the first convolution may differ or be absent.
    pub keeps_first: bool,
}

impl StateDict {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// `Error::Io` if it cannot be read; `Error::Data` if it is no whole safetensors file.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |e| Error::read(path, e);
        let about = fs::metadata(path).map_err(failed)?;
        if about.is_dir() {
            let example = ["encoder.safetensors", "model.safetensors"]
                .map(|name| path.join(name))
                .into_iter()
                .find(|file| file.is_file());
            let file = match example {
                Some(file) => format!("the file {}", file.display()),
                None => "a file of weights in it".to_string(),
            };
            let what = format!("it is a folder; name {file}");
            return Err(Error::data(path, what));
        }
        let mut file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        // The size of a pipe is not known in advance.
        let mut len = if about.is_file() {
            about.len()
        } else {
            u64::MAX
        };
        let mut read_up_to = |bytes: &mut Vec<u8>, end: u64| -> Result<()> {
            let rest = end.saturating_sub(bytes.len() as u64);
            file.by_ref()
                .take(rest)
                .read_to_end(bytes)
                .map_err(failed)?;
            Ok(())
        };
        if about.is_file() {
            // Nothing large is read before the header says that it is there.
            read_up_to(&mut bytes, SNIFFED_BYTES as u64)?;
            if let Some(end) = header_bytes(&bytes).filter(|&end| end <= len.min(1 << 27)) {
                read_up_to(&mut bytes, end)?;
            }
            header(&bytes, len, path)?;
        }
        read_up_to(&mut bytes, len)?;
        len = bytes.len() as u64;
        let (start, stored) = header(&bytes, len, path)?;
        Ok(StateDict {
            path: path.to_path_buf(),
            values: bytes.split_off(start),
            metadata: metadata_of(&stored, path)?,
            tensors: tensors(&stored),
        })
    }

    /// Finds the tensors of a network.
    ///
    /// # Errors
    /// `Error::Data` if no network's tensors are there, or several networks' are, or a value is no
    /// finite number.
    pub fn find(&self, wanted: &Wanted) -> Result<Found> {
        let namings = self.namings();
        let mut fitting = Vec::new();
        let mut closest: Option<(ResNetConfig, Mismatch)> = None;
        for naming in &namings {
            let described = self.describe(naming);
            let Some(config) = wanted.config.or(described) else {
                continue;
            };
            let mismatch = self.mismatch(naming, &config, wanted)?;
            if mismatch.is_empty() {
                fitting.push((naming, config));
            } else if closest
                .as_ref()
                .is_none_or(|(_, m)| mismatch.len() < m.len())
            {
                closest = Some((config, mismatch));
            }
        }
        match fitting[..] {
            [(naming, config)] => self.take(naming, config, wanted),
            [] => {
                let config = wanted
                    .config
                    .or(self.guess(&namings))
                    .unwrap_or(ResNetConfig {
                        arch: Arch::ResNet18,
                        stem: Stem::Cifar { padding: 1 },
                        width: 1.0,
                    });
                let (config, mismatch) = match closest {
                    Some(closest) => closest,
                    None => {
                        let none = Naming {
                            prefix: String::new(),
                            numbers: None,
                        };
                        let naming = namings.first().unwrap_or(&none);
                        (config, self.mismatch(naming, &config, wanted)?)
                    }
                };
                Err(self.refuse(&config, &mismatch, &namings, wanted))
            }
            _ => {
                let names = fitting
                    .iter()
                    .map(|(naming, _)| match naming.prefix.as_str() {
                        "" => "no prefix".to_string(),
                        prefix => format!("'{prefix}'"),
                    });
                let names: Vec<String> = names.collect();
                Err(self.error(format!(
                    "it has {} networks that fit, under the prefixes {}; keep one of them in a file of its own",
                    names.len(),
                    listed(&names, ", ")
                )))
            }
        }
    }

    /// Fails if a tensor of a ResNet's own layers, under any prefix, holds a value that is no
    /// finite number.
    ///
    /// # Errors
    /// `Error::Data` that names tensor and value.
    pub fn check_values(&self) -> Result<()> {
        let namings = self.namings();
        let own = |(name, _): &(&String, _)| namings.iter().any(|naming| naming.is_own(name));
        for (name, info) in self.tensors.iter().filter(own) {
            if !name.ends_with(COUNTER) {
                self.floats(name, info)?;
            }
        }
        Ok(())
    }

    fn error(&self, what: String) -> Error {
        Error::data(&self.path, what)
    }

    /// Every way in which names of a ResNet are stored in the file, complete or not.
    fn namings(&self) -> Vec<Naming> {
        let mut found = BTreeSet::new();
        let mut stages: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for name in self.tensors.keys() {
            if let Some(prefix) = name.strip_suffix(ANCHOR) {
                found.insert(Naming {
                    prefix: prefix.to_string(),
                    numbers: None,
                });
            }
            let Some(before) = name.strip_suffix(NUMBERED_ANCHOR) else {
                continue;
            };
            let digits = before.rsplit('.').next().unwrap_or(before);
            if let Ok(number) = digits.parse() {
                let prefix = &before[..before.len() - digits.len()];
                stages.entry(prefix).or_default().push(number);
            }
        }
        for (prefix, mut numbers) in stages {
            numbers.sort_unstable();
            let &[first, second, third, fourth] = &numbers[..] else {
                continue;
            };
            // The batch norm before the stages, and the convolution before that.
            let has = |number: &u32, end: &str| {
                self.tensors
                    .contains_key(&format!("{prefix}{number}.{end}"))
            };
            let norm = (0..first).rev().find(|n| has(n, "running_var"));
            let norm = norm.unwrap_or(first.saturating_sub(3));
            let conv = (0..norm).rev().find(|n| has(n, "weight"));
            let conv = conv.unwrap_or(norm.saturating_sub(1));
            found.insert(Naming {
                prefix: prefix.to_string(),
                numbers: Some([conv, norm, first, second, third, fourth]),
            });
        }
        found.into_iter().collect()
    }

    /// Returns the shape of a network's tensor.
    fn shape(&self, naming: &Naming, name: &str) -> Option<&[usize]> {
        let info = self.tensors.get(&naming.stored(name))?;
        Some(&info.shape)
    }

    /// Returns the network that names and shapes describe. Its tensors need not all be there.
    fn describe(&self, naming: &Naming) -> Option<ResNetConfig> {
        let is_bottleneck = self.shape(naming, "layer1.0.conv3.weight").is_some();
        let kind = if is_bottleneck {
            BlockKind::Bottleneck
        } else {
            BlockKind::Basic
        };
        let blocks = [1, 2, 3, 4].map(|stage| {
            let has = |index: &usize| {
                let name = format!("layer{stage}.{index}.conv1.weight");
                self.shape(naming, &name).is_some()
            };
            (0..).take_while(has).count()
        });
        let known = [Arch::ResNet18, Arch::ResNet34, Arch::ResNet50];
        let arch = known
            .into_iter()
            .find(|arch| arch.block() == kind && arch.blocks() == blocks)?;
        let stem = match self.shape(naming, FIRST) {
            Some([_, _, 7, 7]) => Stem::ImageNet,
            _ => Stem::Cifar { padding: 1 },
        };
        let config = ResNetConfig {
            arch,
            stem,
            width: self.width(naming)?,
        };
        // A tensor without elements may have any shape.
        config.shape().is_ok().then_some(config)
    }

    /// Returns the width whose channel counts are those of the four stages.
    fn width(&self, naming: &Naming) -> Option<f64> {
        let (mut low, mut high) = (0.0_f64, f64::INFINITY);
        let mut last = 0.0;
        for stage in 1..=4 {
            let shape = self.shape(naming, &format!("layer{stage}.0.conv1.weight"))?;
            let channels = *shape.first()?;
            let full = f64::from(32 << stage);
            // Channel counts are multiples of 4, and at least 4.
            let multiple = (channels / 4) as f64;
            if multiple > 1.0 {
                low = low.max((multiple - 0.5) * 4.0 / full);
            }
            high = high.min((multiple + 0.5) * 4.0 / full);
            last = channels as f64 / full;
        }
        if low <= last && last < high {
            return Some(last);
        }
        (low < high && low > 0.0).then_some((low + high) / 2.0)
    }

    /// Returns the network of one of `namings` that comes closest, if any is described.
    fn guess(&self, namings: &[Naming]) -> Option<ResNetConfig> {
        namings.iter().find_map(|naming| self.describe(naming))
    }

    /// Returns the tensors that do not fit the network `config`.
    fn mismatch(
        &self,
        naming: &Naming,
        config: &ResNetConfig,
        wanted: &Wanted,
    ) -> Result<Mismatch> {
        let mut mismatch = Mismatch::default();
        let mut own = BTreeSet::new();
        for (name, expected) in expected(&config.shape()?, wanted.classes) {
            let stored = naming.stored(&name);
            let may_differ = wanted.keeps_first && name == FIRST;
            match self.tensors.get(&stored) {
                Some(info) if info.shape == expected || may_differ => {}
                Some(info) => mismatch.misshaped(&stored, &info.shape, &expected),
                None if may_differ => {}
                None => mismatch.missing.push(stored.clone()),
            }
            own.insert(stored);
        }
        let others = self
            .tensors
            .keys()
            .filter(|name| naming.is_own(name) && !own.contains(*name) && !name.ends_with(COUNTER));
        mismatch.unexpected = others.cloned().collect();
        Ok(mismatch)
    }

    /// The error for a file whose tensors are not those of `config`.
    fn refuse(
        &self,
        config: &ResNetConfig,
        mismatch: &Mismatch,
        namings: &[Naming],
        wanted: &Wanted,
    ) -> Error {
        let alone = Wanted {
            config: None,
            classes: None,
            ..*wanted
        };
        let fits = namings.iter().find_map(|naming| {
            let described = self.describe(naming)?;
            let mismatch = self.mismatch(naming, &described, &alone).ok()?;
            mismatch.is_empty().then_some(described)
        });
        let advice = match fits {
            Some(ResNetConfig { arch, width, .. }) => format!("use --arch {arch} --width {width}"),
            None => "no --arch and --width fit; use weights of a resnet18, resnet34 or resnet50"
                .to_string(),
        };
        self.error(format!(
            "its tensors are not those of {} with width {}: {mismatch}; {advice}",
            config.arch, config.width
        ))
    }

    /// Converts and checks the network's tensors.
    fn take(&self, naming: &Naming, config: ResNetConfig, wanted: &Wanted) -> Result<Found> {
        let mut values = BTreeMap::new();
        let mut kept_random = Vec::new();
        let mut own = BTreeSet::new();
        let mut types = BTreeSet::new();
        for (name, expected) in expected(&config.shape()?, wanted.classes) {
            let stored = naming.stored(&name);
            match self.tensors.get(&stored) {
                Some(info) if info.shape == expected => {
                    let floats = self.floats(&stored, info)?;
                    if info.dtype != Dtype::F32 {
                        types.insert(info.dtype.to_string());
                    }
                    values.insert(name, floats);
                }
                other => kept_random.push((name, other.map(|info| info.shape.clone()), expected)),
            }
            own.insert(stored);
        }
        let mut left_out = BTreeMap::new();
        for name in self.tensors.keys().filter(|name| !own.contains(*name)) {
            *left_out
                .entry(first_name(&naming.prefix, name))
                .or_default() += 1;
        }
        Ok(Found {
            config,
            values,
            prefix: naming.prefix.clone(),
            is_numbered: naming.numbers.is_some(),
            converted: types.into_iter().collect(),
            left_out,
            kept_random,
        })
    }

    /// Returns the values of a tensor, converted to f32.
    fn floats(&self, name: &str, info: &TensorInfo) -> Result<Vec<f32>> {
        let (start, end) = info.data_offsets;
        let bytes = &self.values[start..end];
        let floats: Vec<f32> = match info.dtype {
            Dtype::F32 => bytemuck::pod_collect_to_vec(bytes),
            Dtype::F16 => converted(bytes, f16::to_f32),
            Dtype::BF16 => converted(bytes, bf16::to_f32),
            Dtype::F64 => {
                let values: Vec<f64> = bytemuck::pod_collect_to_vec(bytes);
                let is_too_large = |x: &&f64| x.is_finite() && (**x as f32).is_infinite();
                if let Some(x) = values.iter().find(is_too_large) {
                    return Err(self.error(format!(
                        "{name} holds {x:e}, which is infinite as F32; the file is damaged, use another one"
                    )));
                }
                values.into_iter().map(|x| x as f32).collect()
            }
            other => {
                return Err(self.error(format!(
                    "{name} holds {other}; expected F32, F16, BF16 or F64"
                )));
            }
        };
        check_values(name, &floats).map_err(|what| self.error(what))?;
        Ok(floats)
    }
}

/// Converts 16-bit numbers to f32.
fn converted<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(
    bytes: &[u8],
    convert: fn(T) -> f32,
) -> Vec<f32> {
    let values: Vec<T> = bytemuck::pod_collect_to_vec(bytes);
    values.into_iter().map(convert).collect()
}

/// Returns what is stored, by name.
fn tensors(header: &Metadata) -> BTreeMap<String, TensorInfo> {
    let all = header.tensors().into_iter();
    all.map(|(name, info)| (name, info.clone())).collect()
}

/// Returns the words of a tensor's name up to the first one that is not part of `prefix`. Counters
/// are one kind.
fn first_name(prefix: &str, name: &str) -> String {
    if name.ends_with(COUNTER) {
        return COUNTER.to_string();
    }
    let mut ours = prefix.split('.');
    let mut shared = 0;
    for word in name.split('.') {
        shared += word.len() + 1;
        if ours.next() != Some(word) {
            break;
        }
    }
    name[..(shared - 1).min(name.len())].to_string()
}

/// Returns the names and shapes of a ResNet's parameters and running statistics, and of a linear
/// layer of `classes` classes on it.
pub(super) fn expected(shape: &ResNetShape, classes: Option<usize>) -> Vec<(String, Vec<usize>)> {
    let mut all = Vec::new();
    let mut add = |conv: &ConvShape, norm: String| {
        all.push((format!("{}.weight", conv.name), conv.weight().to_vec()));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            all.push((format!("{norm}.{part}"), vec![conv.outputs]));
        }
    };
    add(&shape.stem, "bn1".to_string());
    for block in &shape.blocks {
        for (index, conv) in block.convs.iter().enumerate() {
            add(conv, format!("{}.bn{}", block.name, index + 1));
        }
        if let Some(conv) = &block.downsample {
            add(conv, format!("{}.downsample.1", block.name));
        }
    }
    if let Some(classes) = classes {
        all.push(("fc.weight".to_string(), vec![classes, shape.feature_width]));
        all.push(("fc.bias".to_string(), vec![classes]));
    }
    all
}
