//! `parallax selftest`: checks that a device computes correctly.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::arguments::positive;
use super::device_choice::{DeviceRequest, adapters, open_for};
use crate::console::{self, say};
use crate::device::Device;
use crate::device::gpu::AdapterDescription;
use crate::error::{Error, Result, listed};
use crate::runs::tuning::reject;
use crate::selftest::{self, Family, Report, Wrong};

/// Check that a device computes every operation correctly
///
/// Compares each kernel and variant with float64, with f32 and f16 activations; gradients with
/// central differences; the shapes of a ResNet-50; a short training with the CPU; and repetitions
/// bit for bit. Variants with wrong results are stored, and no later command uses them. With
/// --json, stdout has all results, for a bug report.
#[derive(Args)]
pub struct Arguments {
    /// What to test: auto, cpu, gpu, a part of an adapter's name, or a number of the list that
    /// devices prints
    #[arg(long, default_value = "auto")]
    device: DeviceRequest,

    /// Stop after about this many seconds. Cases that have not run by then are listed
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = positive)]
    seconds: f64,
}

/// The object of `--json`.
#[derive(Serialize)]
struct Results<'a> {
    adapter: Option<AdapterDescription>,
    #[serde(flatten)]
    report: &'a Report,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let chosen = open_for(&arguments.device, true)?;
    let device = &chosen.device;
    say!("device  {}: {}", device.name(), chosen.reason);
    if let Some(table) = device.variants() {
        say!(
            "driver  {}, shaders {}",
            table.key.driver,
            table.key.shaders
        );
    }
    // Failures of a family so far; a family is printed again if a repetition has failed.
    let mut failed = BTreeMap::new();
    let report = selftest::run(device, arguments.seconds, &mut |family| {
        let before = failed.insert(family.name.clone(), family.failures);
        if before != Some(family.failures) {
            print_family(family);
        }
    })?;
    print_summary(&report);
    console::json(&Results {
        adapter: adapters().into_iter().find(|a| a.name == report.device),
        report: &report,
    });
    verdict(device, &report)
}

/// One line, and the first failures.
fn print_family(family: &Family) {
    let word = match (family.failures, family.comparisons) {
        (1.., _) => "WRONG",
        (_, 0) => "not run",
        _ => "ok",
    };
    let mut line = format!(
        "{word:<7} {}, {} results, worst {:.2} of the bound",
        family.name, family.comparisons, family.worst
    );
    if family.failures > 0 {
        line += &format!(", {} wrong", family.failures);
    }
    if family.not_run > 0 {
        line += &format!(", {} cases not run", family.not_run);
    }
    say!("{line}, {:.1} s", family.seconds);
    for failure in &family.described {
        say!("        {failure}");
    }
}

fn print_summary(report: &Report) {
    let after = |passes| {
        report
            .families
            .iter()
            .filter(|f| f.passes >= passes)
            .count()
    };
    say!(
        "repeats {} of {} families with equal input, and {} with other input, in {:.0} s",
        after(2),
        report.families.len(),
        after(3),
        report.seconds
    );
    let not_run = report.families.iter().filter(|family| family.not_run > 0);
    let not_run: Vec<String> = not_run
        .map(|family| match family.comparisons {
            0 => family.name.clone(),
            _ => format!("{} cases of {}", family.not_run, family.name),
        })
        .collect();
    if !not_run.is_empty() {
        say!("time    not run: {}", not_run.join(", "));
    }
    if !report.kernels_not_run.is_empty() {
        say!("kernels not run: {}", report.kernels_not_run.join(", "));
    }
}

/// Stores the wrong variants, and prints the last line.
fn verdict(device: &Device, report: &Report) -> Result<()> {
    if report.is_ok() {
        if report.families.iter().all(|family| family.not_run == 0) {
            say!("selftest: ok");
        } else {
            say!("selftest: ok so far; raise --seconds, so that every case runs");
        }
        return Ok(());
    }
    let rejected = report.rejected();
    if let Some(gpu) = device.as_gpu().filter(|_| !rejected.is_empty()) {
        match reject(gpu, &rejected) {
            Ok(path) => say!(
                "stored  no later command uses the wrong variants: {}",
                path.display()
            ),
            Err(error) => console::error(format_args!(
                "warning: the wrong variants are not stored: {error}"
            )),
        }
    }
    let name = |wrong: &Wrong| match wrong.variant {
        Some(variant) => format!("{} {variant}", wrong.operation),
        None => wrong.operation.clone(),
    };
    let names = listed(report.wrong.iter().map(name), ", ");
    let count = report.wrong.len();
    say!("selftest: {count} kernels are wrong: {names}");
    let advice = if report.wrong.iter().any(|wrong| wrong.variant.is_none()) {
        "use --device cpu, and report a bug with the output of --json"
    } else {
        "other variants of these kernels are right and are used from now on"
    };
    Err(Error::Guard(format!(
        "{} computes wrong results ({names}); {advice}",
        device.name()
    )))
}
