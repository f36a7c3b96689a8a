//! Uniform noise: its integers are equal to the bit on every device.

use parallax::device::kernels::NoiseKey;

use crate::compare::{U, agree, get};
use crate::devices;

const KEYS: [NoiseKey; 3] = [
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

/// Element i's 24 bits, from the definition of Philox4x32-10 with products in 128 bits.
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

#[test]
fn integers_are_equal_to_the_bit() {
    // The long one is sliced on the device with small bindings, and longer than a chunk of the CPU.
    for (key, len) in [(0, 1), (1, 3), (2, 4), (1, 257), (2, 40_003)].map(|(k, n)| (KEYS[k], n)) {
        let expected: Vec<u32> = (0..len).map(|i| integer(key, i)).collect();
        for (name, device) in devices::all() {
            // In [0, 1) no operation rounds: the integer can be read off the float.
            let y = device.uniform(key, 0.0, 1.0, &[len]).unwrap();
            let actual: Vec<u32> = get(&device, &y)
                .iter()
                .map(|y| (y * 16_777_216.0) as u32)
                .collect();
            assert!(actual == expected, "{key:?}, {len} numbers on {name}");
        }
    }
}

#[test]
fn numbers_lie_between_the_bounds() {
    let (low, high, shape) = (-8.0f32 / 255.0, 8.0f32 / 255.0, [3, 5, 7, 2]);
    let (low64, high64) = (f64::from(low), f64::from(high));
    for key in KEYS {
        let expected: Vec<f64> = (0..210)
            .map(|i| low64 + (high64 - low64) * f64::from(integer(key, i)) * U)
            .collect();
        for (name, device) in devices::all() {
            let y = device.uniform(key, low, high, &shape).unwrap();
            assert_eq!(y.shape(), shape);
            // A difference, a product and a sum, each rounded at no more than the width of the range.
            agree(name, &get(&device, &y), &expected, |_| {
                3.0 * U * (high64 - low64)
            });
        }
    }
}
