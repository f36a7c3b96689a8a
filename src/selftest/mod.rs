//! The self-test of a device: whether it computes every operation right.
//!
//! It runs the cases of the unit tests (`ops/*/cases.rs`): each kernel and variant with f32 and f16
//! activations against float64, with the error bounds of the tests, and gradients against central
//! differences. The shapes of a ResNet-50 and a short training follow. Everything runs again with
//! the same input, which must give the same bits, and with other input, as long as there is time.

mod network;
mod step_through;

use std::time::Duration;

use serde::Serialize;
use web_time::Instant;

use crate::device::gpu::kernels::SHADERS;
use crate::device::gpu::variants::{Operation, Variant, VariantTable};
use crate::device::{Cpu, Device, Gpu};
use crate::error::Result;
use crate::ops::CASES;
use crate::testing::tester::{Candidate, Comparison, Run};
use crate::testing::{SEED, Tester};

#[cfg(feature = "cli")]
pub(crate) use network::classifier;

pub use crate::testing::tester::{GRADIENT_TOLERANCE, SMALL_BINDING};
pub use step_through::{StepThrough, differentiable, step_through};

/// Runs of each family: twice with the same input, then with other input.
const PASSES: [(&str, u64); 4] = [
    ("", SEED),
    ("again with equal input", SEED),
    ("with other input", SEED + 1),
    ("with other input", SEED + 2),
];
/// Entry points that are the same in several variants of a shader, and are launched in another one.
const NEVER_LAUNCHED: [(&str, &str); 4] = [
    ("batch_norm_vectors", "merge_statistics"),
    ("batch_norm_vectors", "update_averages"),
    ("batch_norm_vectors", "update_running"),
    ("conv2d_dw_plain_f16", "reduce"),
];
/// Failures of a family that are described. All are counted.
const DESCRIBED: usize = 5;

/// The result of a self-test.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub device: String,
    /// Name and version of a GPU's driver.
    pub driver: Option<String>,
    /// The digest of the shaders.
    pub shaders: Option<String>,
    pub seconds: f64,
    pub families: Vec<Family>,
    /// Operations with wrong results, each with the variant if others are right.
    pub wrong: Vec<Wrong>,
    /// Kernels that no case launched, by shader and entry point: the adapter does not support them,
    /// or the time was up.
    pub kernels_not_run: Vec<String>,
}

/// The cases of one operation or group of operations.
#[derive(Debug, Default, Serialize)]
pub struct Family {
    pub name: String,
    /// Number of compared results, in all passes.
    pub comparisons: usize,
    /// The largest error as a multiple of its bound, among results that are right.
    pub worst: f64,
    pub failures: usize,
    /// Descriptions of the first failures.
    pub described: Vec<String>,
    /// Number of cases of the first pass that did not run because the time was up; 1 if none ran.
    pub not_run: usize,
    /// Complete passes.
    pub passes: usize,
    pub seconds: f64,
    #[serde(skip)]
    wrong: Vec<Wrong>,
    #[serde(skip)]
    digests: Vec<u64>,
}

/// An operation that computes wrong results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wrong {
    pub operation: String,
    /// The variant, if plain is right.
    pub variant: Option<Variant>,
}

impl Report {
    /// Whether no result was wrong.
    pub fn is_ok(&self) -> bool {
        self.families.iter().all(|family| family.failures == 0)
    }

    /// The variants that are wrong on operations whose plain variant is right.
    pub fn rejected(&self) -> Vec<(Operation, Variant)> {
        let known = |wrong: &Wrong| {
            let operation = Operation::ALL
                .into_iter()
                .find(|o| o.name() == wrong.operation);
            operation.zip(wrong.variant)
        };
        self.wrong.iter().filter_map(known).collect()
    }
}

/// Tests `device` for about `seconds` seconds. `report` is called with each family that has run, up
/// to four times.
///
/// A GPU must run nothing else until this function returns.
///
/// # Errors
/// `Error::Device` if the device was lost.
pub fn run(device: &Device, seconds: f64, report: &mut dyn FnMut(&Family)) -> Result<Report> {
    test(device, &all(), (seconds, PASSES.len()), report)
}

/// Every family with its cases.
fn all() -> Vec<(&'static str, Run)> {
    let own: [(&str, Run); 2] = [
        ("resnet50", network::resnet50),
        ("training", network::training),
    ];
    [CASES, &own].concat()
}

