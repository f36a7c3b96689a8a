//! `--device`: which device a command runs on, and why.

use std::cmp::Ordering;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use crate::device::Device;
use crate::device::gpu::{self, AdapterChoice, AdapterDescription, GpuOptions};
use crate::distributed;
use crate::error::{Error, Result, listed};
use crate::runs::cache::KeptPipelines;
use crate::runs::tuning;

/// What `--device` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceRequest {
    /// A hardware GPU if there is one, else the CPU.
    Auto,
    Cpu,
    /// A hardware GPU.
    Gpu,
    /// The adapter with this in its name, in any case, a software one too.
    Named(String),
    /// A device of the list that `devices` prints, where the CPU follows the adapters.
    Numbered(usize),
}

impl FromStr for DeviceRequest {
    type Err = Infallible;

    fn from_str(word: &str) -> std::result::Result<Self, Infallible> {
        Ok(match word.to_ascii_lowercase().as_str() {
            "auto" => DeviceRequest::Auto,
            "cpu" => DeviceRequest::Cpu,
            "gpu" => DeviceRequest::Gpu,
            _ if word.is_empty() || !word.bytes().all(|b| b.is_ascii_digit()) => {
                DeviceRequest::Named(word.to_string())
            }
            digits => DeviceRequest::Numbered(digits.parse().unwrap_or(usize::MAX)),
        })
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceRequest::Auto => f.write_str("auto"),
            DeviceRequest::Cpu => f.write_str("cpu"),
            DeviceRequest::Gpu => f.write_str("gpu"),
            DeviceRequest::Named(name) => f.write_str(name),
            DeviceRequest::Numbered(number) => write!(f, "{number}"),
        }
    }
}

/// An open device, and why it is this one.
pub struct ChosenDevice {
    pub device: Device,
    pub reason: String,
    /// Keeps the GPU's pipelines for the next run when it is dropped.
    _pipelines: Option<KeptPipelines>,
}

/// Every adapter that this machine has.
pub fn adapters() -> Vec<AdapterDescription> {
    pollster::block_on(gpu::adapters())
}

/// Whether `auto` takes a GPU on a machine with these adapters, and why.
pub fn auto_takes_gpu(adapters: &[AdapterDescription]) -> (bool, &'static str) {
    if adapters.iter().any(|adapter| !adapter.is_software) {
        (true, "it is the best hardware GPU")
    } else if adapters.is_empty() {
        (false, "there is no GPU adapter")
    } else {
        (
            false,
            "there is no hardware GPU, and a software one runs only when it is named",
        )
    }
}

/// Opens the device of `request`.
///
/// # Errors
/// `Error::Usage` if a name fits none of the adapters; `Error::Device` if there is no adapter of
/// the requested kind, or if it cannot be opened.
pub fn open(request: &DeviceRequest) -> Result<ChosenDevice> {
    open_for(request, false)
}

/// As [`open`]. If `uses_matrices`, kernels with f16 factors may use the matrix units of a GPU.
///
/// # Errors
/// As [`open`].
pub fn open_for(request: &DeviceRequest, uses_matrices: bool) -> Result<ChosenDevice> {
    let of_rank = of_rank(request);
    let request = of_rank.as_ref().unwrap_or(request);
    let (choice, reason) = match request {
        DeviceRequest::Cpu => (None, "it was asked for"),
        DeviceRequest::Auto => {
            let (gpu, reason) = auto_takes_gpu(&adapters());
            (gpu.then(hardware), reason)
        }
        DeviceRequest::Gpu => (Some(hardware()), "it is the best hardware GPU"),
        DeviceRequest::Named(part) => {
            let choice = match named(part, &adapters())? {
                Some(number) => AdapterChoice::Numbered(number),
                None => AdapterChoice::Named(part.clone()),
            };
            (Some(choice), "it was named")
        }
        DeviceRequest::Numbered(number) => (
            numbered(*number, &adapters())?.map(AdapterChoice::Numbered),
            "it was asked for",
        ),
    };
    let device = match choice {
        None => Device::cpu(),
        Some(adapter) => Device::open_gpu(GpuOptions {
            adapter,
            matrices: uses_matrices,
            ..GpuOptions::default()
        })?,
    };
    let pipelines = device.as_gpu().and_then(KeptPipelines::load);
    if let Some(gpu) = device.as_gpu() {
        tuning::use_stored(gpu);
    }
    Ok(ChosenDevice {
        device,
        reason: reason.to_string(),
        _pipelines: pipelines,
    })
}

/// The request of this rank, if there are several ranks and `request` lists one device for each rank
/// of a machine, as in `0,1`.
fn of_rank(request: &DeviceRequest) -> Option<DeviceRequest> {
    match request {
        DeviceRequest::Named(list) if distributed::launched_ranks() > 1 => {
            let words: Vec<&str> = list.split(',').collect();
            let word = words[distributed::local_rank() % words.len()];
            word.trim().parse().ok()
        }
        _ => None,
    }
}

