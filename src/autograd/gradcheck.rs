//! Checks gradients against central differences.
//!
//! The function under test maps leaves to a result `y` of any shape. The loss is `sum_i c_i y_i`
//! with random coefficients `c`, computed on the host in float64. The difference quotient
//! `(loss(x + h) - loss(x - h)) / 2h` of each element of each leaf is compared with the gradient of
//! the tape for `dy = c`. No coefficient is 1, so a backward pass that ignores `dy` is detected.

use super::{PassOptions, Tape, Var};
use crate::device::{Device, Readback, block_on};
use crate::error::Result;
use crate::philox::Philox;
use crate::tensor::Tensor;

/// The values of one leaf.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Leaf {
    /// A leaf of `shape` with `values` in row-major order.
    pub fn new(shape: &[usize], values: Vec<f32>) -> Self {
        Leaf {
            shape: shape.to_vec(),
            values,
        }
    }
}

/// Compares the gradients of `function` at `leaves` with central differences. Returns the relative
/// error of each leaf: see [`LeafGradient::relative_error`].
///
/// The step `h` is `step` times the root mean square of the leaf; 1e-2 suits f32. The function must
/// have no kink within `h` of a leaf. It runs twice per element of each leaf.
///
/// # Errors
/// Those of `function` and of its backward pass.
pub fn relative_errors(
    device: &Device,
    leaves: &[Leaf],
    step: f64,
    function: impl Fn(&[Var]) -> Result<Var>,
) -> Result<Vec<f64>> {
    let check = GradientCheck::start(device, leaves, step, function)?;
    let gradients = block_on(check.finish())?;
    Ok(gradients.iter().map(LeafGradient::relative_error).collect())
}

/// The gradient of one leaf, computed in two ways.
#[derive(Clone, Debug)]
pub struct LeafGradient {
    /// By the backward passes of the tape.
    pub tape: Vec<f64>,
    /// By central differences.
    pub differences: Vec<f64>,
}

impl LeafGradient {
    /// `|tape - differences| / max(|tape|, |differences|)` in the Euclidean norm, 0 if both are
    /// zero, and NaN if a gradient is NaN.
    pub fn relative_error(&self) -> f64 {
        let squared =
            |values: &mut dyn Iterator<Item = f64>| values.map(|x| x.powi(2)).sum::<f64>();
        let pairs = self.tape.iter().zip(&self.differences);
        let error = squared(&mut pairs.map(|(tape, difference)| tape - difference));
        let norm = f64::max(
            squared(&mut self.tape.iter().copied()),
            squared(&mut self.differences.iter().copied()),
        );
        if error == 0.0 {
            0.0
        } else {
            error.sqrt() / norm.sqrt()
        }
    }
}

/// A gradient check that is recorded, and may not have been computed yet.
pub struct GradientCheck {
    coefficients: Vec<f32>,
    leaves: Vec<PendingLeaf>,
}

struct PendingLeaf {
    len: usize,
    /// The gradient of the tape, unless it is zero.
    tape: Option<Readback>,
    /// For each element: the results for the moved element, above and below, and their distance.
    moved: Vec<([Readback; 2], f64)>,
}

impl GradientCheck {
    /// Records the passes of a check without waiting for them. The arguments are those of
    /// [`relative_errors`].
    ///
    /// # Errors
    /// As [`relative_errors`].
    pub fn start(
        device: &Device,
        leaves: &[Leaf],
        step: f64,
        function: impl Fn(&[Var]) -> Result<Var>,
    ) -> Result<Self> {
        let tensors = leaves
            .iter()
            .map(|leaf| Tensor::from_slice(&leaf.values, &leaf.shape, device))
            .collect::<Result<Vec<_>>>()?;
        let tape = Tape::new(device);
        let vars: Vec<Var> = tensors.iter().map(|tensor| tape.leaf(tensor)).collect();
        let y = function(&vars)?;
        drop(vars);
        let coefficients = coefficients(y.tensor().len());
        let dy = Tensor::from_slice(&coefficients, y.shape(), device)?;
        let gradients = y.backward_from(dy)?;

        let result = |moved: usize, values: &[f32]| -> Result<Readback> {
            let tape = Tape::forward_only(device, PassOptions::default());
            let mut vars: Vec<Var> = tensors.iter().map(|tensor| tape.constant(tensor)).collect();
            vars[moved] = tape.constant(&Tensor::from_slice(values, &leaves[moved].shape, device)?);
            function(&vars)?.tensor().read()
        };
        let mut pending = Vec::with_capacity(leaves.len());
        for (index, leaf) in leaves.iter().enumerate() {
            let h = step * root_mean_square(&leaf.values);
            let mut values = leaf.values.clone();
            let mut moved = Vec::with_capacity(values.len());
            for i in 0..values.len() {
                let x = leaf.values[i];
                let (above, below) = ((f64::from(x) + h) as f32, (f64::from(x) - h) as f32);
                values[i] = above;
                let result_above = result(index, &values)?;
                values[i] = below;
                let result_below = result(index, &values)?;
                values[i] = x;
                let distance = f64::from(above) - f64::from(below);
                moved.push(([result_above, result_below], distance));
            }
            pending.push(PendingLeaf {
                len: leaf.values.len(),
                tape: gradients
                    .of(&tensors[index])
                    .map(Tensor::read)
                    .transpose()?,
                moved,
            });
        }
        Ok(GradientCheck {
            coefficients,
            leaves: pending,
        })
    }

    /// Waits for the gradient of each leaf. Outside of a browser, it blocks the thread.
    ///
    /// # Errors
    /// `Error::Device` if the device was lost.
    pub async fn finish(self) -> Result<Vec<LeafGradient>> {
        let mut gradients = Vec::with_capacity(self.leaves.len());
        for leaf in self.leaves {
            let tape = match leaf.tape {
                Some(tape) => tape.wait_as_async::<f32>().await?,
                None => vec![0.0; leaf.len],
            };
            let mut differences = Vec::with_capacity(leaf.len);
            for ([above, below], distance) in leaf.moved {
                let mut losses = [0.0; 2];
                for (loss, result) in losses.iter_mut().zip([above, below]) {
                    let y = result.wait_as_async::<f32>().await?;
                    let products = y.iter().zip(&self.coefficients);
                    *loss = products.map(|(&y, &c)| f64::from(y) * f64::from(c)).sum();
                }
                differences.push((losses[0] - losses[1]) / distance);
            }
            gradients.push(LeafGradient {
                tape: tape.into_iter().map(f64::from).collect(),
                differences,
            });
        }
        Ok(gradients)
    }
}

/// Random numbers of both signs with a magnitude in [0.5, 1.5), none of which is 1.
fn coefficients(count: usize) -> Vec<f32> {
    let mut rng = Philox::new(0x9e37, [0; 3]);
    let draw = |_| {
        let magnitude = rng.uniform(0.5, 1.5);
        let magnitude = if magnitude == 1.0 { 1.25 } else { magnitude };
        if rng.below(2) == 0 {
            magnitude
        } else {
            -magnitude
        }
    };
    (0..count).map(draw).collect()
}

/// The root mean square, or 1 if all values are zero.
fn root_mean_square(values: &[f32]) -> f64 {
    let sum: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
    let root = (sum / values.len() as f64).sqrt();
    if root > 0.0 { root } else { 1.0 }
}
