//! Measures the variants of products and convolutions on an adapter, shape by shape.
//!
//! The result of each variant is first compared with the result of the plain variant. A variant
//! whose result differs by more than rounding is never selected.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::device::gpu::variants::{Operation, ShapeClass, Variant, VariantTable};
use crate::device::{Device, Gpu};
use crate::error::Result;
use crate::ops::conv2d::{self, Conv2d, Conv2dDw, Conv2dDx, ConvGeometry};
use crate::ops::copy::Slice;
use crate::ops::gemm::{self, Gemm, Linear, Operand};
use crate::philox::Philox;
use crate::tensor::Tensor;

/// Timed runs per variant. A variant whose first run is slower than the best median so far is timed
/// once.
const RUNS: usize = 5;

/// A call to be tuned, with the sizes at which it is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Problem {
    /// `[M, K] [K, N]`, or `[K, M]^T [K, N]` if `transpose_a`.
    Gemm {
        transpose_a: bool,
        /// M, N, K.
        sizes: [usize; 3],
    },
    /// `[M, K] [N, K]^T + [N]`, sizes M, N, K.
    Linear([usize; 3]),
    Conv2d(ConvGeometry),
    Conv2dDx(ConvGeometry),
    Conv2dDw(ConvGeometry),
}

impl Problem {
    pub fn class(&self) -> ShapeClass {
        match self {
            Problem::Gemm { sizes, .. } => ShapeClass::product(Operation::Gemm, *sizes),
            Problem::Linear(sizes) => ShapeClass::product(Operation::Linear, *sizes),
            Problem::Conv2d(g) => g.class(Operation::Conv2d),
            Problem::Conv2dDx(g) => g.class(Operation::Conv2dDx),
            Problem::Conv2dDw(g) => g.class(Operation::Conv2dDw),
        }
    }

    /// The shapes of the arguments, and the maximum number of terms of a sum.
    fn shapes(&self) -> (Vec<Vec<usize>>, usize) {
        match *self {
            Problem::Gemm {
                transpose_a,
                sizes: [m, n, k],
            } => {
                let a = if transpose_a { vec![k, m] } else { vec![m, k] };
                (vec![a, vec![k, n]], k)
            }
            Problem::Linear([m, n, k]) => (vec![vec![m, k], vec![n, k], vec![n]], k + 1),
            Problem::Conv2d(g) => (
                vec![g.x_shape().into(), g.w_shape().into()],
                g.c * g.kh * g.kw,
            ),
            Problem::Conv2dDx(g) => (
                vec![g.y_shape().into(), g.w_shape().into()],
                g.o * g.kh * g.kw,
            ),
            Problem::Conv2dDw(g) => (
                vec![g.y_shape().into(), g.x_shape().into()],
                g.n * g.oh * g.ow,
            ),
        }
    }

    /// The variants of the operation.
    fn variants(&self) -> Vec<Variant> {
        let tiles = match self {
            Problem::Gemm { .. } => gemm::tiles(false).to_vec(),
            Problem::Linear(_) => gemm::tiles(true).to_vec(),
            Problem::Conv2d(g) => conv2d::tiles(g.o).to_vec(),
            Problem::Conv2dDx(g) => conv2d::tiles(g.c).to_vec(),
            Problem::Conv2dDw(_) => vec![conv2d::dw_tile()],
        };
        tiles.iter().map(|tile| tile.variant).collect()
    }

    fn run(&self, gpu: &Gpu, arguments: &[Tensor]) -> Result<Tensor> {
        let (a, b) = (&arguments[0], &arguments[1]);
        match self {
            Problem::Gemm { transpose_a, .. } => {
                let (x, is_transposed) = (a, *transpose_a);
                gpu.run(Gemm::new(Operand { x, is_transposed }, b))
            }
            Problem::Linear(_) => gpu.run(Linear {
                x: a,
                w: b,
                bias: &arguments[2],
            }),
            Problem::Conv2d(g) => gpu.run(Conv2d {
                x: a,
                w: b,
                options: g.options(),
            }),
            Problem::Conv2dDx(g) => gpu.run(Conv2dDx {
                dy: a,
                w: b,
                x_shape: g.x_shape(),
                options: g.options(),
            }),
            Problem::Conv2dDw(g) => gpu.run(Conv2dDw {
                dy: a,
                x: b,
                w_shape: g.w_shape(),
                options: g.options(),
            }),
        }
    }
}

