//! The measurements of a device, in small form, and what is made of them.

use super::{Part, Results, Unit, rate, run, svg};
use crate::device::gpu::variants::VariantTable;
use crate::device::{Device, Gpu};
use crate::testing::devices;

fn measured(device: &Device, only: Option<Part>, seconds: f64) -> Results {
    run(device, only, seconds, &mut |_| {}).expect("everything fits")
}

#[test]
fn the_ceilings_are_measured_without_time() {
    for device in [devices::cpu(), devices::open_gpu(false, None).into()] {
        let results = measured(&device, None, 0.0);
        assert!(results.is_small);
        assert!(results.ceilings.f32.is_some_and(|rate| rate > 0.0));
        assert!(results.ceilings.copy.is_some_and(|rate| rate > 0.0));
        assert!(!results.not_measured.is_empty());
        assert!(results.rows.iter().all(|row| row.part <= Part::Memory));
        assert!(svg(&results).is_none() && results.table_entry().is_none());
    }
}

#[test]
fn kernels_have_shares_and_make_a_table_and_a_figure() {
    let device: Device = devices::open_gpu(false, None).into();
    let before = device.as_gpu().map(Gpu::variants);
    // Some of the kernels, among them a product.
    let results = measured(&device, Some(Part::Kernels), 12.0);
    assert_eq!(device.as_gpu().map(Gpu::variants), before);
    let kernels = results.rows.iter().filter(|row| row.part == Part::Kernels);
    for row in kernels {
        let share = row.share.expect("the ceilings are known");
        assert!(
            share > 0.0 && row.seconds > 0.0 && row.seconds <= row.median,
            "{row:?}"
        );
    }
    let entry = results.table_entry().expect("a product was measured");
    let name = &results.key.as_ref().expect("a GPU has a key").adapter;
    assert!(
        entry.contains(name.as_str()) && entry.contains("plain = "),
        "{entry}"
    );
    let table = VariantTable::of_entry(&entry, results.key.clone().expect("a key"));
    let table = table.expect("the entry can be read");
    assert!(!table.cost.is_empty() && !table.classes.is_empty());
    let figure = svg(&results).expect("kernels were measured");
    assert!(figure.starts_with("<svg") && figure.trim_end().ends_with("</svg>"));
    assert!(figure.contains("f32 ") && figure.contains("linear forward"));
    assert!(!figure.contains("NaN") && !figure.contains("inf"));
}

#[test]
fn a_step_of_a_network_is_measured_on_the_cpu() {
    let results = measured(&devices::cpu(), Some(Part::Steps), 6.0);
    let names: Vec<&str> = results.rows.iter().map(|row| row.name.as_str()).collect();
    for name in ["first step, resnet18", "step, resnet18"] {
        assert!(
            names.iter().any(|other| other.starts_with(name)),
            "{names:?}"
        );
    }
}

#[test]
fn rates_have_three_digits() {
    for (value, unit, text) in [
        (15.24e12, Unit::Flops, "15.2 TFLOP/s"),
        (3.0e9, Unit::Bytes, "3.00 GB/s"),
        (750.4, Unit::Views, "750 views/s"),
        (12.0, Unit::Bytes, "12.0 B/s"),
    ] {
        assert_eq!(rate(value, unit), text);
    }
}
