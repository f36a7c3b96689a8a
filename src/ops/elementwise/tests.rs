use super::{Accumulate, Add, Broadcast, Relu, ReluBackward, Scale};
use crate::philox::Philox;
use crate::testing::{
    Expected, agree, bits, check_gradients, devices, get, normal, normal_leaf, put, random,
    refused, signed, size, wide,
};

/// Around vectors of four and eight and workgroups of 64 and 256; beyond a small binding; and some at
/// random.
fn counts(rng: &mut Philox) -> Vec<usize> {
    let mut counts = vec![
        1, 2, 3, 4, 5, 8, 63, 64, 65, 129, 255, 256, 257, 1023, 40_000, 40_001,
    ];
    counts.extend((0..4).map(|_| size(rng, 1, 5000)));
    counts
}

fn add_in_float64(a: &[f32], b: &[f32]) -> Expected {
    let pairs = wide(a).into_iter().zip(wide(b));
    Expected::elementwise(pairs.map(|(a, b)| a + b).collect())
}

#[test]
fn add() {
    let mut rng = random(1);
    for count in counts(&mut rng) {
        let (a, b) = (normal(&mut rng, count), normal(&mut rng, count));
        for (name, device) in devices::all() {
            let (da, db) = (put(&device, &a, &[count]), put(&device, &b, &[count]));
            let sum = device.run(Add { a: &da, b: &db }).expect(name);
            let case = format!("add {count} on {name}");
            agree(&case, &sum, &[count], &add_in_float64(&a, &b));
        }
    }
}
