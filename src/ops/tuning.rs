//! Measures the variants of products and convolutions on an adapter, shape by shape.
//!
//! The result of each variant is first compared with the result of the plain variant, with few
//! images. A variant whose result differs by more than rounding is never selected. Then the
//! variants take turns, so a change of the clock affects all of them, and the shortest time of each
//! counts.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::device::gpu::variants::{Operation, ShapeClass, Variant, VariantTable};
use crate::device::{Device, Gpu, product};
use crate::error::Result;
use crate::ops::cast::Cast;
use crate::ops::conv2d::{self, Conv2d, Conv2dDw, Conv2dDx, ConvGeometry};
use crate::ops::copy::Slice;
use crate::ops::gemm::{self, Gemm, Linear, Operand};
use crate::ops::uniform::{NoiseKey, Uniform};
use crate::tensor::{DType, Tensor};
use crate::testing::bits;

/// Timed runs per variant.
const RUNS: usize = 5;
/// A run is slow if it takes this multiple of the shortest run of the fastest variant. After two
/// slow runs, a variant is not timed again.
const SLOW: f64 = 1.25;
/// FLOPs at which results are compared, and timed on a software adapter.
const CHECKED_FLOPS: u64 = 500_000_000;
/// FLOPs of a timed run on a hardware adapter: 1 to 4 ms on a large GPU, so that all of it is busy
/// and the launch of a kernel does not count.
const TIMED_FLOPS: u64 = 40_000_000_000;
/// Maximum number of repetitions in a timed run of a problem with fewer FLOPs.
const MAX_REPETITIONS: u64 = 20;
/// Number of repetitions of a variant on matrices, which have to have equal bits: a driver may let
/// the subgroups of a workgroup race.
const REPEATS: usize = 10;
/// Minimum number of output pixels of a convolution: the widest tile is full, as in a training.
const PIXELS: usize = 512;
/// Seconds of work before the first timed run on a hardware adapter, which raises its clock.
const WARM_UP_SECONDS: f64 = 0.5;

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

    /// Whether an argument is an activation.
    fn has_activations(&self) -> bool {
        !matches!(self, Problem::Gemm { .. } | Problem::Linear(_))
    }

    fn flops(&self) -> u64 {
        match self {
            Problem::Gemm { sizes, .. } | Problem::Linear(sizes) => 2 * product(sizes),
            Problem::Conv2d(g) | Problem::Conv2dDx(g) | Problem::Conv2dDw(g) => g.flops(),
        }
    }

    /// The problem with as many images of its batch as have `flops` FLOPs or [`PIXELS`] output
    /// pixels. Products are returned as they are.
    fn within(&self, flops: u64) -> Problem {
        let fewer = |g: ConvGeometry| {
            let of_image = ConvGeometry { n: 1, ..g }.flops().max(1);
            let filled = PIXELS.div_ceil(g.oh * g.ow);
            let n = ((flops / of_image) as usize).max(filled).min(g.n);
            ConvGeometry { n, ..g }
        };
        match *self {
            Problem::Conv2d(g) => Problem::Conv2d(fewer(g)),
            Problem::Conv2dDx(g) => Problem::Conv2dDx(fewer(g)),
            Problem::Conv2dDw(g) => Problem::Conv2dDw(fewer(g)),
            product => product,
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

    /// The variants of the operation that run on the adapter, those of f16 factors if `in_f16`.
    fn variants(&self, gpu: &Gpu, in_f16: bool) -> Vec<Variant> {
        let tiles = match self {
            Problem::Gemm { .. } => gemm::tiles(false, in_f16),
            Problem::Linear(_) => gemm::tiles(true, in_f16),
            Problem::Conv2d(g) => conv2d::tiles(g, [g.o, g.c], in_f16),
            Problem::Conv2dDx(g) => conv2d::tiles(g, [g.c, g.o], in_f16),
            Problem::Conv2dDw(g) => conv2d::dw_tiles(g, in_f16),
        };
        let available = tiles.iter().filter(|tile| gpu.runs(tile.kernel));
        available.map(|tile| tile.variant).collect()
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

/// A problem with its arguments on the device: uniform random numbers in [-1, 1).
struct Case<'a> {
    gpu: &'a Gpu,
    problem: Problem,
    arguments: Vec<Tensor>,
}

/// The elements of an f32 or f16 tensor.
fn values(x: &Tensor) -> Result<Vec<f32>> {
    let dtype = DType::F32;
    x.device().run(Cast { x, dtype })?.to_vec::<f32>()
}

impl<'a> Case<'a> {
    fn new(gpu: &'a Gpu, problem: Problem, activations: DType) -> Result<Self> {
        let (shapes, _) = problem.shapes();
        let tensors = (0..).zip(&shapes).map(|(stream, shape)| {
            let key = NoiseKey { seed: 0, stream };
            let x = gpu.run(Uniform {
                key,
                low: -1.0,
                high: 1.0,
                shape,
            })?;
            // The second argument of a forward pass or dx is the weight, which is f32.
            let is_weight = stream == 1 && !matches!(problem, Problem::Conv2dDw(_));
            let is_f32 = is_weight || !problem.has_activations();
            let (x, dtype) = (&x, if is_f32 { DType::F32 } else { activations });
            gpu.run(Cast { x, dtype })
        });
        Ok(Case {
            gpu,
            arguments: tensors.collect::<Result<_>>()?,
            problem,
        })
    }

    fn run(&self) -> Result<Tensor> {
        self.problem.run(self.gpu, &self.arguments)
    }

    /// Seconds of one run of the current variant, which repeats the problem `repetitions` times.
    /// Uses the adapter's timestamps if it has them, otherwise the host's clock.
    fn seconds(&self, repetitions: u64) -> Result<f64> {
        let run_all = || (0..repetitions).try_for_each(|_| self.run().map(drop));
        if self.gpu.has_timestamps() {
            self.gpu.start_timing();
            let ran = run_all();
            let kernels = self.gpu.stop_timing()?;
            ran?;
            return Ok(kernels.iter().map(|kernel| kernel.end - kernel.start).sum());
        }
        let started = Instant::now();
        run_all()?;
        self.wait()?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Waits for everything recorded so far by reading one number.
    fn wait(&self) -> Result<()> {
        let x = &self.arguments[0].reshape(&[self.arguments[0].len()])?;
        let (start, count) = (0, 1);
        self.gpu.run(Slice { x, start, count })?.to_vec::<f32>()?;
        Ok(())
    }
}

/// The results of the plain variant, against which the others are checked.
struct Reference<'a> {
    case: Case<'a>,
    expected: Vec<f32>,
    /// The sum of the absolute products of each element of the result.
    magnitudes: Vec<f32>,
    /// Terms per element of the result.
    terms: usize,
    /// The type of the result.
    dtype: DType,
}

impl<'a> Reference<'a> {
    fn new(gpu: &'a Gpu, problem: Problem, activations: DType) -> Result<Self> {
        gpu.use_only(Variant::Plain);
        let case = Case::new(gpu, problem, activations)?;
        let device = &Device::from(gpu.clone());
        let absolute = case.arguments.iter().map(|x| {
            let values: Vec<f32> = values(x)?.iter().map(|x| x.abs()).collect();
            let (absolute, dtype) = (Tensor::from_slice(&values, x.shape(), device)?, x.dtype());
            gpu.run(Cast {
                x: &absolute,
                dtype,
            })
        });
        let absolute = absolute.collect::<Result<Vec<_>>>()?;
        let y = case.run()?;
        Ok(Reference {
            expected: values(&y)?,
            dtype: y.dtype(),
            magnitudes: values(&problem.run(gpu, &absolute)?)?,
            terms: problem.shapes().1,
            case,
        })
    }

    /// Describes the error in the result of `variant`, which is the current one, if there is one.
    fn check(&self, variant: Variant) -> Result<Option<String>> {
        let y = values(&self.case.run()?)?;
        let mut wrong = error_of(
            &y,
            &self.expected,
            &self.magnitudes,
            (self.terms, self.dtype),
        );
        let repeats = if variant.is_on_matrices() { REPEATS } else { 0 };
        for number in 0..repeats {
            if wrong.is_none() && bits(&values(&self.case.run()?)?) != bits(&y) {
                wrong = Some(format!("repetition {number} has other bits"));
            }
        }
        Ok(wrong)
    }
}

/// Describes the elements of `y` that differ from `expected` by more than the rounding of two sums
/// of `terms` products, which are stored as `dtype`. `magnitudes` are the sums of the absolute
/// products.
fn error_of(
    y: &[f32],
    expected: &[f32],
    magnitudes: &[f32],
    (terms, dtype): (usize, DType),
) -> Option<String> {
    // The error bound of each sum is 4 sqrt(terms) units in the last place of its magnitude.
    let tolerance = 2.0 * 4.0 * (terms as f64).sqrt() / f64::from(1 << 24);
    let wrong = |i: &usize| {
        let mut bound = tolerance * f64::from(magnitudes[*i]);
        if dtype == DType::F16 {
            // Each of both is rounded by half a unit in the last place, which is 2^-24 if
            // subnormal.
            bound += (f64::from(expected[*i]).abs() + bound) * (-10f64).exp2() + (-24f64).exp2();
        }
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

    /// The class of a problem with activations of this type.
    fn class_of(&self, problem: &Problem, activations: DType) -> ShapeClass {
        let has_f16_activations = problem.has_activations() && activations == DType::F16;
        let class = problem.class();
        class.with_f16_factors(has_f16_activations || self.rounds_factors())
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
        activations: DType,
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
            .filter(|problem| {
                let class = self.class_of(problem, activations);
                !before.classes.contains_key(&class) && seen.insert(class)
            })
            .collect();
        if let Some(problem) = todo.first() {
            self.warm_up(problem, activations)?;
        }
        for (done, problem) in todo.iter().enumerate() {
            let class = self.class_of(problem, activations);
            progress(done, todo.len(), &class);
            let fastest = self.fastest((problem, activations), &before, &mut tuned.rejected);
            self.use_variants(before.clone());
            tuned.table.classes.insert(class, fastest?);
        }
        Ok(tuned)
    }

    fn fastest(
        &self,
        (problem, activations): (&Problem, DType),
        table: &VariantTable,
        rejected: &mut Vec<String>,
    ) -> Result<Variant> {
        let class = self.class_of(problem, activations);
        let mut variants = problem.variants(self, class.has_f16_factors());
        variants.retain(|variant| !table.rejects(class.operation(), *variant));
        if let [only] = variants[..] {
            return Ok(only);
        }
        let reference = Reference::new(self, problem.within(CHECKED_FLOPS), activations)?;
        // Starts with the lowest estimated cost, so that slower variants are soon left out.
        variants.sort_by_key(|variant| table.cost.get(variant).copied().unwrap_or(u32::MAX));
        let mut candidates = Vec::new();
        for variant in variants {
            self.use_only(variant);
            let wrong = match variant {
                Variant::Plain => None,
                _ => reference
                    .check(variant)
                    .unwrap_or_else(|error| Some(error.to_string())),
            };
            // Returns the error if the device was lost.
            self.check()?;
            match wrong {
                Some(wrong) => rejected.push(format!("{variant} of {class}: {wrong}")),
                None => candidates.push(Candidate {
                    variant,
                    seconds: f64::INFINITY,
                    slow_runs: 0,
                }),
            }
        }
        let (case, repetitions) = if self.is_software() {
            (reference.case, 1)
        } else {
            let timed = problem.within(TIMED_FLOPS);
            let repetitions = (TIMED_FLOPS / timed.flops().max(1)).clamp(1, MAX_REPETITIONS);
            (Case::new(self, timed, activations)?, repetitions)
        };
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            for candidate in candidates.iter_mut().filter(|c| c.slow_runs < 2) {
                self.use_only(candidate.variant);
                let seconds = case.seconds(repetitions)?;
                candidate.slow_runs += u32::from(seconds > SLOW * best);
                candidate.seconds = candidate.seconds.min(seconds);
                best = best.min(seconds);
            }
        }
        let fastest = candidates
            .iter()
            .min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        Ok(fastest.map_or(Variant::Plain, |fastest| fastest.variant))
    }

    /// Keeps a hardware adapter busy until its clock has risen.
    fn warm_up(&self, problem: &Problem, activations: DType) -> Result<()> {
        if self.is_software() {
            return Ok(());
        }
        let case = Case::new(self, problem.within(TIMED_FLOPS), activations)?;
        let started = Instant::now();
        while started.elapsed().as_secs_f64() < WARM_UP_SECONDS {
            case.run()?;
            case.wait()?;
        }
        Ok(())
    }
}

/// A variant that is timed.
struct Candidate {
    variant: Variant,
    /// The shortest time of a run.
    seconds: f64,
    slow_runs: u32,
}

#[cfg(test)]
mod tests {
    use super::{CHECKED_FLOPS, PIXELS, Problem, TIMED_FLOPS, error_of};
    use crate::ops::Conv2dOptions;
    use crate::ops::conv2d::ConvGeometry;
    use crate::tensor::DType;

    /// Half a GFLOP, or as many images as fill a tile, but no more than the batch has.
    #[test]
    fn a_convolution_is_compared_with_few_images() {
        let options = Conv2dOptions {
            stride: 1,
            padding: 1,
        };
        for (channels, side, images) in [(64, 32, 6), (512, 4, 32), (2, 32, 256)] {
            let x_shape = [256, channels, side, side];
            let g = ConvGeometry::new(x_shape, [channels, channels, 3, 3], options).unwrap();
            let Problem::Conv2dDw(small) = Problem::Conv2dDw(g).within(CHECKED_FLOPS) else {
                panic!("another problem");
            };
            assert_eq!(small, ConvGeometry { n: images, ..g });
            assert!(small.n * side * side >= PIXELS);
            let large = Problem::Conv2d(g).within(TIMED_FLOPS);
            assert_eq!(large, Problem::Conv2d(g), "the whole batch");
        }
    }

    #[test]
    fn rounding_agrees_and_anything_more_does_not() {
        let (expected, magnitudes) = ([1.0, -2.0, 0.5], [100.0; 3]);
        let (f32, f16) = ((64, DType::F32), (64, DType::F16));
        let rounded = [1.0 + 1e-4, -2.0, 0.5 - 1e-4];
        assert_eq!(error_of(&rounded, &expected, &magnitudes, f32), None);
        // A unit in the last place of f16.
        let of_f16 = [1.0009, -2.0018, 0.50045];
        assert_eq!(error_of(&of_f16, &expected, &[1.0; 3], f16), None);
        assert!(error_of(&of_f16, &expected, &[1.0; 3], f32).is_some());
        assert!(error_of(&[1.003, -2.0, 0.5], &expected, &[1.0; 3], f16).is_some());
        for (wrong, words) in [(1.01, "1 of 3"), (f32::NAN, "NaN in place of 0.5")] {
            let message = error_of(&[1.0, -2.0, 0.5 * wrong], &expected, &magnitudes, f32);
            let message = message.expect("a difference");
            assert!(
                message.contains("first at 2") && message.contains(words),
                "{message}"
            );
        }
    }
}
