//! The adapters that this machine has, and the choice of one.

use crate::error::{Error, Result};

/// Which adapter to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The best hardware adapter: a discrete one before an integrated one before a virtual one.
    Hardware,
    /// The first adapter whose name or driver contains this text, in any case; a software one too.
    Named(String),
    /// An adapter by its place in [`adapters`]; a software one too.
    Numbered(usize),
}

/// An adapter as `parallax devices` shows it.
#[derive(Clone, Debug)]
pub struct AdapterDescription {
    pub name: String,
    pub backend: String,
    pub driver: String,
    /// discrete, integrated, virtual, cpu or other
    pub kind: &'static str,
    /// Whether it computes on the processor.
    pub is_software: bool,
    /// Smallest and largest subgroup.
    pub subgroup_size: [u32; 2],
    /// Largest tensor, in bytes.
    pub max_buffer_bytes: u64,
    /// Largest part of a tensor that a kernel sees at once, in bytes.
    pub max_binding_bytes: u64,
    pub max_workgroup_invocations: u32,
    pub max_workgroup_bytes: u32,
    pub features: Vec<String>,
}

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle())
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

pub(super) fn is_software(info: &wgpu::AdapterInfo) -> bool {
    let name = info.name.to_lowercase();
    info.device_type == wgpu::DeviceType::Cpu
        || ["llvmpipe", "lavapipe", "swiftshader", "basic render"]
            .iter()
            .any(|software| name.contains(software))
}

/// The driver with its version.
pub(super) fn driver(info: &wgpu::AdapterInfo) -> String {
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

/// Every adapter, in the order in which the drivers name them.
pub async fn adapters() -> Vec<AdapterDescription> {
    let found = instance().enumerate_adapters(wgpu::Backends::all()).await;
    found.iter().map(describe).collect()
}

/// The adapter of `choice`.
///
/// # Errors
/// `Error::Device` where there is none, with the names of those that there are.
pub(super) async fn choose(choice: &AdapterChoice) -> Result<wgpu::Adapter> {
    let mut found = instance().enumerate_adapters(wgpu::Backends::all()).await;
    let names: Vec<String> = found.iter().map(|a| a.get_info().name).collect();
    let there_are = if names.is_empty() {
        "no adapter was found; install a Vulkan driver or use --device cpu".to_string()
    } else {
        format!("the adapters are: {}", names.join(", "))
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
                Error::device("gpu", format!("there is no hardware GPU; {there_are}"))
            })
        }
        AdapterChoice::Numbered(number) => found.into_iter().nth(*number).ok_or_else(|| {
            Error::device("gpu", format!("there is no adapter {number}; {there_are}"))
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
                    Error::device(
                        part,
                        format!("no adapter has this in its name; {there_are}"),
                    )
                })
        }
    }
}
