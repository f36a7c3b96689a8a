//! The variants of products and convolutions on a GPU, and the table that selects one per shape.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A tiling of a kernel. Not every operation has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Variant {
    /// Tiles in registers only. Every operation has this variant.
    Plain,
    /// Double-buffered tiles in workgroup memory, of operands that are read in place.
    Tiled(TileSize),
    /// Tiles in workgroup memory that are multiplied on matrix units, of f16 factors with f32 sums.
    Matrix(MatrixSize),
}

/// The size of the cooperative matrices of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MatrixSize {
    /// 8 x 8, for subgroups of 8. A workgroup of 32 invocations computes a tile of 32 x 32.
    Eight,
    /// 16 x 16, for subgroups of 32. A workgroup of 128 invocations computes a tile of 128 x 128.
    Sixteen,
}

impl MatrixSize {
    pub const ALL: [MatrixSize; 2] = [MatrixSize::Eight, MatrixSize::Sixteen];

    /// Rows and columns of a matrix.
    pub(crate) fn rows(self) -> u32 {
        match self {
            MatrixSize::Eight => 8,
            MatrixSize::Sixteen => 16,
        }
    }

    /// Rows and columns of a tile.
    pub(crate) fn tile(self) -> [usize; 2] {
        match self {
            MatrixSize::Eight => [32; 2],
            MatrixSize::Sixteen => [128; 2],
        }
    }
}

/// The size of a tile of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TileSize {
    /// 64 x 64, which requires 16 KiB of workgroup memory and 128 invocations.
    Small,
    /// 64 x 128, which requires 24 KiB and 128 invocations.
    Wide,
    /// 128 x 128, which requires 32 KiB and 256 invocations.
    Large,
}

impl TileSize {
    pub const ALL: [TileSize; 3] = [TileSize::Small, TileSize::Wide, TileSize::Large];

    /// Rows and columns of a tile.
    pub(crate) fn sizes(self) -> [usize; 2] {
        match self {
            TileSize::Small => [64, 64],
            TileSize::Wide => [64, 128],
            TileSize::Large => [128, 128],
        }
    }
}

impl Variant {
    /// Whether it multiplies f16 factors on matrix units.
    pub fn is_on_matrices(self) -> bool {
        matches!(self, Variant::Matrix(_))
    }

    pub const ALL: [Variant; 6] = [
        Variant::Plain,
        Variant::Tiled(TileSize::Small),
        Variant::Tiled(TileSize::Wide),
        Variant::Tiled(TileSize::Large),
        Variant::Matrix(MatrixSize::Eight),
        Variant::Matrix(MatrixSize::Sixteen),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain",
            Variant::Tiled(TileSize::Small) => "tiled64x64",
            Variant::Tiled(TileSize::Wide) => "tiled64x128",
            Variant::Tiled(TileSize::Large) => "tiled128x128",
            Variant::Matrix(MatrixSize::Eight) => "matrix8",
            Variant::Matrix(MatrixSize::Sixteen) => "matrix16",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Variant::ALL.into_iter().find(|v| v.name() == word);
        found.ok_or_else(|| {
            let known = Variant::ALL.map(Variant::name).join(", ");
            format!("unknown variant '{word}'; expected one of: {known}")
        })
    }
}

impl From<Variant> for String {
    fn from(variant: Variant) -> String {
        variant.name().to_string()
    }
}

impl TryFrom<String> for Variant {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        word.parse()
    }
}

/// An operation that has variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Gemm,
    Linear,
    Conv2d,
    Conv2dDx,
    Conv2dDw,
}

impl Operation {
    pub const ALL: [Operation; 5] = [
        Operation::Gemm,
        Operation::Linear,
        Operation::Conv2d,
        Operation::Conv2dDx,
        Operation::Conv2dDw,
    ];

