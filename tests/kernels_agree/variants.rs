//! Which variants of products and convolutions the adapter runs, and that each is held against the loops.

use parallax::device::kernels::Kernels;
use parallax::device::variants::{Operation, ShapeClass, Variant};

use crate::devices;

/// The tests of gemm, linear and the convolutions run on every device of `all_variants`; here it is said which variants
/// these are.
#[test]
fn every_variant_that_the_adapter_runs_is_forced_in_turn() {
    let tested: Vec<Variant> = devices::forced().iter().map(|(v, _)| *v).collect();
    let [with_subgroups, without] = [true, false].map(|on| devices::open_gpu(false, None, on));
    for variant in Variant::ALL {
        assert_eq!(
            tested.contains(&variant),
            with_subgroups.runs(variant),
            "{variant}"
        );
        assert_eq!(
            without.runs(variant),
            variant.subgroup_size().is_none(),
            "{variant} without subgroups"
        );
    }
    assert!(tested.contains(&Variant::Plain) && tested.contains(&Variant::Staged));
    let left: Vec<Variant> = Variant::ALL
        .into_iter()
        .filter(|v| !tested.contains(v))
        .collect();
    println!(
        "variants of products and convolutions tested on {}: {tested:?}; it cannot run {left:?}",
        with_subgroups.name()
    );
    let names: Vec<&str> = devices::all_variants().iter().map(|(n, _)| *n).collect();
    for (variant, gpu) in devices::forced() {
        assert!(names.contains(&variant.name()), "{names:?}");
        let table = gpu.variants().expect("a GPU has a table");
        let class = ShapeClass::product(Operation::Gemm, [64; 3]);
        let there: Vec<_> = tested.iter().map(|v| (*v, 1)).collect();
        assert_eq!(table.choose(&class, &there), *variant);
    }
}
