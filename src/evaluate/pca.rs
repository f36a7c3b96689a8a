//! Principal components (Pearson 1901), to draw features in two dimensions.

use crate::error::{Error, Result};

/// Iterations per component. The directions are for drawings, so digits do not matter.
const ITERATIONS: usize = 100;

/// Projects the rows of `values`, each `width` numbers, on their first `components` principal
/// components. Returns `components` numbers per row. Each component has the sign that makes its
/// largest coefficient positive, so similar rows give similar drawings.
///
/// The components are found one after the other by power iteration on the covariance.
///
/// # Errors
/// `Error::Shape` if the values are not whole rows; `Error::NonFinite` if one is not finite.
pub fn project(values: &[f32], width: usize, components: usize) -> Result<Vec<f32>> {
    if width == 0 || !values.len().is_multiple_of(width) {
        return Err(Error::shape(
            "pca",
            format!(
                "{} values; expected rows of {width}, which is 1 or more",
                values.len()
            ),
        ));
    }
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::NonFinite(format!(
            "pca: a value is {value}; expected finite numbers"
        )));
    }
    let count = values.len() / width;
    let mut mean = vec![0.0f64; width];
    for row in values.chunks_exact(width) {
        for (mean, &value) in mean.iter_mut().zip(row) {
            *mean += f64::from(value) / count as f64;
        }
    }
    let centred: Vec<f64> = values
        .chunks_exact(width)
        .flat_map(|row| {
            row.iter()
                .zip(&mean)
                .map(|(&value, mean)| f64::from(value) - mean)
        })
        .collect();
    let mut covariance = vec![0.0f64; width * width];
    for row in centred.chunks_exact(width) {
        for (&a, line) in row.iter().zip(covariance.chunks_exact_mut(width)) {
            line.iter_mut().zip(row).for_each(|(sum, &b)| *sum += a * b);
        }
    }
    let mut projected = vec![0.0f32; count * components];
    for component in 0..components {
        let axis = largest_axis(&covariance, width);
        for (row, out) in centred
            .chunks_exact(width)
            .zip(projected.chunks_exact_mut(components))
        {
            out[component] = dot(row, &axis) as f32;
        }
        // Removes the component, so that the next one is the largest of the rest.
        let variance = dot(&product(&covariance, &axis), &axis);
        for (i, line) in covariance.chunks_exact_mut(width).enumerate() {
            for (entry, &b) in line.iter_mut().zip(&axis) {
                *entry -= variance * axis[i] * b;
            }
        }
    }
    Ok(projected)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn product(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix
        .chunks_exact(x.len())
        .map(|line| dot(line, x))
        .collect()
}

/// The unit vector along which the variance is largest, or zeros if there is no variance.
fn largest_axis(covariance: &[f64], width: usize) -> Vec<f64> {
    // The line of the largest variance is not orthogonal to the axis, unless all are zero.
    let variance = |i: &usize| covariance[i * width + i];
    let start = (0..width).max_by(|a, b| variance(a).total_cmp(&variance(b)));
    let start = start.unwrap_or_default() * width;
    let mut axis = covariance[start..start + width].to_vec();
    for _ in 0..ITERATIONS {
        let length = dot(&axis, &axis).sqrt();
        if length < f64::MIN_POSITIVE {
            return vec![0.0; width];
        }
        axis.iter_mut().for_each(|x| *x /= length);
        let next = product(covariance, &axis);
        if dot(&next, &next) < f64::MIN_POSITIVE {
            break;
        }
        axis = next;
    }
    let length = dot(&axis, &axis).sqrt();
    let largest = axis
        .iter()
        .copied()
        .max_by(|a, b| a.abs().total_cmp(&b.abs()));
    let sign = largest.unwrap_or(1.0).signum();
    axis.iter_mut().for_each(|x| *x *= sign / length);
    axis
}

#[cfg(test)]
mod tests {
    use super::project;

    #[test]
    fn rows_on_a_plane_keep_their_distances() {
        // Axes (3, 4, 0) / 5 and (0, 0, 1), with variances that differ.
        let points = [[5.0f32, 1.0], [-5.0, 1.0], [0.0, -2.0], [10.0, 0.0]];
        let rows: Vec<f32> = points
            .iter()
            .flat_map(|[a, b]| [0.6 * a + 7.0, 0.8 * a, *b])
            .collect();
        let projected = project(&rows, 3, 2).unwrap();
        let mean = [2.5, 0.0];
        for (found, point) in projected.chunks_exact(2).zip(points) {
            for ((found, x), mean) in found.iter().zip(point).zip(mean) {
                assert!((found - (x - mean)).abs() < 1e-4, "{projected:?}");
            }
        }
    }

    #[test]
    fn rows_without_variance_are_one_point() {
        assert_eq!(project(&[1.0, 2.0, 1.0, 2.0], 2, 2).unwrap(), [0.0; 4]);
        assert_eq!(project(&[], 3, 2).unwrap(), [0.0f32; 0]);
        assert_eq!(project(&[1.0, 3.0], 1, 2).unwrap(), [-1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn values_that_cannot_be_projected_are_refused() {
        assert!(project(&[1.0, 2.0, 3.0], 2, 1).is_err());
        assert!(project(&[1.0], 0, 1).is_err());
        assert!(project(&[1.0, f32::NAN], 2, 1).is_err());
    }
}
