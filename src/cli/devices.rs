//! `parallax devices`: what there is to run on.

use clap::Args;

use super::device_choice::{adapters, auto_takes_gpu};
use crate::device::cpu::CpuDevice;
use crate::device::kernels::Kernels;
use crate::error::Result;

/// List every GPU adapter with its backend, limits and features, and the CPU; say which one --device auto takes
#[derive(Args)]
pub struct Arguments {}

pub fn run(_: &Arguments) -> Result<()> {
    let adapters = adapters();
    for adapter in &adapters {
        let software = if adapter.is_software {
            ", software: runs only when named"
        } else {
            ""
        };
        let [smallest, largest] = adapter.subgroup_size;
        println!("{} ({}{software})", adapter.name, adapter.kind);
        println!("  backend    {}", adapter.backend);
        println!("  driver     {}", adapter.driver);
        println!(
            "  limits     buffer {}, binding {}, workgroup {} invocations and {} bytes",
            mebibytes(adapter.max_buffer_bytes),
            mebibytes(adapter.max_binding_bytes),
            adapter.max_workgroup_invocations,
            adapter.max_workgroup_bytes
        );
        println!("  subgroup   {smallest} to {largest}");
        println!("  features   {}", adapter.features.join(", "));
        println!();
    }
    if adapters.is_empty() {
        println!("no GPU adapter\n");
    }
    println!("cpu: {}", CpuDevice::new().name());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("  threads    {threads}");
    println!("  processor  {}\n", std::env::consts::ARCH);
    let (gpu, reason) = auto_takes_gpu(&adapters);
    let taken = match gpu {
        true => "the GPU that --device gpu takes",
        false => "cpu",
    };
    println!("--device auto takes {taken}: {reason}");
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
