//! Expected results in float64, with error bounds for f32 results.

use super::accuracy::{U, ulp};

/// Expected elements and the absolute error bound of each.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    pub value: Vec<f64>,
    pub bound: Vec<f64>,
    /// The sum of the absolute terms of each element, if it is a sum.
    pub magnitude: Vec<f64>,
}

impl Expected {
    /// Values that are copied or selected, without rounding.
    pub fn exact(value: Vec<f64>) -> Self {
        let bound = vec![0.0; value.len()];
        Expected {
            value,
            bound,
            ..Expected::default()
        }
    }

    /// Element-wise arithmetic: 4 ulp.
    pub fn elementwise(value: Vec<f64>) -> Self {
        let bound = value.iter().map(|&v| 4.0 * ulp(v)).collect();
        Expected {
            value,
            bound,
            ..Expected::default()
        }
    }

    /// The bounds of the same results stored as f16. Rounding adds a relative error of 2^-11, or
    /// half the distance of two subnormal numbers.
    pub fn stored_as_f16(mut self) -> Self {
        for (value, bound) in self.value.iter().zip(&mut self.bound) {
            *bound += (value.abs() + *bound) * (-11f64).exp2() + (-25f64).exp2();
        }
        self
    }

    /// The bounds of the same sums of products if both factors are rounded to f16. Each has a
    /// relative error of at most 2^-11, if it is not subnormal.
    pub fn of_rounded_factors(mut self) -> Self {
        let error = 2.0 * (-11f64).exp2() + (-22f64).exp2();
        for (magnitude, bound) in self.magnitude.iter().zip(&mut self.bound) {
            *bound = *bound * (1.0 + error) + error * magnitude;
        }
        self
    }

    /// Appends an element.
    pub fn push(&mut self, value: f64, bound: f64) {
        self.value.push(value);
        self.bound.push(bound);
    }
}

impl FromIterator<Sum> for Expected {
    fn from_iter<I: IntoIterator<Item = Sum>>(sums: I) -> Self {
        let mut expected = Expected::default();
        for sum in sums {
            expected.push(sum.value, sum.bound());
            expected.magnitude.push(sum.magnitude);
        }
        expected
    }
}

/// A sum of K terms, with the sum of their absolute values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub value: f64,
    pub magnitude: f64,
    pub terms: usize,
}

impl Sum {
    pub fn add(&mut self, term: f64) {
        self.value += term;
        self.magnitude += term.abs();
        self.terms += 1;
    }

    pub fn of(terms: impl IntoIterator<Item = f64>) -> Self {
        let mut sum = Sum::default();
        for term in terms {
            sum.add(term);
        }
        sum
    }

    /// 4 sqrt(K) 2^-24 sum|a b|: the error bound of an f32 sum in any order.
    pub fn bound(&self) -> f64 {
        4.0 * (self.terms as f64).sqrt() * U * self.magnitude
    }
}
