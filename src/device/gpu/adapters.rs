//! The adapters of this machine, and the choice of one.

use serde::Serialize;

use crate::error::{Error, Result};

/// Which adapter to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The best hardware adapter: discrete, then integrated, then others.
    Hardware,
    /// The first adapter, hardware or software, whose name or driver contains this text. Case is
    /// ignored.
    Named(String),
    /// An adapter, hardware or software, by its index in [`adapters`].
    Numbered(usize),
}

/// Properties of an adapter, for lists.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterDescription {
    pub name: String,
    pub backend: String,
    pub driver: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: &'static str,
    /// Whether it is software that runs on the CPU.
    pub is_software: bool,
    /// Smallest and largest size of a subgroup.
    pub subgroup_size: [u32; 2],
    /// Bytes of the largest possible tensor.
    pub max_buffer_bytes: u64,
    /// Maximum bytes per binding of a kernel.
    pub max_binding_bytes: u64,
    pub max_workgroup_invocations: u32,
    pub max_workgroup_bytes: u32,
    pub features: Vec<String>,
}

/// The part in percent of the memory that the driver grants to this process, as it reports it, at
/// which allocations fail. Without it, a driver moves tensors to slow memory, or the device is
/// lost.
const MEMORY_PERCENT: u8 = 98;

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
            for_resource_creation: Some(MEMORY_PERCENT),
            for_device_loss: None,
        },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

fn kind(info: &wgpu::AdapterInfo) -> &'static str {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "cpu",
        wgpu::DeviceType::Other => "other",
    }
}

pub(crate) fn is_software(info: &wgpu::AdapterInfo) -> bool {
    let name = info.name.to_lowercase();
    info.device_type == wgpu::DeviceType::Cpu
        || ["llvmpipe", "lavapipe", "swiftshader", "basic render"]
            .iter()
            .any(|software| name.contains(software))
}

/// The name and version of the driver.
pub(crate) fn driver(info: &wgpu::AdapterInfo) -> String {
    let words = format!("{} {}", info.driver, info.driver_info);
    words.trim().to_string()
}

fn describe(adapter: &wgpu::Adapter) -> AdapterDescription {
    let info = adapter.get_info();
    let limits = adapter.limits();
    AdapterDescription {
        kind: kind(&info),
        is_software: is_software(&info),
        subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
        max_buffer_bytes: limits.max_buffer_size,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        features: adapter
            .features()
            .iter_names()
            .map(|(name, _)| name.to_string())
            .collect(),
        driver: driver(&info),
        backend: info.backend.to_string(),
        name: info.name,
    }
}

/// All adapters, in the order of the drivers.
pub async fn adapters() -> Vec<AdapterDescription> {
    let found = instance().enumerate_adapters(wgpu::Backends::all()).await;
    found.iter().map(describe).collect()
}

/// Finds the adapter of `choice`.
///
/// # Errors
/// `Error::Device` if there is no such adapter. The message lists all adapters.
pub(crate) async fn choose(choice: &AdapterChoice) -> Result<wgpu::Adapter> {
    let mut found = instance().enumerate_adapters(wgpu::Backends::all()).await;
    let names: Vec<String> = found.iter().map(|a| a.get_info().name).collect();
    let available = if names.is_empty() {
        "there is no adapter; install a Vulkan driver or use the CPU".to_string()
    } else {
        format!("name one of {}, or use the CPU", names.join(", "))
    };
    match choice {
        AdapterChoice::Hardware => {
            let rank = |adapter: &wgpu::Adapter| match adapter.get_info().device_type {
                wgpu::DeviceType::DiscreteGpu => 0,
                wgpu::DeviceType::IntegratedGpu => 1,
                _ => 2,
            };
            found.retain(|adapter| !is_software(&adapter.get_info()));
            found.sort_by_key(rank);
            found.into_iter().next().ok_or_else(|| {
                Error::device("gpu", format!("there is no hardware GPU; {available}"))
            })
        }
        AdapterChoice::Numbered(number) => found.into_iter().nth(*number).ok_or_else(|| {
            Error::device("gpu", format!("there is no adapter {number}; {available}"))
        }),
        AdapterChoice::Named(part) => {
            let wanted = part.to_lowercase();
            found
                .into_iter()
                .find(|adapter| {
                    let info = adapter.get_info();
                    format!("{} {}", info.name, info.driver)
                        .to_lowercase()
                        .contains(&wanted)
                })
                .ok_or_else(|| {
                    let message = format!("no adapter has this name; {available}");
                    Error::device(part, message)
                })
        }
    }
}
