//! The variants of products and convolutions on a GPU, and the table that selects one per shape.

mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use table::{TableKey, VariantTable};

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
