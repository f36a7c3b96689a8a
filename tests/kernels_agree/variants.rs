//! Each variant of products and convolutions is held against the loops.

use parallax::device::kernels::Kernels;
use parallax::device::variants::{Operation, ShapeClass, Variant};

use crate::devices;

/// The tests of gemm, linear and the convolutions run on every device of `all_variants`: each variant is among them, and
/// its device takes no other.
#[test]
fn every_variant_is_forced_in_turn() {
    let tested: Vec<Variant> = devices::forced().iter().map(|(v, _)| *v).collect();
    assert_eq!(tested, Variant::ALL);
    let names: Vec<&str> = devices::all_variants().iter().map(|(n, _)| *n).collect();
    for (variant, gpu) in devices::forced() {
        assert!(names.contains(&variant.name()), "{names:?}");
        let table = gpu.variants().expect("a GPU has a table");
        let class = ShapeClass::product(Operation::Gemm, [64; 3]);
        let there: Vec<_> = tested.iter().map(|v| (*v, 1)).collect();
        assert_eq!(table.choose(&class, &there), *variant);
    }
}
