//! Checks gradients against central differences.
//!
//! The function under test maps leaves to a result `y` of any shape. The loss is `sum_i c_i y_i`
//! with random coefficients `c`, computed on the host in float64. The difference quotient
//! `(loss(x + h) - loss(x - h)) / 2h` of each element of each leaf is compared with the gradient of
//! the tape for `dy = c`. No coefficient is 1, so a backward pass that ignores `dy` is detected.

use super::{PassOptions, Tape, Var};
use crate::device::Device;
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
/// error of each leaf, `|tape - differences| / max(|tape|, |differences|)` in the Euclidean norm,
/// or 0 if both are zero.
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
        let h = step * root_mean_square(&leaf.values);
        let mut values = leaf.values.clone();
        let (mut error, mut tape_norm, mut difference_norm) = (0.0, 0.0, 0.0);
        for i in 0..values.len() {
            let x = leaf.values[i];
            let (above, below) = ((f64::from(x) + h) as f32, (f64::from(x) - h) as f32);
            values[i] = above;
            let loss_above = loss(index, &values)?;
            values[i] = below;
            let loss_below = loss(index, &values)?;
            values[i] = x;
            let difference = (loss_above - loss_below) / (f64::from(above) - f64::from(below));
            let gradient = f64::from(analytic[i]);
            error += (gradient - difference).powi(2);
            tape_norm += gradient.powi(2);
            difference_norm += difference.powi(2);
        }
        let norm = f64::max(tape_norm, difference_norm).sqrt();
        // 0 if both norms are 0, and NaN if a gradient is NaN.
        errors.push(if error == 0.0 {
            0.0
        } else {
            error.sqrt() / norm
        });
    }
    Ok(errors)
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
