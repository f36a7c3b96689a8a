//! Principal components: the directions of the largest variance.

/// Number of components.
pub const COMPONENTS: usize = 2;
/// Maximum number of iterations per component.
const ITERATIONS: usize = 500;
/// Change of a direction at which the iteration ends.
const CHANGE: f64 = 1e-10;

/// The coordinates of points along their principal components.
pub struct Projected {
    pub points: Vec<[f64; COMPONENTS]>,
    /// The fraction of the variance along each component.
    pub explained: [f64; COMPONENTS],
}

/// Projects `rows`, row-major with `width` elements each, on their first two principal components,
/// by power iteration with deflation in f64. The result has the same bits on every machine. The
/// largest element of a direction is positive.
pub fn project(rows: &[f32], width: usize) -> Projected {
    let count = rows.len() / width.max(1);
    let mut mean = vec![0.0; width];
    for row in rows.chunks_exact(width.max(1)) {
        for (mean, &x) in mean.iter_mut().zip(row) {
            *mean += f64::from(x) / count as f64;
        }
    }
    let mut centred: Vec<Vec<f64>> = rows
        .chunks_exact(width.max(1))
        .map(|row| {
            row.iter()
                .zip(&mean)
                .map(|(&x, m)| f64::from(x) - m)
                .collect()
        })
        .collect();
    let variance = |rows: &[Vec<f64>]| rows.iter().map(|row| dot(row, row)).sum::<f64>();
    let total = variance(&centred);
    let mut points = vec![[0.0; COMPONENTS]; count];
    let mut explained = [0.0; COMPONENTS];
    for component in 0..COMPONENTS {
        let left = variance(&centred);
        let direction = main_direction(&centred, width);
        for (row, point) in centred.iter_mut().zip(&mut points) {
            let along = dot(row, &direction);
            point[component] = along;
            for (x, d) in row.iter_mut().zip(&direction) {
                *x -= along * d;
            }
        }
        if total > 0.0 {
            explained[component] = (left - variance(&centred)) / total;
        }
    }
    Projected { points, explained }
}

/// The direction of the largest variance, of length 1.
fn main_direction(rows: &[Vec<f64>], width: usize) -> Vec<f64> {
    // The longest row is not orthogonal to every direction of variance.
    let longest = rows.iter().max_by(|a, b| dot(a, a).total_cmp(&dot(b, b)));
    let mut direction = longest.cloned().unwrap_or_else(|| vec![0.0; width]);
    normalize(&mut direction);
    for _ in 0..ITERATIONS {
        let mut next = vec![0.0; width];
        for row in rows {
            let along = dot(row, &direction);
            for (sum, x) in next.iter_mut().zip(row) {
                *sum += along * x;
            }
        }
        normalize(&mut next);
        let change: f64 = next
            .iter()
            .zip(&direction)
            .map(|(a, b)| (a - b).abs())
            .sum();
        direction = next;
        if change < CHANGE {
            break;
        }
    }
    let largest = direction
        .iter()
        .copied()
        .max_by(|a, b| a.abs().total_cmp(&b.abs()));
    if largest.is_some_and(|x| x < 0.0) {
        direction.iter_mut().for_each(|x| *x = -*x);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Scales to length 1, unless the length is 0.
fn normalize(x: &mut [f64]) {
    let length = dot(x, x).sqrt();
    if length > 0.0 {
        x.iter_mut().for_each(|x| *x /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::Philox;

    /// Points with standard deviations 3, 2 and 0.5 along axes that are turned.
    #[test]
    fn components_are_the_axes_of_a_turned_ellipsoid() {
        let axes = [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]];
        let mut rng = Philox::new(3, [0; 3]);
        let mut along = Vec::new();
        for _ in 0..2000 {
            // The sum of twelve uniform numbers is nearly normal, with variance 1.
            let mut uniform = || f64::from(rng.below(1 << 20)) / f64::from(1 << 20);
            let mut normal = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            along.push([normal(), normal(), normal()]);
        }
        let scales = [3.0, 2.0, 0.5];
        let coordinate = |a: &[f64], axis: usize| {
            let parts = (0..3).map(|i| a[i] * scales[i] * axes[i][axis]);
            (10.0 + parts.sum::<f64>()) as f32
        };
        let rows: Vec<f32> = along
            .iter()
            .flat_map(|a| (0..3).map(move |axis| coordinate(a, axis)))
            .collect();
        let found = project(&rows, 3);
        for (share, scale) in found.explained.iter().zip(scales) {
            assert!(
                (share - scale * scale / 13.25).abs() < 0.02,
                "{:?}",
                found.explained
            );
        }
        for component in 0..2 {
            let ours = found.points.iter().map(|point| point[component]);
            let theirs = along.iter().map(|a| a[component] * scales[component]);
            let (mut product, mut a, mut b) = (0.0, 0.0, 0.0);
            for (x, y) in ours.zip(theirs) {
                (product, a, b) = (product + x * y, a + x * x, b + y * y);
            }
            let correlation: f64 = product / (a * b).sqrt();
            assert!(correlation.abs() > 0.99, "{component}: {correlation}");
        }
    }

    #[test]
    fn equal_points_have_no_variance() {
        for rows in [vec![], vec![1.0; 12]] {
            let found = project(&rows, 4);
            assert_eq!(found.points, vec![[0.0; 2]; rows.len() / 4]);
            assert_eq!(found.explained, [0.0; 2]);
        }
    }
}
