//! A solution of exercise 2.

/// The loss of embeddings of length 1.
pub fn nt_xent(z: &[Vec<f64>], temperature: f64) -> f64 {
    let rows = z.len();
    let similarity = |i: usize, j: usize| {
        let products = z[i].iter().zip(&z[j]).map(|(a, b)| a * b);
        products.sum::<f64>() / temperature
    };
    let losses = (0..rows).map(|i| {
        let others = (0..rows).filter(|&j| j != i);
        let others: Vec<f64> = others.map(|j| similarity(i, j)).collect();
        let largest = others.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = others.iter().map(|s| (s - largest).exp()).sum();
        largest + sum.ln() - similarity(i, (i + rows / 2) % rows)
    });
    losses.sum::<f64>() / rows as f64
}
