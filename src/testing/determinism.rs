//! Equal bits of equal calls.

use super::{bits, devices, get};
use crate::device::Device;
use crate::device::cpu::with_threads;
use crate::tensor::Tensor;

/// Fails unless `results` has the same bits when it is computed again on each of these devices, and
/// on the CPU with any number of threads. Each result has a name for messages.
pub fn same_bits<const N: usize>(
    devices: impl IntoIterator<Item = (&'static str, Device)>,
    results: impl Fn(&Device) -> [(&'static str, Tensor); N],
) {
    let bits_on = |device: &Device| results(device).map(|(what, x)| (what, bits(&get(&x))));
    let compare = |case: &str, device: &Device, expected: &[(&'static str, Vec<u32>); N]| {
        for ((what, found), (_, expected)) in bits_on(device).iter().zip(expected) {
            assert!(found == expected, "{what} {case}: the bits differ");
        }
    };
    for (name, device) in devices {
        compare(&format!("again on {name}"), &device, &bits_on(&device));
    }
    let cpu = devices::cpu();
    let expected = bits_on(&cpu);
    for threads in [1, 3] {
        let case = format!("on {threads} threads");
        with_threads(threads, || compare(&case, &cpu, &expected));
    }
}