    /// The name of the operation, as in [`crate::device::Op::NAME`].
    pub fn name(self) -> &'static str {
        match self {
            Operation::Gemm => "gemm",
            Operation::Linear => "linear",
            Operation::Conv2d => "conv2d",
            Operation::Conv2dDx => "conv2d_dx",
            Operation::Conv2dDw => "conv2d_dw",
        }
    }

    fn is_convolution(self) -> bool {
        matches!(
            self,
            Operation::Conv2d | Operation::Conv2dDx | Operation::Conv2dDw
        )
    }
}

/// Bytes of workgroup memory of an adapter for which `variants.toml` has the costs `default`.
const MUCH_WORKGROUP_MEMORY: u32 = 48 * 1024;

/// Larger sizes belong to the class of this size.
pub const LARGEST_CLASS: usize = 1024;

/// The largest power of two that is at most `size` and at most [`LARGEST_CLASS`].
fn class_of(size: usize) -> u32 {
    1 << size.clamp(1, LARGEST_CLASS).ilog2()
}

/// A class of shapes that use the same variant: an operation with its sizes, rounded down to powers
/// of two. The number of images of a convolution does not count, so a measurement with few images
/// is valid for a batch.
///
/// The text form is `gemm MxNxK`, or `conv2d 3x3/1 OxPxC` with the kernel, the stride, the output
/// channels, the output pixels per image and the input channels; also for the gradients. ` f16`
/// follows if the factors are f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ShapeClass {
    operation: Operation,
    /// Height and width, or zeros for products.
    kernel: [u32; 2],
    stride: u32,
    sizes: [u32; 3],
    /// Whether the factors are f16, or f32 that is rounded to f16. They have variants of their own.
    has_f16_factors: bool,
}

impl ShapeClass {
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The class of a product `[M, K] [K, N]`.
    pub fn product(operation: Operation, [m, n, k]: [usize; 3]) -> Self {
        ShapeClass {
            operation,
            kernel: [0; 2],
            stride: 0,
            sizes: [m, n, k].map(class_of),
            has_f16_factors: false,
        }
    }

    /// The class of a convolution or one of its gradients. The kernel is height and width; the
    /// sizes are output channels, output pixels per image and input channels.
    pub fn convolution(
        operation: Operation,
        kernel: [usize; 2],
        stride: usize,
        sizes: [usize; 3],
    ) -> Self {
        ShapeClass {
            operation,
            kernel: kernel.map(|size| size as u32),
            stride: stride as u32,
            sizes: sizes.map(class_of),
            has_f16_factors: false,
        }
    }
}

impl ShapeClass {
    pub fn has_f16_factors(&self) -> bool {
        self.has_f16_factors
    }

    /// The class of the same shapes with f16 factors, or with f32 factors.
    pub fn with_f16_factors(self, has_f16_factors: bool) -> Self {
        ShapeClass {
            has_f16_factors,
            ..self
        }
    }
}

impl fmt::Display for ShapeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, columns, terms] = self.sizes;
        f.write_str(self.operation.name())?;
        if self.operation.is_convolution() {
            let [kh, kw] = self.kernel;
            write!(f, " {kh}x{kw}/{}", self.stride)?;
        }
        write!(f, " {rows}x{columns}x{terms}")?;
        f.write_str(if self.has_f16_factors { " f16" } else { "" })
    }
}

impl FromStr for ShapeClass {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unreadable =
            || format!("'{text}' is not a class of shapes, such as 'conv2d 3x3/1 64x1024x64'");
        let numbers = |words: &str| -> Option<Vec<u32>> {
            words.split('x').map(|word| word.parse().ok()).collect()
        };
        let (text, has_f16_factors) = match text.strip_suffix(" f16") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let words: Vec<&str> = text.split(' ').collect();
        let (operation, sizes) = match words[..] {
            [operation, sizes] | [operation, _, sizes] => (operation, sizes),
            _ => return Err(unreadable()),
        };
        let operation = Operation::ALL.into_iter().find(|o| o.name() == operation);
        let operation = operation.ok_or_else(unreadable)?;
        let (kernel, stride) = match words[..] {
            [_, kernel, _] if operation.is_convolution() => kernel
                .split_once('/')
                .and_then(|(kernel, stride)| Some((numbers(kernel)?, stride.parse().ok()?)))
                .ok_or_else(unreadable)?,
            [_, _] if !operation.is_convolution() => (vec![0; 2], 0),
            _ => return Err(unreadable()),
        };
        Ok(ShapeClass {
            operation,
            kernel: kernel.try_into().map_err(|_| unreadable())?,
            stride,
            sizes: numbers(sizes)
                .and_then(|sizes| sizes.try_into().ok())
                .ok_or_else(unreadable)?,
            has_f16_factors,
        })
    }
}

