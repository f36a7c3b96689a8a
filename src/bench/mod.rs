//! Measures a device: its ceilings, the costs of launches and transfers, each kernel of a
//! ResNet-50, and training steps.
//!
//! Rates are compared with ceilings that are measured on the same device, not with figures of a
//! data sheet. On software adapters and the CPU, sizes are small.

mod ceilings;
mod costs;
mod kernels;
mod roofline;
mod steps;
mod timer;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::device::gpu::variants::{ShapeClass, TableKey, Variant};
use crate::device::{Device, Gpu};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

pub use roofline::svg;

/// A part of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Arithmetic and workgroup memory.
    Ceilings,
    /// Copying, reading and writing tensors.
    Memory,
    /// Launches on the device and on the host, transfers, compilation.
    Costs,
    /// Every kernel of a ResNet-50.
    Kernels,
    /// Training steps.
    Steps,
}

impl Part {
    pub const ALL: [Part; 5] = [
        Part::Ceilings,
        Part::Memory,
        Part::Costs,
        Part::Kernels,
        Part::Steps,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Part::Ceilings => "ceilings",
            Part::Memory => "memory",
            Part::Costs => "costs",
            Part::Kernels => "kernels",
            Part::Steps => "steps",
        }
    }

    /// The part of the time that it takes, if all parts are measured.
    fn share(self) -> f64 {
        match self {
            Part::Ceilings | Part::Memory | Part::Costs => 0.1,
            Part::Kernels => 0.4,
            Part::Steps => 0.3,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        let found = Part::ALL.into_iter().find(|part| part.name() == word);
        found.ok_or_else(|| {
            let known = Part::ALL.map(Part::name).join(", ");
            format!("unknown part '{word}'; expected one of: {known}")
        })
    }
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    #[serde(rename = "FLOP/s")]
    Flops,
    #[serde(rename = "byte/s")]
    Bytes,
    #[serde(rename = "views/s")]
    Views,
}

/// A rate with three digits and a prefix, for example `15.2 TFLOP/s`.
pub fn rate(value: f64, unit: Unit) -> String {
    let unit = match unit {
        Unit::Flops => "FLOP/s",
        Unit::Bytes => "B/s",
        Unit::Views => return format!("{value:.0} views/s"),
    };
    let prefixes = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (factor, prefix) = prefixes
        .into_iter()
        .find(|(factor, _)| value >= *factor)
        .unwrap_or((1.0, ""));
    let scaled = value / factor;
    let digits = if scaled < 10.0 {
        2
    } else {
        usize::from(scaled < 100.0)
    };
    format!("{scaled:.digits$} {prefix}{unit}")
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub part: Part,
    pub name: String,
    /// The variant of a product or convolution.
    pub variant: Option<Variant>,
    /// The shortest and the median time of one run, in seconds.
    pub seconds: f64,
    pub median: f64,
    pub rate: Option<f64>,
    pub unit: Option<Unit>,
    /// The rate relative to the ceiling: arithmetic of the same type, or copied bytes.
    pub share: Option<f64>,
    /// FLOP per byte of the operands, each read or written once.
    pub intensity: Option<f64>,
    /// Further figures.
    pub note: String,
    #[serde(skip)]
    class: Option<ShapeClass>,
}

/// The rates that bound those of kernels.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Ceilings {
    /// FLOP/s of fused multiply-adds.
    pub f32: Option<f64>,
    pub f16: Option<f64>,
    /// Bytes read and written per second by a copy.
    pub copy: Option<f64>,
}

/// All measurements of a device.
#[derive(Debug, Serialize)]
pub struct Results {
    pub version: &'static str,
    pub device: String,
    #[serde(flatten)]
    pub key: Option<TableKey>,
    /// Whether sizes were those for software adapters and the CPU.
    pub is_small: bool,
    pub seconds: f64,
    pub ceilings: Ceilings,
    pub rows: Vec<Row>,
    /// Measurements that were left out because the time was up.
    pub not_measured: Vec<String>,
}