/// The result of a tuning.
#[derive(Clone, Debug)]
pub struct Tuned {
    pub table: VariantTable,
    /// Variants with wrong results or errors, each with the shape and a description.
    pub rejected: Vec<String>,
}

/// A problem with its arguments on the device, and the result of the plain variant.
struct Case<'a> {
    gpu: &'a Gpu,
    problem: &'a Problem,
    arguments: Vec<Tensor>,
    expected: Vec<f32>,
    /// The sum of the absolute products of each element of the result.
    magnitudes: Vec<f32>,
    /// Terms per element of the result.
    terms: usize,
}

impl<'a> Case<'a> {
    fn new(gpu: &'a Gpu, problem: &'a Problem) -> Result<Self> {
        let (shapes, terms) = problem.shapes();
        let mut rng = Philox::new(0, [0x7475_6e65, 0, 0]);
        let values: Vec<Vec<f32>> = shapes
            .iter()
            .map(|shape| {
                let count = shape.iter().product();
                (0..count).map(|_| rng.uniform(-1.0, 1.0)).collect()
            })
            .collect();
        let device = &Device::from(gpu.clone());
        let upload = |absolute: bool| -> Result<Vec<Tensor>> {
            let tensors = values.iter().zip(&shapes).map(|(values, shape)| {
                if !absolute {
                    return Tensor::from_slice(values, shape, device);
                }
                let values: Vec<f32> = values.iter().map(|x| x.abs()).collect();
                Tensor::from_slice(&values, shape, device)
            });
            tensors.collect()
        };
        gpu.use_only(Variant::Plain);
        let read = |arguments: &[Tensor]| problem.run(gpu, arguments)?.to_vec::<f32>();
        let magnitudes = read(&upload(true)?)?;
        let arguments = upload(false)?;
        Ok(Case {
            gpu,
            problem,
            expected: read(&arguments)?,
            arguments,
            magnitudes,
            terms,
        })
    }

    /// Describes the error in the result of the current variant, if there is one.
    fn check(&self) -> Result<Option<String>> {
        let y = self.problem.run(self.gpu, &self.arguments)?;
        let (y, magnitudes) = (y.to_vec::<f32>()?, &self.magnitudes);
        Ok(error_of(&y, &self.expected, magnitudes, self.terms))
    }

    /// Seconds of one run of the current variant. Uses the adapter's timestamps if it has them,
    /// otherwise the host's clock.
    fn seconds(&self) -> Result<f64> {
        if self.gpu.has_timestamps() {
            self.gpu.start_timing();
            let ran = self.problem.run(self.gpu, &self.arguments);
            let kernels = self.gpu.stop_timing()?;
            ran?;
            return Ok(kernels.iter().map(|kernel| kernel.end - kernel.start).sum());
        }
        let started = Instant::now();
        let y = self.problem.run(self.gpu, &self.arguments)?;
        // Waits for the run by reading one element of its result.
        let (x, start, count) = (&y.reshape(&[y.len()])?, 0, 1);
        self.gpu.run(Slice { x, start, count })?.to_vec::<f32>()?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// The median time of [`RUNS`] runs in seconds, or `None` if the first run is slower than
    /// `best`.
    fn median(&self, best: f64) -> Result<Option<f64>> {
        let mut seconds = vec![self.seconds()?];
        if seconds[0] > best {
            return Ok(None);
        }
        for _ in 1..RUNS {
            seconds.push(self.seconds()?);
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Some(seconds[RUNS / 2]))
    }
}

/// Describes the elements of `y` that differ from `expected` by more than the rounding of two sums
/// of `terms` products. `magnitudes` are the sums of the absolute products.
fn error_of(y: &[f32], expected: &[f32], magnitudes: &[f32], terms: usize) -> Option<String> {
    // The error bound of each sum is 4 sqrt(terms) units in the last place of its magnitude.
    let tolerance = 2.0 * 4.0 * (terms as f64).sqrt() / f64::from(1 << 24);
    let wrong = |i: &usize| {
        let bound = tolerance * f64::from(magnitudes[*i]);
        let difference = (f64::from(y[*i]) - f64::from(expected[*i])).abs();
        difference.is_nan() || difference > bound
    };
    let first = (0..y.len()).find(wrong)?;
    let count = (first..y.len()).filter(wrong).count();
    Some(format!(
        "{count} of {} results differ from the plain variant, the first at {first}: {} in place of {}",
        y.len(),
        y[first],
        expected[first]
    ))
}

impl Gpu {
    fn use_only(&self, variant: Variant) {
        let key = self.variants().key;
        self.use_variants(VariantTable::only(variant, key));
    }

