//! The devices under test, each opened once per process: the CPU with and without Winograd's
//! convolution, three GPU contexts on one adapter, and one GPU context for each variant of products
//! and convolutions. The adapter is the one whose name contains `PARALLAX_TEST_ADAPTER` (llvmpipe
//! if that is not set).
//!
//! The integration tests include this file too, so it names the crate `parallax`.

use std::sync::OnceLock;

use parallax::device::gpu::variants::Variant;
use parallax::device::gpu::{AdapterChoice, GpuOptions};
use parallax::device::{Cpu, Device, Gpu};
use parallax::tensor::{DType, Tensor};

pub use parallax::selftest::SMALL_BINDING;

/// The name of the device with small bindings, in messages.
pub const SLICED: &str = "gpu with small bindings";

/// The CPU.
pub fn cpu() -> Device {
    static CPU: OnceLock<Device> = OnceLock::new();
    CPU.get_or_init(Device::cpu).clone()
}

/// The CPU without Winograd's method: every convolution is a matrix product.
pub fn cpu_without_winograd() -> Device {
    static DIRECT: OnceLock<Device> = OnceLock::new();
    DIRECT
        .get_or_init(|| Cpu::without_winograd().into())
        .clone()
}

/// The GPU, with or without wgpu's run-time checks in its shaders.
pub fn gpu(runtime_checks: bool) -> Device {
    static UNCHECKED: OnceLock<Device> = OnceLock::new();
    static CHECKED: OnceLock<Device> = OnceLock::new();
    let device = if runtime_checks { &CHECKED } else { &UNCHECKED };
    device
        .get_or_init(|| open_gpu(runtime_checks, None).into())
        .clone()
}

/// A GPU with so small bindings that small tensors are cut into slices.
pub fn gpu_sliced() -> Device {
    static SLICED: OnceLock<Device> = OnceLock::new();
    SLICED
        .get_or_init(|| open_gpu(false, Some(SMALL_BINDING as u64)).into())
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

/// Every device, the CPU without Winograd's method, and a GPU for each variant of products and
/// convolutions.
pub fn all_variants() -> Vec<(&'static str, Device)> {
    let without = [("cpu without winograd", cpu_without_winograd())];
    let forced = forced()
        .iter()
        .map(|(variant, gpu)| -> (_, Device) { (variant.name(), gpu.clone().into()) });
    all().into_iter().chain(without).chain(forced).collect()
}

/// Whether the adapter under test has to have matrix units, as `scripts/test.sh --mesa26` requires.
fn needs_matrices() -> bool {
    std::env::var_os("PARALLAX_TEST_MATRICES").is_some()
}

/// One GPU per variant that the adapter has, which runs it for every operation that has it. A
/// missing variant is named on stderr, or an error if the adapter has to have matrices.
pub fn forced() -> &'static [(Variant, Gpu)] {
    static FORCED: OnceLock<Vec<(Variant, Gpu)>> = OnceLock::new();
    FORCED.get_or_init(|| {
        let open = |variant| {
            let options = GpuOptions {
                variant: Some(variant),
                matrices: variant.is_on_matrices(),
                ..options(false, None)
            };
            let gpu = Gpu::open(options).expect("the adapter opens for every variant");
            Device::from(gpu.clone()).round_factors(variant.is_on_matrices());
            (variant, gpu)
        };
        let matrices = gpu_with_matrices();
        let missing = Variant::ALL.into_iter().filter(|v| !matrices.has(*v));
        let missing: Vec<&str> = missing.map(Variant::name).collect();
        if !missing.is_empty() {
            eprintln!(
                "not tested, {} does not have them: {missing:?}",
                matrices.name()
            );
        }
        let has = |variant: &Variant| matrices.has(*variant);
        Variant::ALL.into_iter().filter(has).map(open).collect()
    })
}

/// A GPU that uses its matrix units, if it has any.
pub fn gpu_with_matrices() -> Gpu {
    static MATRICES: OnceLock<Gpu> = OnceLock::new();
    let gpu = MATRICES.get_or_init(|| {
        let options = GpuOptions {
            matrices: true,
            ..options(false, None)
        };
        Gpu::open(options).expect("the adapter opens with matrices")
    });
    let has = gpu.has_matrices();
    assert!(
        has || !needs_matrices(),
        "PARALLAX_TEST_MATRICES is set, and {} has no matrices that kernels can use",
        gpu.name()
    );
    gpu.clone()
}

/// The devices of `devices` that have f16. An adapter without it is named on stderr; its error
/// message is tested by `an_adapter_without_f16_is_named`.
pub fn with_f16(
    devices: impl IntoIterator<Item = (&'static str, Device)>,
) -> Vec<(&'static str, Device)> {
    let (with, without): (Vec<_>, Vec<_>) = devices
        .into_iter()
        .partition(|(_, device)| Tensor::zeros(&[1], DType::F16, device).is_ok());
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

/// Opens a GPU device. Open few: an adapter may not free all memory of a device.
pub fn open_gpu(runtime_checks: bool, binding_limit: Option<u64>) -> Gpu {
    match Gpu::open(options(runtime_checks, binding_limit)) {
        Ok(gpu) => gpu,
        Err(error) => panic!(
            "the tests need a GPU adapter whose name contains '{}': {error}\n\
             Run scripts/test.sh, which installs a software adapter if there is none.",
            adapter()
        ),
    }
}
