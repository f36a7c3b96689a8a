//! `parallax devices`: what there is to run on.

use clap::Args;

use super::device_choice::{adapters, auto_takes_gpu};
use crate::device::gpu::variants::{TableKey, VariantTable};
use crate::device::gpu::{AdapterDescription, kernels};
use crate::error::Result;
use crate::runs::cache::{read_table, table_path};

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
        println!("  variants   {}", variants(adapter));
        println!();
    }
    if adapters.is_empty() {
        println!("no GPU adapter\n");
    }
    println!("cpu: cpu");
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

/// Which variants of its kernels a training on `adapter` runs.
fn variants(adapter: &AdapterDescription) -> String {
    let key = TableKey {
        adapter: adapter.name.clone(),
        driver: adapter.driver.clone(),
        shaders: kernels::digest(),
    };
    let stored = read_table(&key).zip(table_path(&key));
    let ships = VariantTable::ships_for(&adapter.name);
    let shipped = VariantTable::shipped(key);
    match stored {
        Some((table, path)) if ships => format!(
            "{}; with --tune those {} in {}",
            shipped.source,
            table.summary(),
            path.display()
        ),
        Some((table, path)) => format!("{} in {}", table.summary(), path.display()),
        None if ships => shipped.source,
        None => format!("{}; the first training measures them", shipped.source),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
