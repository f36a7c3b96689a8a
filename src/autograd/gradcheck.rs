//! Checks gradients against central differences.
//!
//! The function under test maps leaves to a result `y` of any shape. The checker draws a coefficient
//! `c_i` for each element and computes `loss = sum_i c_i y_i` on the host in f64, so that only the
//! rounding of y remains. Each element of each leaf is moved by `+- h`, and
//! `(loss(x + h) - loss(x - h)) / 2h` is compared with the gradient of the tape for `dy = c`. No
//! coefficient is 1, so that a backward pass which ignores `dy` is detected.

use super::{PassOptions, Tape, Var};
use crate::device::Device;
use crate::error::Result;
use crate::philox::Philox;
use crate::tensor::Tensor;

/// The numbers of one leaf.
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

/// Compares the gradients of `function` at `leaves` with central differences, and returns for each leaf the relative
/// error `|tape - differences| / max(|tape|, |differences|)` in the Euclidean norm; 0 where both are zero.
///
/// A step is `step` times the leaf's root mean square; 1e-2 suits f32. Keep the leaves farther than a step from kinks.
/// It runs `function` twice for each number of each leaf.
///
/// # Errors
/// Those of `function` and of its backward pass.
pub fn relative_errors(
    device: &Device,
    leaves: &[Leaf],
    step: f64,
    function: impl Fn(&[Var]) -> Result<Var>,
) -> Result<Vec<f64>> {
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

    let loss = |moved: usize, values: &[f32]| -> Result<f64> {
        let tape = Tape::forward_only(device, PassOptions::default());
        let mut vars: Vec<Var> = tensors.iter().map(|tensor| tape.constant(tensor)).collect();
        vars[moved] = tape.constant(&Tensor::from_slice(values, &leaves[moved].shape, device)?);
        let y = function(&vars)?.tensor().to_vec::<f32>()?;
        Ok(y.iter()
            .zip(&coefficients)
            .map(|(&y, &c)| f64::from(y) * f64::from(c))
            .sum())
    };

    let mut errors = Vec::with_capacity(leaves.len());
    for (index, leaf) in leaves.iter().enumerate() {
        let analytic = match gradients.of(&tensors[index]) {
            Some(gradient) => gradient.to_vec::<f32>()?,
            None => vec![0.0; leaf.values.len()],
        };
        let size = step * root_mean_square(&leaf.values);
        let mut values = leaf.values.clone();
        let (mut apart, mut tape_norm, mut difference_norm) = (0.0, 0.0, 0.0);
        for i in 0..values.len() {
            let x = leaf.values[i];
            let (above, below) = ((f64::from(x) + size) as f32, (f64::from(x) - size) as f32);
            values[i] = above;
            let loss_above = loss(index, &values)?;
            values[i] = below;
            let loss_below = loss(index, &values)?;
            values[i] = x;
            let difference = (loss_above - loss_below) / (f64::from(above) - f64::from(below));
            let gradient = f64::from(analytic[i]);
            apart += (gradient - difference).powi(2);
            tape_norm += gradient.powi(2);
            difference_norm += difference.powi(2);
        }
        let norm = f64::max(tape_norm, difference_norm).sqrt();
        errors.push(if norm == 0.0 {
            0.0
        } else {
            apart.sqrt() / norm
        });
    }
    Ok(errors)
}

/// Numbers of either sign with a size in [0.5, 1.5), none of them 1.
fn coefficients(count: usize) -> Vec<f32> {
    let mut rng = Philox::new(0x9e37, [0; 3]);
    let draw = |_| {
        let size = rng.uniform(0.5, 1.5);
        let size = if size == 1.0 { 1.25 } else { size };
        if rng.below(2) == 0 { size } else { -size }
    };
    (0..count).map(draw).collect()
}

/// The size of a typical element; 1 for a leaf of zeros.
fn root_mean_square(values: &[f32]) -> f64 {
    let sum: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
    let size = (sum / values.len() as f64).sqrt();
    if size > 0.0 { size } else { 1.0 }
}