fn test(
    device: &Device,
    cases: &[(&str, Run)],
    (seconds, passes): (f64, usize),
    report: &mut dyn FnMut(&Family),
) -> Result<Report> {
    let started = Instant::now();
    let deadline = started + Duration::from_secs_f64(seconds.clamp(0.0, 1e9));
    let table = device.variants();
    let candidates = candidates(device);
    let named = |(name, _): &(&str, Run)| Family {
        name: name.to_string(),
        ..Family::default()
    };
    let mut families: Vec<Family> = cases.iter().map(named).collect();
    let mut outcome = Ok(());
    for (pass, (_, seed)) in PASSES.into_iter().enumerate().take(passes) {
        for ((_, run), family) in cases.iter().zip(&mut families) {
            if outcome.is_err() || Instant::now() >= deadline {
                family.not_run += usize::from(pass == 0);
                continue;
            }
            let tester = Tester::new(candidates.clone(), seed, Some(deadline));
            family.run(&tester, *run, pass);
            outcome = device.as_gpu().map_or(Ok(()), Gpu::check);
            report(family);
        }
    }
    device.round_factors(false);
    if let (Some(gpu), Some(table)) = (device.as_gpu(), &table) {
        gpu.use_variants(table.clone());
        gpu.limit_bindings(None);
    }
    outcome?;
    let key = table.map(|table| table.key);
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        device: device.name(),
        driver: key.as_ref().map(|key| key.driver.clone()),
        shaders: key.map(|key| key.shaders),
        seconds: started.elapsed().as_secs_f64(),
        wrong: wrong(&families),
        families,
        kernels_not_run: device.as_gpu().map_or(Vec::new(), kernels_not_run),
    })
}

/// The device, with small bindings too, and once for each variant of products and convolutions.
fn candidates(device: &Device) -> Vec<Candidate> {
    let Some(gpu) = device.as_gpu() else {
        let direct = Cpu::without_winograd().into();
        return vec![
            Candidate::new("cpu", device.clone()),
            Candidate::of_products("cpu without winograd", direct, None),
        ];
    };
    let own = || device.clone();
    gpu.use_variants(VariantTable::only(Variant::Plain, gpu.variants().key));
    let others = Variant::ALL.into_iter().filter(|v| *v != Variant::Plain);
    let others = others.filter(|variant| gpu.has(*variant));
    let others = others.map(|v| Candidate::of_products(v.name(), own(), Some(v)));
    [
        Candidate::new("plain", own()),
        Candidate::sliced("plain with small bindings", own()),
    ]
    .into_iter()
    .chain(others)
    .collect()
}

impl Family {
    /// Runs the cases, and compares the bits with those of the pass before it.
    fn run(&mut self, tester: &Tester, run: Run, pass: usize) {
        let started = Instant::now();
        let (what, seed) = PASSES[pass];
        let is_repeated = pass > 0 && PASSES[pass - 1].1 == seed;
        let result = run(tester);
        let mut digests = Vec::new();
        for comparison in tester.take_comparisons() {
            let before = self.digests.get(digests.len()).copied();
            digests.push(comparison.digest);
            self.add(&comparison, what);
            if is_repeated && before.is_some_and(|before| before != comparison.digest) {
                let message = format!("{}: two equal runs have other bits", comparison.operation);
                self.fail(comparison.operation, comparison.variant, message);
            }
        }
        self.digests = digests;
        if let Err(error) = result {
            self.fail(&self.name.clone(), None, error.to_string());
        }
        if pass == 0 {
            self.not_run = tester.skipped();
        }
        self.passes += usize::from(tester.skipped() == 0);
        self.seconds += started.elapsed().as_secs_f64();
    }

    fn add(&mut self, comparison: &Comparison, what: &str) {
        self.comparisons += 1;
        match &comparison.failure {
            None => self.worst = self.worst.max(comparison.excess),
            Some(failure) => {
                let message = format!("{failure} {what}").trim_end().to_string();
                self.fail(comparison.operation, comparison.variant, message);
            }
        }
    }

    fn fail(&mut self, operation: &str, variant: Option<Variant>, message: String) {
        self.failures += 1;
        if self.described.len() < DESCRIBED {
            self.described.push(message);
        }
        let operation = operation.to_string();
        let wrong = Wrong { operation, variant };
        if !self.wrong.contains(&wrong) {
            self.wrong.push(wrong);
        }
    }
}

/// The wrong operations of all families. The variant is named only if plain is right.
fn wrong(families: &[Family]) -> Vec<Wrong> {
    let mut all: Vec<Wrong> = Vec::new();
    for wrong in families.iter().flat_map(|family| &family.wrong) {
        if !all.contains(wrong) {
            all.push(wrong.clone());
        }
    }
    let plain: Vec<Wrong> = all
        .iter()
        .filter(|w| w.variant.is_none())
        .cloned()
        .collect();
    all.retain(|wrong| {
        let is_plain_wrong = plain.iter().any(|plain| plain.operation == wrong.operation);
        wrong.variant.is_none() || !is_plain_wrong
    });
    all
}

/// The kernels of the shader table that `gpu` has not run.
fn kernels_not_run(gpu: &Gpu) -> Vec<String> {
    let compiled = gpu.kernels_used();
    let kernels = SHADERS.iter().flat_map(|shader| {
        let names = shader.entry_points.iter();
        names.map(|name| (shader.name, *name))
    });
    kernels
        .filter(|kernel| !compiled.contains(kernel) && !NEVER_LAUNCHED.contains(kernel))
        .map(|(shader, name)| format!("{shader} {name}"))
        .collect()
}

#[cfg(test)]
mod tests;
