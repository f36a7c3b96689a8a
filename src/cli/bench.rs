//! `parallax bench`: measures the speed of a device.

use std::path::{Path, PathBuf};

use clap::Args;

use super::arguments::positive;
use super::device_choice::{DeviceRequest, open_for};
use crate::bench::{self, Part, Results, Row, rate};
use crate::console::{self, say};
use crate::error::{Error, Result, listed};
use crate::runs::whole_file::write_file;

/// Measure a device: ceilings, costs of launches and transfers, the kernels of a ResNet-50, and
/// training steps
///
/// The share of a kernel is its rate relative to the ceiling that was measured on the same device:
/// multiply-adds, or copied bytes. Nothing else should run on the device. On software adapters and
/// the CPU, sizes are small. With --json, stdout has all measurements.
#[derive(Args)]
pub struct Arguments {
    /// What to measure: auto, cpu, gpu, a part of an adapter's name, or a number of the list that
    /// devices prints
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,

    /// Stop after about this many seconds. Parts that have not been measured by then are listed
    #[arg(long, value_name = "SECONDS", default_value = "50", value_parser = positive)]
    seconds: f64,

    /// Measure one part, after the ceilings: ceilings, memory, costs, kernels or steps
    #[arg(long, value_name = "PART")]
    only: Option<Part>,

    /// Write the fastest variants to this file, as an entry of src/device/gpu/variants/shipped.toml
    #[arg(long, value_name = "FILE")]
    write_table: Option<PathBuf>,

    /// Draw the kernels' rates below the ceilings (a roofline) to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let chosen = open_for(&arguments.device, true)?;
    let device = &chosen.device;
    say!("device  {}: {}", device.name(), chosen.reason);
    let mut part = None;
    let results = bench::run(device, arguments.only, arguments.seconds, &mut |row| {
        if part != Some(row.part) {
            part = Some(row.part);
            say!(
                "\n{:<58} {:>11} {:>16} {:>7}",
                row.part.name(),
                "time",
                "rate",
                "share"
            );
        }
        print_row(row);
    })?;
    say!("");
    if results.is_small {
        say!("sizes are small, so these rates are not those of a training");
    }
    if !results.not_measured.is_empty() {
        say!(
            "not measured, raise --seconds: {}",
            listed(&results.not_measured, "; ")
        );
    }
    write_files(arguments, &results)?;
    console::json(&results);
    say!(
        "bench: {} measurements in {:.0} s",
        results.rows.len(),
        results.seconds
    );
    Ok(())
}

fn print_row(row: &Row) {
    let name = match row.variant {
        Some(variant) => format!("{}, {variant}", row.name),
        None => row.name.clone(),
    };
    let measured = row.rate.zip(row.unit);
    let rate = measured.map_or(String::new(), |(value, unit)| rate(value, unit));
    let share = row
        .share
        .map_or(String::new(), |share| format!("{:.0} %", 100.0 * share));
    let line = format!("{name:<58} {:>11} {rate:>16} {share:>7}", time(row.seconds));
    say!("{}", format!("{line}  {}", row.note).trim_end());
}

/// Seconds with three digits and a prefix.
fn time(seconds: f64) -> String {
    let (scaled, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (1e3 * s, "ms"),
        s => (1e6 * s, "us"),
    };
    let digits = if scaled < 10.0 { 2 } else { 1 };
    format!("{scaled:.digits$} {unit}")
}

fn write_files(arguments: &Arguments, results: &Results) -> Result<()> {
    let write = |what: &str, path: &Path, content: &[u8]| -> Result<()> {
        write_file(path, content)?;
        say!("{what:<7} {}", path.display());
        Ok(())
    };
    let missing = |option: &str, what: &str| {
        Error::usage(format!(
            "{option}: {what} was measured; use --only kernels, a GPU and more --seconds"
        ))
    };
    if let Some(path) = &arguments.write_table {
        let entry = results.table_entry();
        let entry = entry.ok_or_else(|| missing("--write-table", "no variant"))?;
        write("table", path, entry.as_bytes())?;
    }
    if let Some(path) = &arguments.svg {
        let figure = bench::svg(results).ok_or_else(|| missing("--svg", "no kernel"))?;
        write("svg", path, figure.as_bytes())?;
    }
    Ok(())
}