impl Results {
    /// An entry for `device/gpu/variants/shipped.toml`: the costs of the variants, and the fastest
    /// one of each class of shapes. `None` if no kernel of a GPU was measured.
    pub fn table_entry(&self) -> Option<String> {
        let name = &self.key.as_ref()?.adapter;
        let measured: Vec<(ShapeClass, Variant, f64)> = self
            .rows
            .iter()
            .filter_map(|row| Some((row.class?, row.variant?, row.seconds)))
            .collect();
        let mut fastest: BTreeMap<ShapeClass, (Variant, f64)> = BTreeMap::new();
        for &(class, variant, seconds) in &measured {
            let best = fastest.entry(class).or_insert((variant, seconds));
            if seconds < best.1 {
                *best = (variant, seconds);
            }
        }
        let mut ratios: BTreeMap<Variant, Vec<f64>> = BTreeMap::new();
        for (class, variant, seconds) in &measured {
            let of_variant = ratios.entry(*variant).or_default();
            of_variant.push(seconds / fastest[class].1);
        }
        // The mean time relative to the fastest variant, in tenths.
        let costs = ratios.iter().map(|(variant, ratios)| {
            let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
            format!("{variant} = {:.0}", (10.0 * mean).max(1.0))
        });
        let costs: Vec<String> = costs.collect();
        let classes = fastest.iter();
        let classes = classes.map(|(class, (variant, _))| format!("\"{class}\" = \"{variant}\"\n"));
        (!costs.is_empty()).then(|| {
            format!(
                "[[adapter]]\nname = {name:?}\ncost = {{ {} }}\n\n[adapter.classes]\n{}",
                costs.join(", "),
                classes.collect::<String>()
            )
        })
    }
}

/// Measures `device`, or the part `only` of it, for about `seconds` seconds. `report` is called
/// with each measurement. The ceilings are always measured.
///
/// # Errors
/// `Error::Device` if the device was lost. A measurement whose tensors do not fit is left out.
pub fn run(
    device: &Device,
    only: Option<Part>,
    seconds: f64,
    report: &mut dyn FnMut(&Row),
) -> Result<Results> {
    let started = Instant::now();
    let table = device.variants();
    let mut bench = Bench {
        device,
        is_small: device.as_gpu().is_none_or(Gpu::is_software),
        has_f16: Tensor::zeros(&[1], DType::F16, device).is_ok(),
        deadline: started,
        ceilings: Ceilings::default(),
        rows: Vec::new(),
        not_measured: Vec::new(),
        report,
    };
    for part in Part::ALL {
        let is_wanted = only.is_none_or(|only| only == part);
        if !is_wanted && part > Part::Memory {
            continue;
        }
        // The ceilings and the memory are measured before any other part.
        let share = if only == Some(part) {
            0.8
        } else {
            part.share()
        };
        bench.deadline = Instant::now() + Duration::from_secs_f64((share * seconds).min(1e9));
        let measured = match part {
            Part::Ceilings => ceilings::arithmetic(&mut bench),
            Part::Memory => ceilings::memory(&mut bench),
            Part::Costs => costs::measure(&mut bench),
            Part::Kernels => kernels::measure(&mut bench),
            Part::Steps => steps::measure(&mut bench),
        };
        if let (Some(gpu), Some(table)) = (device.as_gpu(), &table) {
            gpu.use_variants(table.clone());
        }
        match measured {
            // For example, memory that is too small for a measurement.
            Err(error @ Error::Device { .. }) if bench.is_open() => {
                bench.not_measured.push(format!("{part}: {error}"));
            }
            measured => measured?,
        }
    }
    Ok(Results {
        version: env!("CARGO_PKG_VERSION"),
        device: device.name(),
        key: table.map(|table| table.key),
        is_small: bench.is_small,
        seconds: started.elapsed().as_secs_f64(),
        ceilings: bench.ceilings,
        rows: bench.rows,
        not_measured: bench.not_measured,
    })
}

/// The state of a run.
struct Bench<'a> {
    device: &'a Device,
    is_small: bool,
    has_f16: bool,
    /// The end of the current part.
    deadline: Instant,
    ceilings: Ceilings,
    rows: Vec<Row>,
    not_measured: Vec<String>,
    report: &'a mut dyn FnMut(&Row),
}

impl Bench<'_> {
    /// Whether there is time for another measurement; otherwise notes that `name` is left out.
    fn has_time(&mut self, name: &str) -> bool {
        let has_time = Instant::now() < self.deadline;
        if !has_time {
            self.not_measured.push(name.to_string());
        }
        has_time
    }

    /// Whether the device is not lost.
    fn is_open(&self) -> bool {
        self.device.as_gpu().is_none_or(|gpu| gpu.check().is_ok())
    }

    fn add(&mut self, row: Row) {
        (self.report)(&row);
        self.rows.push(row);
    }
}

#[cfg(test)]
mod tests;
