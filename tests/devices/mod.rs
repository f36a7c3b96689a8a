//! The devices under test, each opened once per process: the CPU with and without Winograd's convolution, three GPU
//! contexts on one adapter, and one for each variant of products and convolutions. The adapter is the one whose name
//! contains `PARALLAX_TEST_ADAPTER` (llvmpipe if that is not set).

use std::sync::{Arc, OnceLock};

use parallax::DType;
use parallax::device::Device;
use parallax::device::cpu::CpuDevice;
use parallax::device::gpu::{AdapterChoice, GpuDevice, GpuOptions};
use parallax::device::variants::Variant;

/// The limit of a binding, in bytes, under which tensors of a few thousand elements are already sliced.
pub const SMALL_BINDING: usize = 64 * 1024;

/// The name of the device that slices, in messages.
pub const SLICED: &str = "gpu with small bindings";

/// The CPU device.
pub fn cpu() -> Device {
    static CPU: OnceLock<Device> = OnceLock::new();
    CPU.get_or_init(|| Arc::new(CpuDevice::new())).clone()
}

/// The CPU device whose convolutions are all products of matrices.
pub fn cpu_without_winograd() -> Device {
    static DIRECT: OnceLock<Device> = OnceLock::new();
    DIRECT
        .get_or_init(|| Arc::new(CpuDevice::without_winograd()))
        .clone()
}

/// The GPU device, with or without wgpu's run-time checks in its shaders.
pub fn gpu(runtime_checks: bool) -> Device {
    static UNCHECKED: OnceLock<Device> = OnceLock::new();
    static CHECKED: OnceLock<Device> = OnceLock::new();
    let context = if runtime_checks { &CHECKED } else { &UNCHECKED };
    context
        .get_or_init(|| Arc::new(open_gpu(runtime_checks, None)))
        .clone()
}

/// A GPU device that can bind so little at a time that it has to slice small tensors.
pub fn gpu_sliced() -> Device {
    static SLICED: OnceLock<Device> = OnceLock::new();
    SLICED
        .get_or_init(|| Arc::new(open_gpu(false, Some(SMALL_BINDING as u64))))
        .clone()
}

/// Every device, with a name for messages.
pub fn all() -> [(&'static str, Device); 4] {
    let [cpu, gpu, checked] = unsliced();
    [cpu, gpu, checked, (SLICED, gpu_sliced())]
}

/// The devices that can bind a whole layer of a network.
pub fn unsliced() -> [(&'static str, Device); 3] {
    [
        ("cpu", cpu()),
        ("gpu", gpu(false)),
        ("gpu with run-time checks", gpu(true)),
    ]
}

/// Every device, with the CPU that leaves out Winograd's method and the GPUs that run one variant of products and
/// convolutions alone.
pub fn all_variants() -> Vec<(&'static str, Device)> {
    let without = [("cpu without winograd", cpu_without_winograd())];
    let forced = forced()
        .iter()
        .map(|(variant, gpu)| -> (_, Device) { (variant.name(), gpu.clone()) });
    all().into_iter().chain(without).chain(forced).collect()
}

/// A GPU device for each variant, which takes it wherever an operation has it.
pub fn forced() -> &'static [(Variant, Arc<GpuDevice>)] {
    static FORCED: OnceLock<Vec<(Variant, Arc<GpuDevice>)>> = OnceLock::new();
    FORCED.get_or_init(|| {
        let open = |variant| {
            let options = GpuOptions {
                variant: Some(variant),
                ..options(false, None)
            };
            let gpu = GpuDevice::open(options).expect("an adapter that runs one runs all");
            (variant, Arc::new(gpu))
        };
        Variant::ALL.into_iter().map(open).collect()
    })
}

/// Those of `devices` whose kernels read and write f16. An adapter that has none is named on stderr; what it says is
/// tested by `an_adapter_without_f16_is_named`.
pub fn with_f16(
    devices: impl IntoIterator<Item = (&'static str, Device)>,
) -> Vec<(&'static str, Device)> {
    let (with, without): (Vec<_>, Vec<_>) = devices
        .into_iter()
        .partition(|(_, device)| device.zeros(&[1], DType::F16).is_ok());
    for (name, device) in without {
        assert!(!name.starts_with("cpu"), "{name} has f16");
        eprintln!("without f16, not tested with it: {name}, {}", device.name());
    }
    with
}

/// The adapter under test.
fn adapter() -> String {
    std::env::var("PARALLAX_TEST_ADAPTER").unwrap_or_else(|_| "llvmpipe".to_string())
}

fn options(runtime_checks: bool, binding_limit: Option<u64>) -> GpuOptions {
    GpuOptions {
        adapter: AdapterChoice::Named(adapter()),
        runtime_checks,
        binding_limit,
        ..GpuOptions::default()
    }
}

/// A GPU device of the caller's own. An adapter may not give back all that an opened device took: open few.
pub fn open_gpu(runtime_checks: bool, binding_limit: Option<u64>) -> GpuDevice {
    let device = GpuDevice::open(options(runtime_checks, binding_limit));
    match device {
        Ok(device) => device,
        Err(error) => panic!(
            "the tests need a GPU adapter whose name contains '{}': {error}\n\
             Run scripts/test.sh, which installs a software adapter where none is found.",
            adapter()
        ),
    }
}

#[test]
fn every_device_opens_and_holds_a_tensor() {
    for (name, device) in all_variants() {
        let x = parallax::device::upload_f32(&device, &[1.0, 2.0, 3.0], &[3]).expect(name);
        let back = parallax::device::read_f32(&device, &x).expect(name);
        assert_eq!(back, [1.0, 2.0, 3.0], "{name}");
    }
    for (name, device) in with_f16(all_variants()) {
        let x = device.zeros(&[3], DType::F16).expect(name);
        let x = device.cast(&x, DType::F32).expect(name);
        let back = parallax::device::read_f32(&device, &x).expect(name);
        assert_eq!(back, [0.0; 3], "{name}");
    }
}
