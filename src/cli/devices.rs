//! `parallax devices`: lists the devices.

use clap::Args;
use serde_json::json;

use super::device_choice::{adapters, auto_takes_gpu};
use crate::console::{self, say};
use crate::device::gpu::variants::{TableKey, VariantTable};
use crate::device::gpu::{AdapterDescription, kernels};
use crate::error::Result;
use crate::runs::cache::{read_table, table_path};

/// List the GPU adapters with their backends, limits and features, the CPU, and the choice of
/// --device auto
///
/// --device takes the number before a name, or a part of an adapter's name.
#[derive(Args)]
pub struct Arguments {}

pub fn run(_: &Arguments) -> Result<()> {
    let adapters = adapters();
    for (number, adapter) in adapters.iter().enumerate() {
        console::json(&json!({
            "number": number,
            "name": &adapter.name,
            "kind": adapter.kind,
            "is_software": adapter.is_software,
            "backend": &adapter.backend,
            "driver": &adapter.driver,
            "max_buffer_bytes": adapter.max_buffer_bytes,
            "max_binding_bytes": adapter.max_binding_bytes,
            "max_workgroup_invocations": adapter.max_workgroup_invocations,
            "max_workgroup_bytes": adapter.max_workgroup_bytes,
            "subgroup_size": adapter.subgroup_size,
            "features": &adapter.features,
            "variants": variants(adapter),
        }));
        let software = if adapter.is_software {
            ", software: runs only when named"
        } else {
            ""
        };
        let [smallest, largest] = adapter.subgroup_size;
        say!("{number}: {} ({}{software})", adapter.name, adapter.kind);
        say!("  backend    {}", adapter.backend);
        say!("  driver     {}", adapter.driver);
        say!(
            "  limits     buffer {}, binding {}, workgroup {} invocations and {} bytes",
            mebibytes(adapter.max_buffer_bytes),
            mebibytes(adapter.max_binding_bytes),
            adapter.max_workgroup_invocations,
            adapter.max_workgroup_bytes
        );
        say!("  subgroup   {smallest} to {largest}");
        say!("  features   {}", adapter.features.join(", "));
        say!("  variants   {}", variants(adapter));
        say!("");
    }
    if adapters.is_empty() {
        say!("no GPU adapter\n");
    }
    say!("{}: cpu", adapters.len());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    say!("  threads    {threads}");
    say!("  processor  {}\n", std::env::consts::ARCH);
    console::json(&json!({
        "number": adapters.len(),
        "name": "cpu",
        "threads": threads,
        "processor": std::env::consts::ARCH,
    }));
    let (gpu, reason) = auto_takes_gpu(&adapters);
    let taken = if gpu {
        "the GPU that --device gpu takes"
    } else {
        "cpu"
    };
    say!("--device auto takes {taken}: {reason}");
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
    let shipped = VariantTable::shipped(key, adapter.max_workgroup_bytes);
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