    /// Measures the variants of each problem whose class is not in the current table. Returns a
    /// table with the current entries and the new ones, but does not make it current. `progress` is
    /// called with the number of finished classes, the number of all classes, and the next class.
    ///
    /// The caller must not launch other kernels until this function returns.
    ///
    /// # Errors
    /// `Error::Device` if the adapter is lost, or if the plain variant fails.
    pub fn tune(
        &self,
        problems: &[Problem],
        progress: &mut dyn FnMut(usize, usize, &ShapeClass),
    ) -> Result<Tuned> {
        let before = self.variants();
        let mut tuned = Tuned {
            table: before.clone(),
            rejected: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        let todo: Vec<&Problem> = problems
            .iter()
            .filter(|problem| !before.classes.contains_key(&problem.class()))
            .filter(|problem| seen.insert(problem.class()))
            .collect();
        for (done, problem) in todo.iter().enumerate() {
            let class = problem.class();
            progress(done, todo.len(), &class);
            let fastest = self.fastest(problem, &before, &mut tuned.rejected);
            self.use_variants(before.clone());
            tuned.table.classes.insert(class, fastest?);
        }
        Ok(tuned)
    }

    fn fastest(
        &self,
        problem: &Problem,
        table: &VariantTable,
        rejected: &mut Vec<String>,
    ) -> Result<Variant> {
        let mut candidates = problem.variants();
        candidates.retain(|variant| !table.rejects(problem.class().operation(), *variant));
        if let [only] = candidates[..] {
            return Ok(only);
        }
        let case = Case::new(self, problem)?;
        // Starts with the variants of the lowest estimated cost, so that slower ones are timed
        // once.
        candidates.sort_by_key(|variant| table.cost.get(variant).copied().unwrap_or(u32::MAX));
        let mut best = (f64::INFINITY, Variant::Plain);
        for variant in candidates {
            self.use_only(variant);
            let wrong = match variant {
                Variant::Plain => None,
                _ => case.check().unwrap_or_else(|error| Some(error.to_string())),
            };
            // Returns the error if the device was lost.
            self.check()?;
            if let Some(wrong) = wrong {
                rejected.push(format!("{variant} of {}: {wrong}", problem.class()));
                continue;
            }
            if let Some(seconds) = case.median(best.0)?
                && seconds < best.0
            {
                best = (seconds, variant);
            }
        }
        Ok(best.1)
    }
}

#[cfg(test)]
mod tests {
    use super::error_of;

    #[test]
    fn rounding_agrees_and_anything_more_does_not() {
        let (expected, magnitudes) = ([1.0, -2.0, 0.5], [100.0; 3]);
        let rounded = [1.0 + 1e-4, -2.0, 0.5 - 1e-4];
        assert_eq!(error_of(&rounded, &expected, &magnitudes, 64), None);
        for (wrong, words) in [(1.01, "1 of 3"), (f32::NAN, "NaN in place of 0.5")] {
            let message = error_of(&[1.0, -2.0, 0.5 * wrong], &expected, &magnitudes, 64);
            let message = message.expect("a difference");
            assert!(
                message.contains("first at 2") && message.contains(words),
                "{message}"
            );
        }
    }
}
