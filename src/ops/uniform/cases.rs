//! Uniform random numbers: the integers have the same bits on every device.

use super::{NoiseKey, Uniform};
use crate::error::Result;
use crate::testing::accuracy::U;
use crate::testing::{Expected, Tester};

/// Every case.
pub fn run(tester: &Tester) -> Result<()> {
    integers_have_the_same_bits_on_every_device(tester)?;
    numbers_are_within_the_bounds(tester)
}

pub(super) const KEYS: [NoiseKey; 3] = [
    NoiseKey { seed: 0, stream: 0 },
    NoiseKey {
        seed: 0x0123_4567_89ab_cdef,
        stream: 0xfedc_ba98_7654_3210,
    },
    NoiseKey {
        seed: u64::MAX,
        stream: u64::MAX - 1,
    },
];

/// The 24 bits of element i, from the definition of Philox4x32-10 with products in 128 bits.
fn integer(key: NoiseKey, i: usize) -> u32 {
    let low = |x: u128| (x & 0xffff_ffff) as u32;
    let mut k = [low(key.seed.into()), low(u128::from(key.seed) >> 32)];
    let mut c = [
        (i / 4) as u32,
        0,
        low(key.stream.into()),
        low(u128::from(key.stream) >> 32),
    ];
    for _ in 0..10 {
        let p = 0xD251_1F53_u128 * u128::from(c[0]);
        let q = 0xCD9E_8D57_u128 * u128::from(c[2]);
        c = [
            low(q >> 32) ^ c[1] ^ k[0],
            low(q),
            low(p >> 32) ^ c[3] ^ k[1],
            low(p),
        ];
        k = [
            k[0].wrapping_add(0x9E37_79B9),
            k[1].wrapping_add(0xBB67_AE85),
        ];
    }
    c[i % 4] >> 8
}

/// Numbers in [0, 1).
pub(super) fn unit(key: NoiseKey, shape: &[usize]) -> Uniform<'_> {
    Uniform {
        key,
        low: 0.0,
        high: 1.0,
        shape,
    }
}

fn integers_have_the_same_bits_on_every_device(tester: &Tester) -> Result<()> {
    // The last one is cut into slices if bindings are small, and is longer than a chunk of the CPU.
    for (key, len) in [(0, 1), (1, 3), (2, 4), (1, 257), (2, 40_003)].map(|(k, n)| (KEYS[k], n)) {
        let expected: Vec<u32> = (0..len).map(|i| integer(key, i)).collect();
        for on in tester.all() {
            // In [0, 1), no operation rounds, so the integer follows from the float.
            let y = on.run(unit(key, &[len]))?;
            let y = y.to_vec::<f32>()?;
            let found: Vec<u32> = y.iter().map(|y| (y * 16_777_216.0) as u32).collect();
            on.equal(&format!("{key:?}, {len} numbers"), &found, &expected);
        }
    }
    Ok(())
}

fn numbers_are_within_the_bounds(tester: &Tester) -> Result<()> {
    let (low, high) = (-8.0f32 / 255.0, 8.0f32 / 255.0);
    let shape = &[3, 5, 7, 2];
    let (low64, high64) = (f64::from(low), f64::from(high));
    for key in KEYS {
        let mut expected = Expected::default();
        for i in 0..210 {
            let value = low64 + (high64 - low64) * f64::from(integer(key, i)) * U;
            // A difference, a product and a sum, each rounded at the width of the range at most.
            expected.push(value, 3.0 * U * (high64 - low64));
        }
        for on in tester.all() {
            let numbers = Uniform {
                key,
                low,
                high,
                shape,
            };
            on.agree(&format!("{key:?}"), &on.run(numbers)?, shape, &expected)?;
        }
    }
    Ok(())
}
