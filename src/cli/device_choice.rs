//! `--device`: which device a command runs on, and why.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use crate::device::Device;
use crate::device::gpu::{self, AdapterChoice, AdapterDescription, GpuOptions};
use crate::error::{Error, Result};
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
    /// The adapter with this in its name, a software one too.
    Named(String),
}

impl FromStr for DeviceRequest {
    type Err = Infallible;

    fn from_str(word: &str) -> std::result::Result<Self, Infallible> {
        Ok(match word {
            "auto" => DeviceRequest::Auto,
            "cpu" => DeviceRequest::Cpu,
            "gpu" => DeviceRequest::Gpu,
            name => DeviceRequest::Named(name.to_string()),
        })
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceRequest::Auto => "auto",
            DeviceRequest::Cpu => "cpu",
            DeviceRequest::Gpu => "gpu",
            DeviceRequest::Named(name) => name,
        })
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
/// `Error::Usage` if a name fits none of the adapters; `Error::Device` if there is no adapter of the
/// requested kind, or if it cannot be opened.
pub fn open(request: &DeviceRequest) -> Result<ChosenDevice> {
    let (choice, reason) = match request {
        DeviceRequest::Cpu => (None, "it was asked for"),
        DeviceRequest::Auto => {
            let (gpu, reason) = auto_takes_gpu(&adapters());
            (gpu.then_some(AdapterChoice::Hardware), reason)
        }
        DeviceRequest::Gpu => (Some(AdapterChoice::Hardware), "it is the best hardware GPU"),
        DeviceRequest::Named(part) => {
            check_name(part, &adapters())?;
            (Some(AdapterChoice::Named(part.clone())), "it was named")
        }
    };
    let device = match choice {
        None => Device::cpu(),
        Some(adapter) => Device::open_gpu(GpuOptions {
            adapter,
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

/// Fails where adapters are there but none has `part` in its name; where there are none at all, opening says so.
fn check_name(part: &str, adapters: &[AdapterDescription]) -> Result<()> {
    let wanted = part.to_lowercase();
    let fits = |adapter: &AdapterDescription| {
        format!("{} {}", adapter.name, adapter.driver)
            .to_lowercase()
            .contains(&wanted)
    };
    if adapters.is_empty() || (!wanted.is_empty() && adapters.iter().any(fits)) {
        return Ok(());
    }
    let names: Vec<&str> = adapters.iter().map(|a| a.name.as_str()).collect();
    Err(Error::usage(format!(
        "unknown device '{part}'; use auto, cpu, gpu, or a part of an adapter's name ({})",
        names.join(", ")
    )))
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
    fn a_name_that_fits_no_adapter_is_told_with_those_there_are() {
        let there = [adapter("llvmpipe (LLVM 19)", true)];
        assert!(check_name("LLVMPIPE", &there).is_ok());
        let error = check_name("banana", &there).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Usage(_)));
        assert!(
            message.contains("banana") && message.contains("llvmpipe (LLVM 19)"),
            "{message}"
        );
        assert!(check_name("", &there).is_err());
    }
}
