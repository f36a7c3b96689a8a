//! Tensors that are next to each other in the memory of a GPU.

use super::{DType, Storage, Tensor};
use crate::device::gpu::GpuStorage;
use crate::device::{ALIGNMENT_BYTES, Device};
use crate::error::Result;

/// Elements of the unit of places in memory.
const UNIT: usize = ALIGNMENT_BYTES as usize / size_of::<f32>();

/// f32 tensors in one region of a GPU's memory, so that one kernel computes with all of them. Each
/// starts at a multiple of 256 bytes. The elements between them are 0, and stay 0 if kernels write
/// nothing after the last element of a tensor.
pub(crate) struct Flat {
    whole: Tensor,
    /// The first element of each tensor.
    starts: Vec<usize>,
}

impl Flat {
    /// Zeros for tensors of the lengths of `tensors`, on their device. `None` on the CPU, where one
    /// operation per tensor costs nothing, and if a GPU cannot hold them in one region.
    ///
    /// # Errors
    /// `Error::Device` if memory is short.
    pub(crate) fn like(tensors: &[&Tensor]) -> Result<Option<Flat>> {
        let Some(Device::Gpu(gpu)) = tensors.first().map(|x| x.device()) else {
            return Ok(None);
        };
        let device = Device::Gpu(gpu.clone());
        let fits = |x: &&Tensor| device.holds(x) && x.dtype() == DType::F32;
        let mut end = 0usize;
        let mut starts = Vec::with_capacity(tensors.len());
        for x in tensors {
            starts.push(end);
            end = end.saturating_add(x.len().max(1).next_multiple_of(UNIT));
        }
        if !tensors.iter().all(fits) || !gpu.has_room(end.saturating_mul(size_of::<f32>())) {
            return Ok(None);
        }
        let whole = Tensor::zeros(&[end], DType::F32, &device)?;
        Ok(Some(Flat { whole, starts }))
    }

    /// Moves `tensors` next to each other. Their handles keep their elements. `None` as
    /// [`Flat::like`].
    ///
    /// # Errors
    /// As [`Flat::like`].
    pub(crate) fn of(tensors: &[&Tensor]) -> Result<Option<Flat>> {
        let Some(flat) = Flat::like(tensors)? else {
            return Ok(None);
        };
        let whole = flat.storage();
        let gpu = whole.gpu();
        for (x, &start) in tensors.iter().zip(&flat.starts) {
            gpu.copy_elements((x, 0), (&flat.whole, start), x.len())?;
            gpu.storage(x)?.move_into(whole, bytes(start), 4 * x.len());
        }
        Ok(Some(flat))
    }

    /// All tensors, and the zeros between them, as one tensor.
    pub(crate) fn whole(&self) -> &Tensor {
        &self.whole
    }

    /// The number of tensors.
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The elements of tensor `index` in the whole, and the zeros after them.
    pub(crate) fn range(&self, index: usize) -> std::ops::Range<usize> {
        let next = self.starts.get(index + 1);
        self.starts[index]..next.copied().unwrap_or(self.whole.len())
    }

    /// Tensor `index`, with this shape.
    pub(crate) fn part(&self, index: usize, shape: &[usize]) -> Tensor {
        let len = shape.iter().product::<usize>();
        let storage = self.storage().inside(bytes(self.starts[index]), 4 * len);
        Tensor::new(shape, DType::F32, Storage::Gpu(storage.into()))
    }

    /// Makes the places of this the slots of `tensors` ([`Tensor::in_slot`]).
    ///
    /// # Errors
    /// `Error::Shape` if they are not on the device of this.
    pub(crate) fn set_slots(&self, tensors: &[&Tensor]) -> Result<()> {
        let whole = self.storage();
        let gpu = whole.gpu();
        for (x, &start) in tensors.iter().zip(&self.starts) {
            gpu.storage(x)?.set_slot(whole, bytes(start), 4 * x.len());
        }
        Ok(())
    }

    /// Whether `x` is tensor `index`.
    pub(crate) fn has(&self, index: usize, x: &Tensor) -> bool {
        match x.storage() {
            Storage::Gpu(storage) => storage.is_inside(self.storage(), bytes(self.starts[index])),
            Storage::Cpu(_) => false,
        }
    }

    /// Whether `tensors` are the tensors of this, in their order.
    pub(crate) fn holds<'a>(&self, tensors: impl ExactSizeIterator<Item = &'a Tensor>) -> bool {
        tensors.len() == self.len() && tensors.enumerate().all(|(i, x)| self.has(i, x))
    }

    fn storage(&self) -> &GpuStorage {
        match self.whole.storage() {
            Storage::Gpu(storage) => storage,
            Storage::Cpu(_) => unreachable!("`Flat::like` allocates on a GPU"),
        }
    }
}

