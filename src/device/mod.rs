//! Devices: memory, and the execution of operations. No operation is defined here.
//!
//! A [`Device`] is the CPU or a GPU. It allocates tensors and runs operations ([`Device::run`]),
//! which [`crate::ops`] defines.

mod allocator;
pub mod cpu;
pub mod gpu;
mod memory;
mod op;
pub mod profiler;
mod readback;

pub(crate) use allocator::ALIGNMENT_BYTES;
pub use cpu::Cpu;
pub use gpu::Gpu;
pub use memory::{MemoryBlock, MemoryUse};
pub(crate) use op::check_elements;
pub use op::{Check, Op, Output, RunOn, product};
pub use readback::Readback;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use gpu::variants::VariantTable;
use gpu::{AdapterChoice, GpuOptions};

use crate::error::{Error, Result};
use crate::tensor::{Storage, Tensor};

/// Whether the host is a browser. Its threads must not block, so only asynchronous calls wait.
pub(crate) const IN_BROWSER: bool = cfg!(target_arch = "wasm32");

/// Runs a future of this crate to its end.
///
/// # Errors
/// Those of the future. `Error::Usage` in a browser, if the future has to wait.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    if !IN_BROWSER {
        return pollster::block_on(future);
    }
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Error::usage(
            "a browser's thread must not wait for the GPU; use the asynchronous form of the call",
        )),
    }
}

/// A CPU or GPU with its memory. Clones are handles to the same device.
#[derive(Clone)]
pub enum Device {
    Cpu(Cpu),
    Gpu(Gpu),
}

impl From<Cpu> for Device {
    fn from(cpu: Cpu) -> Self {
        Device::Cpu(cpu)
    }
}

impl From<Gpu> for Device {
    fn from(gpu: Gpu) -> Self {
        Device::Gpu(gpu)
    }
}

impl Device {
    /// Opens `"cpu"`, `"gpu"` (the best hardware GPU), `"auto"` (the best hardware GPU if there is
    /// one, otherwise the CPU), or the first adapter whose name contains `name`.
    ///
    /// # Errors
    /// `Error::Usage` if `name` is empty; `Error::Device` if there is no such adapter or it cannot
    /// be opened.
    pub fn open(name: &str) -> Result<Device> {
        block_on(Device::open_async(name))
    }

    /// As [`Device::open`], for a browser. Its only adapter is `"gpu"` unless it is software, which
    /// [`AdapterChoice::Numbered`] opens.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub async fn open_async(name: &str) -> Result<Device> {
        let gpu = async |adapter| {
            let options = GpuOptions {
                adapter,
                ..GpuOptions::default()
            };
            Gpu::open_async(options).await.map(Device::Gpu)
        };
        match name {
            "cpu" => Ok(Device::cpu()),
            "gpu" => gpu(AdapterChoice::Hardware).await,
            "auto" => match gpu(AdapterChoice::Hardware).await {
                Err(Error::Device { .. }) => Ok(Device::cpu()),
                opened => opened,
            },
            "" => Err(Error::usage(
                "the device has no name; expected cpu, gpu, auto, or a part of an adapter's name",
            )),
            name => gpu(AdapterChoice::Named(name.to_string())).await,
        }
    }

    /// The CPU, with memory of its own.
    pub fn cpu() -> Device {
        Device::Cpu(Cpu::new())
    }

    /// Opens an adapter with these options.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open_gpu(options: GpuOptions) -> Result<Device> {
        Gpu::open(options).map(Device::Gpu)
    }

    /// The name of the adapter, or `cpu`.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu(_) => "cpu".to_string(),
            Device::Gpu(gpu) => gpu.name().to_string(),
        }
    }

    /// The GPU, if this device is one.
    pub fn as_gpu(&self) -> Option<&Gpu> {
        match self {
            Device::Cpu(_) => None,
            Device::Gpu(gpu) => Some(gpu),
        }
    }

    /// The table of kernel variants in use, on a GPU. Results have the same bits only if the tables
    /// are equal.
    pub fn variants(&self) -> Option<VariantTable> {
        self.as_gpu().map(Gpu::variants)
    }

    /// Whether products and convolutions of f32 tensors round their factors to f16 from now on, as
    /// in `torch.backends.cuda.matmul.allow_tf32`, which rounds to TF32. Sums stay f32. The
    /// relative error of a product is 2^-10 if no factor is below 2^-14 or above 65,504. Results do
    /// not depend on the device but for the order of sums, and a GPU may compute them on its matrix
    /// units. Returns whether they were rounded before.
    pub fn round_factors(&self, rounds: bool) -> bool {
        match self {
            Device::Cpu(cpu) => cpu.round_factors(rounds),
            Device::Gpu(gpu) => gpu.round_factors(rounds),
        }
    }

    /// Current and peak bytes held for tensors.
    pub fn memory(&self) -> MemoryUse {
        match self {
            Device::Cpu(cpu) => cpu.memory(),
            Device::Gpu(gpu) => gpu.memory(),
        }
    }

    /// Whether tensors are in the host's memory, as on the CPU, a software adapter or an integrated
    /// GPU.
    pub fn in_host_memory(&self) -> bool {
        match self {
            Device::Cpu(_) => true,
            Device::Gpu(gpu) => gpu.in_host_memory(),
        }
    }

    /// Submits everything recorded so far, without waiting. On the CPU, everything has run already.
    ///
    /// # Errors
    /// `Error::Device` if the adapter was lost.
    pub fn submit(&self) -> Result<()> {
        match self {
            Device::Cpu(_) => Ok(()),
            Device::Gpu(gpu) => gpu.submit(),
        }
    }

    /// Whether calls may wait for the device. If not, only asynchronous ones do.
    pub(crate) fn can_block(&self) -> bool {
        !IN_BROWSER || self.as_gpu().is_none()
    }

    /// Submits everything recorded so far, and waits until it has run.
    ///
    /// # Errors
    /// `Error::Device` if the adapter was lost or hangs; `Error::Usage` for a GPU in a browser.
    pub fn wait(&self) -> Result<()> {
        match self {
            Device::Cpu(_) => Ok(()),
            Device::Gpu(gpu) => gpu.wait(),
        }
    }

    /// The name in a message that also names `other`, a different device.
    pub(crate) fn name_beside(&self, other: &Device) -> String {
        match self.name() {
            name if name == other.name() => format!("another device named {name}"),
            name => name,
        }
    }

    /// Whether `x` is on this device.
    pub(crate) fn holds(&self, x: &Tensor) -> bool {
        match (self, x.storage()) {
            (Device::Cpu(cpu), Storage::Cpu(storage)) => cpu.holds(storage),
            (Device::Gpu(gpu), Storage::Gpu(storage)) => gpu.holds(storage),
            _ => false,
        }
    }
}