impl From<ShapeClass> for String {
    fn from(class: ShapeClass) -> String {
        class.to_string()
    }
}

impl TryFrom<String> for ShapeClass {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The adapter, driver and shaders that a table was measured on. With others, another table may be
/// faster, and results may differ in rounding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableKey {
    pub adapter: String,
    pub driver: String,
    /// See [`super::kernels::digest`].
    pub shaders: String,
}

impl TableKey {
    /// The differences, in the form `driver: OLD, now NEW`, if there are any.
    pub fn difference(&self, now: &TableKey) -> Option<String> {
        let parts = [
            ("adapter", &self.adapter, &now.adapter),
            ("driver", &self.driver, &now.driver),
            ("shaders", &self.shaders, &now.shaders),
        ];
        let differing: Vec<String> = parts
            .iter()
            .filter(|(_, theirs, ours)| theirs != ours)
            .map(|(name, theirs, ours)| format!("{name}: {theirs}, now {ours}"))
            .collect();
        (!differing.is_empty()).then(|| differing.join("; "))
    }
}

/// Selects variants: the one measured for the class, otherwise the one of lowest cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantTable {
    /// The origin of the table, for messages.
    pub source: String,
    #[serde(flatten)]
    pub key: TableKey,
    /// Relative time per element of the result, padded to whole tiles. A variant without cost runs
    /// only for the classes that name it.
    pub cost: BTreeMap<Variant, u32>,
    /// The fastest measured variants.
    #[serde(default)]
    pub classes: BTreeMap<ShapeClass, Variant>,
    /// Variants whose results are wrong on this adapter. They are never selected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<Operation, BTreeSet<Variant>>,
}

impl VariantTable {
    /// The built-in table for the adapter of `key`, which has this much workgroup memory.
    pub fn shipped(key: TableKey, workgroup_bytes: u32) -> Self {
        VariantTable::of_file(&shipped(), key, workgroup_bytes)
    }

    /// The table of an entry of `variants.toml`, or of its default if `key` is of another adapter.
    #[cfg(all(test, feature = "cli"))]
    pub(crate) fn of_entry(entry: &str, key: TableKey) -> Result<Self, String> {
        let cost = "cost = { plain = 1 }";
        let text = format!("{entry}\n[default]\n{cost}\n[small]\n{cost}\n");
        let file = toml::from_str(&text).map_err(|e| e.to_string())?;
        Ok(VariantTable::of_file(&file, key, MUCH_WORKGROUP_MEMORY))
    }

    fn of_file(file: &Shipped, key: TableKey, workgroup_bytes: u32) -> Self {
        let entry = file.adapter.iter().find(|entry| entry.covers(&key.adapter));
        let (source, cost) = match entry {
            Some(entry) => (format!("shipped, for {}", entry.name), &entry.cost),
            None if workgroup_bytes < MUCH_WORKGROUP_MEMORY => (
                "shipped, for adapters with less than 48 KiB of workgroup memory".to_string(),
                &file.small.cost,
            ),
            None => (
                "shipped, for every other adapter".to_string(),
                &file.default.cost,
            ),
        };
        VariantTable {
            source,
            key,
            cost: cost.clone(),
            classes: entry.map_or(BTreeMap::new(), |entry| entry.classes.clone()),
            rejected: BTreeMap::new(),
        }
    }

