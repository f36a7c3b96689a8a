//! Initial values. Each parameter has its own random stream, keyed by seed and name, so that its
//! values do not depend on the order of layers or on the rest of the network.

use crate::philox::Philox;

/// Separates these streams from others with the same seed.
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

/// Kaiming normal initialisation by fan-out of a convolution `[O, C, KH, KW]` before a ReLU (He et
/// al. 2015), as in torchvision's ResNets: mean 0, variance `2 / (O KH KW)`.
pub(super) fn kaiming_normal_fan_out(seed: u64, name: &str, shape: [usize; 4]) -> Vec<f32> {
    let [o, c, kh, kw] = shape;
    let deviation = (2.0 / (o * kh * kw) as f64).sqrt() as f32;
    draw(&stream(seed, name), o * c * kh * kw, 2, |rng| {
        deviation * rng.normal()
    })
}

/// Torch's initialisation of weight and bias of a linear layer: uniform in +-1 / sqrt(fan_in).
pub(super) fn linear_uniform(seed: u64, name: &str, count: usize, fan_in: usize) -> Vec<f32> {
    // Without inputs, the bias is 0, as in torch.
    let bound = match fan_in {
        0 => 0.0,
        _ => (1.0 / (fan_in as f64).sqrt()) as f32,
    };
    draw(&stream(seed, name), count, 1, |rng| {
        rng.uniform(-bound, bound)
    })
}

/// Minimum number of values per thread.
const MIN_VALUES: usize = 16 * 1024;

/// Draws `count` values with `sample`, which takes `words` (1, 2 or 4) words of `rng` each. Each
/// thread starts at its own position of the stream, so the values do not depend on the number of
/// threads.
fn draw(
    rng: &Philox,
    count: usize,
    words: usize,
    sample: impl Fn(&mut Philox) -> f32 + Sync,
) -> Vec<f32> {
    let cores = if cfg!(feature = "threads") {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        1
    };
    // A multiple of 4, so that each part starts at a block of four words.
    let part = count.div_ceil(cores).next_multiple_of(4).max(MIN_VALUES);
    let mut values = vec![0.0; count];
    let fill = |(index, values): (usize, &mut [f32])| {
        let mut rng = rng.clone().from_block((index * part * words / 4) as u32);
        values.fill_with(|| sample(&mut rng));
    };
    let mut parts = values.chunks_mut(part).enumerate();
    let first = parts.next();
    // The scope joins its threads.
    std::thread::scope(|scope| {
        for part in parts {
            scope.spawn(|| fill(part));
        }
        first.into_iter().for_each(&fill);
    });
    values
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
    fn parts_of_a_stream_are_the_stream() {
        let rng = stream(3, "w");
        let count = 5 * MIN_VALUES + 7;
        let normal = draw(&rng, count, 2, Philox::normal);
        let unit = draw(&rng, count, 1, Philox::unit);
        let (mut a, mut b) = (rng.clone(), rng.clone());
        for i in 0..count {
            assert_eq!((normal[i], unit[i]), (a.normal(), b.unit()), "number {i}");
        }
        assert!(draw(&rng, 0, 1, Philox::unit).is_empty());
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