fn bytes(elements: usize) -> u64 {
    (size_of::<f32>() * elements) as u64
}

#[cfg(test)]
mod tests {
    use super::Flat;
    use crate::device::Device;
    use crate::ops::{Accumulate, Scale};
    use crate::tensor::{DType, Tensor};
    use crate::testing::{devices, get, normal, put, random};

    #[test]
    fn moved_tensors_keep_their_elements_and_share_a_region() {
        let device: Device = devices::gpu(false);
        let mut rng = random(90);
        let lengths = [1, 64, 65, 3, 1000];
        let values = lengths.map(|len| normal(&mut rng, len));
        let tensors = values.each_ref().map(|x| put(&device, x, &[x.len()]));
        let clones = tensors.clone();
        let flat = Flat::of(&tensors.each_ref()).expect("room").expect("a GPU");
        assert_eq!(flat.whole().len(), 64 * (1 + 1 + 2 + 1 + 16));
        assert!(flat.holds(clones.iter()) && !flat.holds(clones[1..].iter()));
        let mut expected = vec![0.0; flat.whole().len()];
        for (i, values) in values.iter().enumerate() {
            let start = flat.range(i).start;
            expected[start..start + values.len()].copy_from_slice(values);
            assert_eq!(get(&clones[i]), *values);
            assert_eq!(get(&flat.part(i, &[values.len()])), *values);
        }
        assert_eq!(get(flat.whole()), expected);
        // A write through one handle is read through the others.
        clones[3].overwrite(&[1.0f32, 2.0, 3.0]).expect("in place");
        let x = flat.whole();
        let doubled = device.run(Scale { factor: 2.0, x }).expect("in place");
        let start = flat.range(3).start;
        assert_eq!(get(&doubled)[start..start + 4], [2.0, 4.0, 6.0, 0.0]);
        assert_eq!(get(&tensors[3]), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn a_slot_has_one_tensor_at_a_time() {
        let device: Device = devices::gpu(false);
        let owner = put(&device, &[1.0, 2.0], &[2]);
        assert!(owner.in_slot().is_none());
        let flat = Flat::like(&[&owner]).expect("room").expect("a GPU");
        flat.set_slots(&[&owner]).expect("the same device");
        let first = owner.in_slot().expect("the slot is free");
        assert!(owner.clone().in_slot().is_none(), "it is occupied");
        assert!(first.is_unshared() && flat.has(0, &first));
        let kept = first.reshape(&[2, 1]).expect("two elements");
        drop(first);
        assert!(owner.in_slot().is_none(), "a handle remains");
        drop(kept);
        assert!(owner.in_slot().is_some());
    }

    #[test]
    fn a_sum_leaves_the_zeros_between_tensors() {
        let device: Device = devices::gpu(false);
        let owners = [3, 1].map(|len| put(&device, &vec![0.0; len], &[len]));
        let flat = || {
            let flat = Flat::like(&owners.each_ref());
            flat.expect("room").expect("a GPU")
        };
        let (gradients, others) = (flat(), flat());
        gradients.set_slots(&owners.each_ref()).expect("one device");
        others.whole().overwrite(&[f32::NAN; 128]).expect("128");
        let x = &others.part(0, &[3]);
        x.overwrite(&[1.0f32, 2.0, 3.0]).expect("three");
        let sum = owners[0].in_slot().expect("the slot is free");
        sum.overwrite(&[10.0f32, 20.0, 30.0]).expect("three");
        let sum = device.run(Accumulate { sum, x }).expect("one shape");
        assert!(gradients.has(0, &sum), "in place");
        let mut expected = vec![0.0; 128];
        expected[..3].copy_from_slice(&[11.0, 22.0, 33.0]);
        assert_eq!(get(gradients.whole()), expected);
    }

    #[test]
    fn the_cpu_and_mixed_devices_have_none() {
        let [cpu, gpu]: [Device; 2] = [Device::cpu(), devices::gpu(false)];
        let [cpu, gpu] = [cpu, gpu].map(|device| put(&device, &[1.0], &[1]));
        let integers = Tensor::zeros(&[1], DType::U32, &gpu.device()).expect("one word");
        for tensors in [&[][..], &[&cpu], &[&gpu, &cpu], &[&gpu, &integers]] {
            assert!(Flat::of(tensors).expect("no error").is_none());
        }
        assert!(cpu.in_slot().is_none());
    }
}
