//! Expected results in float64, each with the error that an f32 result may have.

use super::accuracy::{U, ulp};

/// What a kernel should give, and how far from it each element may lie.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    pub value: Vec<f64>,
    pub bound: Vec<f64>,
}

impl Expected {
    /// Values that a kernel copies or chooses, with no rounding at all.
    pub fn exact(value: Vec<f64>) -> Self {
        let bound = vec![0.0; value.len()];
        Expected { value, bound }
    }

    /// Element-wise arithmetic: 4 ulp.
    pub fn elementwise(value: Vec<f64>) -> Self {
        let bound = value.iter().map(|&v| 4.0 * ulp(v)).collect();
        Expected { value, bound }
    }

    /// What is stored of it as f16: rounded once more, by 2^-11 of itself, or of a subnormal number by half of the
    /// distance between two.
    pub fn stored_as_f16(mut self) -> Self {
        for (value, bound) in self.value.iter().zip(&mut self.bound) {
            *bound += (value.abs() + *bound) * (-11f64).exp2() + (-25f64).exp2();
        }
        self
    }

    /// One more element.
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
        }
        expected
    }
}

/// A sum of K terms (products, mostly), with the sum of their absolute values.
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

    /// 4 sqrt(K) 2^-24 sum|a b|: what f32 arithmetic may add in whatever order it adds.
    pub fn bound(&self) -> f64 {
        4.0 * (self.terms as f64).sqrt() * U * self.magnitude
    }
}
