//! Initial values. Each parameter draws from its own stream, keyed by seed and name, so that its values depend on nothing
//! else: not on the order of layers, nor on what else is in the network.

use crate::device::philox::Philox;

/// What tells these draws from others under the same seed.
const PURPOSE: u32 = 0x696e_6974;

/// The 64-bit FNV-1a hash (Fowler, Noll and Vo) of a name.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn stream(seed: u64, name: &str) -> Philox {
    let hash = hash(name);
    Philox::new(seed, [PURPOSE, hash as u32, (hash >> 32) as u32])
}

/// Kaiming normal by fan-out for a convolution `[O, C, KH, KW]` before a ReLU (He et al. 2015): mean 0, variance
/// `2 / (O KH KW)`, as torchvision's ResNets start.
pub(super) fn kaiming_normal_fan_out(seed: u64, name: &str, shape: [usize; 4]) -> Vec<f32> {
    let [o, c, kh, kw] = shape;
    let deviation = (2.0 / (o * kh * kw) as f64).sqrt() as f32;
    let mut rng = stream(seed, name);
    (0..o * c * kh * kw)
        .map(|_| deviation * rng.normal())
        .collect()
}

/// Uniform in +-1 / sqrt(fan_in): how torch starts weight and bias of a linear layer.
pub(super) fn linear_uniform(seed: u64, name: &str, count: usize, fan_in: usize) -> Vec<f32> {
    let bound = (1.0 / (fan_in as f64).sqrt()) as f32;
    let mut rng = stream(seed, name);
    (0..count).map(|_| rng.uniform(-bound, bound)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_depend_on_seed_and_name_only() {
        let draw = |seed, name| kaiming_normal_fan_out(seed, name, [4, 3, 3, 3]);
        assert_eq!(draw(1, "conv1.weight"), draw(1, "conv1.weight"));
        assert_ne!(draw(1, "conv1.weight"), draw(2, "conv1.weight"));
        assert_ne!(draw(1, "conv1.weight"), draw(1, "conv2.weight"));
    }

    #[test]
    fn kaiming_has_its_variance() {
        let draws = kaiming_normal_fan_out(5, "w", [64, 32, 3, 3]);
        let count = draws.len() as f64;
        let mean = draws.iter().map(|&d| f64::from(d)).sum::<f64>() / count;
        let variance = draws.iter().map(|&d| f64::from(d).powi(2)).sum::<f64>() / count;
        let expected = 2.0 / (64.0 * 9.0);
        // Five standard errors of a mean and of a variance of normal numbers.
        assert!(mean.abs() < 5.0 * (expected / count).sqrt(), "{mean}");
        let relative = variance / expected - 1.0;
        assert!(relative.abs() < 5.0 * (2.0 / count).sqrt(), "{relative}");
    }

    #[test]
    fn linear_stays_in_its_bounds_and_fills_them() {
        let draws = linear_uniform(5, "fc.weight", 4000, 100);
        let largest = draws.iter().fold(0f32, |m, d| m.max(d.abs()));
        assert!(largest <= 0.1 && largest > 0.099, "{largest}");
        let mean = draws.iter().sum::<f32>() / 4000.0;
        // Five standard errors: 0.1 / sqrt(3 * 4000) each.
        assert!(mean.abs() < 5.0 * 0.1 / 12_000f32.sqrt(), "{mean}");
    }
}