/// The best hardware GPU. With several ranks, those of a machine take turns in its hardware GPUs.
fn hardware() -> AdapterChoice {
    if distributed::launched_ranks() == 1 {
        return AdapterChoice::Hardware;
    }
    let adapters = adapters();
    let numbers = (0..adapters.len()).filter(|&number| !adapters[number].is_software);
    let numbers: Vec<usize> = numbers.collect();
    match numbers.len() {
        0 => AdapterChoice::Hardware,
        count => AdapterChoice::Numbered(numbers[distributed::local_rank() % count]),
    }
}

/// Returns the number of the first adapter with `part` in its name. `None` if there is no adapter
/// at all: opening one then fails.
///
/// # Errors
/// `Error::Usage` with the list of devices if no name has this part.
fn named(part: &str, adapters: &[AdapterDescription]) -> Result<Option<usize>> {
    let wanted = part.to_lowercase();
    let fits = |adapter: &AdapterDescription| adapter.name.to_lowercase().contains(&wanted);
    let found = adapters
        .iter()
        .position(fits)
        .filter(|_| !wanted.is_empty());
    match found {
        None if !adapters.is_empty() => Err(unknown(part, adapters)),
        found => Ok(found),
    }
}

/// Returns the number of an adapter, or `None` for the CPU, which follows the adapters in the list
/// of devices.
///
/// # Errors
/// `Error::Usage` with the list of devices if it is shorter.
fn numbered(number: usize, adapters: &[AdapterDescription]) -> Result<Option<usize>> {
    match number.cmp(&adapters.len()) {
        Ordering::Less => Ok(Some(number)),
        Ordering::Equal => Ok(None),
        Ordering::Greater => Err(unknown(&number.to_string(), adapters)),
    }
}

fn unknown(word: &str, adapters: &[AdapterDescription]) -> Error {
    let names = adapters.iter().map(|adapter| adapter.name.as_str());
    let list: Vec<String> = names
        .chain(["cpu"])
        .enumerate()
        .map(|(number, name)| format!("{number} {name}"))
        .collect();
    Error::usage(format!(
        "unknown device '{word}'; use auto, cpu, gpu, a part of an adapter's name, or a number of this list: {}",
        listed(&list, ", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, is_software: bool) -> AdapterDescription {
        AdapterDescription {
            name: name.to_string(),
            backend: "vulkan".to_string(),
            driver: "a driver".to_string(),
            kind: if is_software { "cpu" } else { "discrete" },
            is_software,
            subgroup_size: [8, 8],
            max_buffer_bytes: 1 << 30,
            max_binding_bytes: 1 << 27,
            max_workgroup_invocations: 1024,
            max_workgroup_bytes: 32_768,
            features: Vec::new(),
        }
    }

    #[test]
    fn auto_takes_hardware_and_never_software() {
        assert!(!auto_takes_gpu(&[]).0);
        assert!(!auto_takes_gpu(&[adapter("llvmpipe", true)]).0);
        assert!(auto_takes_gpu(&[adapter("llvmpipe", true), adapter("A card", false)]).0);
    }

    #[test]
    fn a_name_fits_adapters_and_no_drivers() {
        let there = [
            adapter("A card", false),
            adapter("llvmpipe (LLVM 15.0.6)", true),
        ];
        assert_eq!(named("LLVMPIPE", &there).unwrap(), Some(1));
        assert_eq!(named("a CARD", &there).unwrap(), Some(0));
        for word in ["banana", "driver", ""] {
            let error = named(word, &there).unwrap_err();
            assert!(matches!(error, Error::Usage(_)));
            let message = error.to_string();
            assert!(
                message.contains(&format!("'{word}'"))
                    && message.contains("1 llvmpipe (LLVM 15.0.6), 2 cpu"),
                "{message}"
            );
        }
        assert_eq!(named("banana", &[]).unwrap(), None);
    }

    #[test]
    fn a_number_is_a_place_in_the_list() {
        let there = [adapter("A card", false), adapter("A card", false)];
        let of = |word: &str| match word.parse::<DeviceRequest>().unwrap() {
            DeviceRequest::Numbered(number) => numbered(number, &there),
            other => panic!("{word} is {other:?}"),
        };
        assert_eq!(of("0").unwrap(), Some(0));
        assert_eq!(of("1").unwrap(), Some(1));
        assert_eq!(of("2").unwrap(), None, "the CPU");
        for word in ["3", "15", "99999999999999999999999"] {
            let message = of(word).unwrap_err().to_string();
            assert!(message.contains("0 A card, 1 A card, 2 cpu"), "{message}");
        }
    }

    #[test]
    fn words_are_read_in_any_case() {
        for (word, request) in [
            ("CPU", DeviceRequest::Cpu),
            ("Auto", DeviceRequest::Auto),
            ("gPU", DeviceRequest::Gpu),
            ("3", DeviceRequest::Numbered(3)),
            ("rtx 4090", DeviceRequest::Named("rtx 4090".to_string())),
        ] {
            assert_eq!(word.parse::<DeviceRequest>().unwrap(), request);
        }
    }
}
