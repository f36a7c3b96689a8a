use super::*;

const TILED: Variant = Variant::Tiled(TileSize::Small);

fn key(adapter: &str) -> TableKey {
    TableKey {
        adapter: adapter.to_string(),
        driver: "a driver".to_string(),
        shaders: "0123456789abcdef".to_string(),
    }
}

fn class(side: usize) -> ShapeClass {
    ShapeClass::convolution(Operation::Conv2dDx, [3, 3], 1, [127, side * side, 65])
}

#[test]
fn built_in_tables_name_their_adapter() {
    for (adapter, kibibytes, covered, source) in [
        (
            "llvmpipe (LLVM 15.0.6, 256 bits)",
            32,
            true,
            "shipped, for llvmpipe",
        ),
        (
            "SwiftShader Device (Subzero)",
            32,
            true,
            "shipped, for SwiftShader",
        ),
        ("GeForce", 48, false, "shipped, for every other adapter"),
        (
            "Apple M2",
            32,
            false,
            "shipped, for adapters with less than 48 KiB of workgroup memory",
        ),
    ] {
        assert_eq!(VariantTable::ships_for(adapter), covered);
        let table = VariantTable::shipped(key(adapter), kibibytes * 1024);
        assert_eq!(table.source, source);
        assert!(!table.cost.is_empty());
    }
}

#[test]
fn sizes_between_two_powers_of_two_form_one_class() {
    assert_eq!(class(32).to_string(), "conv2d_dx 3x3/1 64x1024x64");
    assert_eq!(class(32), class(33));
    assert_ne!(class(32), class(16));
    let product = |sizes| ShapeClass::product(Operation::Gemm, sizes);
    assert_eq!(
        product([1, 700, 70_000]).to_string(),
        "gemm 1x512x1024",
        "sizes from 1024 on form one class"
    );
}

#[test]
fn the_text_of_a_class_parses_to_the_class() {
    for class in [class(8), ShapeClass::product(Operation::Linear, [5, 6, 7])] {
        assert_eq!(class.to_string().parse(), Ok(class));
        let with_f16 = class.with_f16_factors(true);
        assert_eq!(with_f16.to_string(), format!("{class} f16"));
        assert_eq!(with_f16.to_string().parse(), Ok(with_f16));
        assert_ne!(with_f16, class);
    }
    for wrong in [
        "",
        "gemm",
        "gemm 1x2",
        "gemm 1x2x3x4",
        "gemm 1x2xy",
        "gemm 3x3/1 1x2x3",
        "conv2d 1x2x3",
        "conv2d 3/1 1x2x3",
        "pool 1x2x3",
        "conv2d 3x3/1 1x2x3 4",
        "gemm 1x2x3 f32",
    ] {
        assert!(wrong.parse::<ShapeClass>().is_err(), "{wrong}");
    }
}

#[test]
fn a_class_overrides_costs_and_costs_override_plain() {
    let mut table = VariantTable::only(TILED, key("a card"));
    let (known, other) = (class(8), class(16));
    table.classes.insert(known, Variant::Plain);
    let both = [(Variant::Plain, 30), (TILED, 10)];
    assert_eq!(table.choose(&known, &both), Variant::Plain);
    assert_eq!(table.choose(&other, &both), TILED);
    // Costs are multiplied by the elements of the padded result.
    table.cost.insert(Variant::Plain, 3);
    table.cost.insert(TILED, 8);
    assert_eq!(table.choose(&other, &both), TILED);
    table.cost.insert(TILED, 10);
    assert_eq!(table.choose(&other, &both), Variant::Plain);
    // A variant that the operation does not have is not selected.
    table.classes.insert(known, TILED);
    assert_eq!(table.choose(&known, &both[..1]), Variant::Plain);
    table.cost.remove(&Variant::Plain);
    assert_eq!(table.choose(&other, &both[..1]), Variant::Plain);
}

#[test]
fn a_rejected_variant_is_never_selected() {
    let mut table = VariantTable::only(TILED, key("a card"));
    table.classes.insert(class(8), TILED);
    table.reject([
        (Operation::Conv2dDx, TILED),
        (Operation::Gemm, Variant::Plain),
    ]);
    let both = [(Variant::Plain, 30), (TILED, 10)];
    assert_eq!(table.choose(&class(8), &both), Variant::Plain);
    assert_eq!(table.choose(&class(16), &both), Variant::Plain);
    let other = ShapeClass::product(Operation::Gemm, [64; 3]);
    assert_eq!(table.choose(&other, &both), TILED);
    let text = table.to_toml().unwrap();
    assert_eq!(VariantTable::from_toml(text.as_bytes()), Ok(table));
    assert!(text.contains("conv2d_dx = [\"tiled64x64\"]"), "{text}");
}

#[test]
fn a_table_survives_toml_and_an_invalid_one_is_an_error() {
    let mut table = VariantTable::shipped(key("llvmpipe"), 32 * 1024);
    table.classes.insert(class(8), TILED);
    let text = table.to_toml().unwrap();
    assert!(
        text.contains("\"conv2d_dx 3x3/1 64x64x64\" = \"tiled64x64\""),
        "{text}"
    );
    assert_eq!(VariantTable::from_toml(text.as_bytes()), Ok(table));
    for (wrong, word) in [
        (
            text.replace("\"tiled64x64\"", "\"tilled64x64\""),
            "tilled64x64",
        ),
        (text.replace("64x64x64", "64x64"), "64x64"),
        (text.replace("driver", "drover"), "driver"),
        ("]".to_string(), ""),
    ] {
        let message = VariantTable::from_toml(wrong.as_bytes()).unwrap_err();
        assert!(message.contains(word), "{message}");
    }
    assert!(VariantTable::from_toml(&[0xff]).is_err());
}

#[test]
fn a_difference_is_named() {
    let old = key("a card");
    let mut new = old.clone();
    assert_eq!(old.difference(&new), None);
    new.driver = "a new driver".to_string();
    assert_eq!(
        old.difference(&new).as_deref(),
        Some("driver: a driver, now a new driver")
    );
}