    /// The table that selects `variant` for every operation that has it.
    pub fn only(variant: Variant, key: TableKey) -> Self {
        VariantTable {
            source: format!("{variant} alone"),
            key,
            cost: BTreeMap::from([(variant, 1)]),
            classes: BTreeMap::new(),
            rejected: BTreeMap::new(),
        }
    }

    /// Whether there is a built-in table for this adapter, so that it needs no tuning.
    pub fn ships_for(adapter: &str) -> bool {
        shipped().adapter.iter().any(|entry| entry.covers(adapter))
    }

    /// The variant of `class` among `available`, each with the number of elements of the result,
    /// padded to its tiles. `Plain` if the table has neither the class nor costs.
    pub fn choose(&self, class: &ShapeClass, available: &[(Variant, usize)]) -> Variant {
        let available = || {
            let all = available.iter();
            all.filter(|(variant, _)| !self.rejects(class.operation, *variant))
        };
        let measured = self.classes.get(class);
        if let Some(&variant) = measured.filter(|v| available().any(|(own, _)| own == *v)) {
            return variant;
        }
        let costs = available()
            .filter_map(|&(v, elements)| Some((*self.cost.get(&v)? as usize * elements, v)));
        costs.min().map_or(Variant::Plain, |(_, variant)| variant)
    }

    /// Whether `variant` of `operation` is never selected.
    pub fn rejects(&self, operation: Operation, variant: Variant) -> bool {
        let variants = self.rejected.get(&operation);
        variants.is_some_and(|variants| variants.contains(&variant))
    }

    /// Never selects these variants, but for plain, from now on.
    pub fn reject(&mut self, variants: impl IntoIterator<Item = (Operation, Variant)>) {
        for (operation, variant) in variants {
            if variant != Variant::Plain {
                self.rejected.entry(operation).or_default().insert(variant);
            }
        }
    }

    /// The rejected variants with their operations.
    pub fn rejections(&self) -> impl Iterator<Item = (Operation, Variant)> {
        let operations = self.rejected.iter();
        operations.flat_map(|(operation, variants)| variants.iter().map(|v| (*operation, *v)))
    }

    /// The origin of the table, the number of measured classes, and the rejected variants.
    pub fn summary(&self) -> String {
        let mut summary = self.source.clone();
        if !self.classes.is_empty() {
            summary += &format!(", {} shapes", self.classes.len());
        }
        if !self.rejected.is_empty() {
            let names = self
                .rejections()
                .map(|(operation, variant)| format!("{} {variant}", operation.name()));
            let names: Vec<String> = names.collect();
            summary += &format!(", without {} (wrong results here)", names.join(", "));
        }
        summary
    }

    /// The table as TOML.
    ///
    /// # Errors
    /// The message of the TOML writer.
    pub fn to_toml(&self) -> Result<String, String> {
        toml::to_string_pretty(self).map_err(|e| e.to_string())
    }

    /// Reads the output of [`VariantTable::to_toml`].
    ///
    /// # Errors
    /// A message of one line.
    pub fn from_toml(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        toml::from_str(text).map_err(|e| e.message().to_string())
    }
}

/// The file `variants.toml`.
#[derive(Deserialize)]
struct Shipped {
    adapter: Vec<ShippedFor>,
    default: ShippedDefault,
    small: ShippedDefault,
}

#[derive(Deserialize)]
struct ShippedFor {
    /// A part of the adapter's name. Case is ignored.
    name: String,
    cost: BTreeMap<Variant, u32>,
    #[serde(default)]
    classes: BTreeMap<ShapeClass, Variant>,
}

#[derive(Deserialize)]
struct ShippedDefault {
    cost: BTreeMap<Variant, u32>,
}

impl ShippedFor {
    fn covers(&self, adapter: &str) -> bool {
        adapter.to_lowercase().contains(&self.name.to_lowercase())
    }
}

fn shipped() -> Shipped {
    toml::from_str(include_str!("variants.toml")).expect("the tests parse variants.toml")
}

#[cfg(test)]
mod tests {
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
}
