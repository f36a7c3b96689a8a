//! A solution of exercise 3.

/// The gradient with respect to the inputs of a softmax with the results `p`.
pub fn softmax_backward(p: &[f64], dp: &[f64]) -> Vec<f64> {
    // The derivative of p_j with respect to x_i is p_i (1 - p_i) for i = j, and -p_i p_j otherwise.
    let dot: f64 = p.iter().zip(dp).map(|(p, dp)| p * dp).sum();
    p.iter().zip(dp).map(|(p, dp)| p * (dp - dot)).collect()
}
