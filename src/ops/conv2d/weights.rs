//! Copies of the weights of all convolutions of a network in the layout of the tiled kernels. A GPU
//! makes them in one launch, when a convolution uses a weight for the first time after a change.

use crate::device::cpu::parallel::CHUNK;
use crate::device::gpu::kernels::conv2d_weights::{PACK_WEIGHTS, Params};
use crate::device::gpu::{Grid, PackedCopies, PackedForm, WeightPlace};
use crate::device::{ALIGNMENT_BYTES, Check, Cpu, Gpu, Op, RunOn};
use crate::error::Result;
use crate::tensor::{DType, Flat, Storage, Tensor};

/// Pairs of an output and an input channel that a workgroup copies.
const PAIRS: usize = 1024;

/// The table of `shaders/conv2d_weights.wgsl`.
pub(crate) fn parts(places: &[WeightPlace]) -> Vec<u32> {
    let mut parts = Vec::new();
    for place in places {
        for first in (0..place.pairs).step_by(PAIRS) {
            let pairs = PAIRS.min(place.pairs - first);
            let row = [
                place.from + first * place.taps,
                (place.to + first) / 4,
                pairs / 4,
                place.pairs / 4,
                place.taps,
            ];
            parts.extend(row.map(|number| number as u32));
        }
    }
    parts
}

/// Copies weights `[O, C, KH, KW]` from `source`, f32, to `packed`, f32 or f16, as
/// `[KH, KW, O, C]`.
pub(crate) struct PackWeights<'a> {
    pub(crate) source: &'a Tensor,
    pub(crate) packed: &'a Tensor,
    pub(crate) places: &'a [WeightPlace],
    /// [`parts`] of the places.
    pub(crate) parts: &'a Tensor,
}

impl Op for PackWeights<'_> {
    const NAME: &'static str = "pack_weights";
    type Sizes = ();
    type Output = ();

    fn check(&self, check: &mut Check<'_>) -> Result<()> {
        check.f32("source", self.source)?;
        check.activation("packed", self.packed)?;
        check.tensor("parts", self.parts, self.parts.shape(), DType::U32)?;
        check.distinct(("source", self.source), ("packed", self.packed))?;
        for place in self.places {
            let len = place.pairs * place.taps;
            let fits = |x: &Tensor, start: usize| start + len <= x.len();
            let are_vectors = place.to.is_multiple_of(4) && place.pairs.is_multiple_of(4);
            if !are_vectors || !fits(self.source, place.from) || !fits(self.packed, place.to) {
                return Err(check.error(format!(
                    "{place:?} does not fit a source of {} and a result of {} elements; expected multiples of 4 inside",
                    self.source.len(),
                    self.packed.len()
                )));
            }
        }
        check.changes(self.packed);
        Ok(())
    }
}

impl RunOn<Cpu> for PackWeights<'_> {
    fn run(&self, cpu: &Cpu, (): ()) -> Result<()> {
        let source = cpu.read(self.source)?;
        let place_of = |at: usize| {
            let inside = |place: &&WeightPlace| {
                (place.to..place.to + place.pairs * place.taps).contains(&at)
            };
            self.places.iter().find(inside)
        };
        cpu.change_activations(self.packed, CHUNK, |chunk, packed| {
            for (i, packed) in packed.iter_mut().enumerate() {
                let at = chunk * CHUNK + i;
                if let Some(place) = place_of(at) {
                    let (tap, pair) =
                        ((at - place.to) / place.pairs, (at - place.to) % place.pairs);
                    *packed = source[place.from + pair * place.taps + tap];
                }
            }
        })
    }
}

impl RunOn<Gpu> for PackWeights<'_> {
    fn run(&self, gpu: &Gpu, (): ()) -> Result<()> {
        let parts = self.parts.len() / 5;
        gpu.launch(&PACK_WEIGHTS)
            .read("source", self.source, ..)
            .read("parts", self.parts, ..)
            .write("packed", self.packed, ..)
            .run(|_| (Params { parts }, Grid::Workgroups(parts)))
    }
}

/// Prepares the copies of those of `parameters` that are weights of convolutions. `flat` is their
/// memory.
pub(crate) fn share_copies(parameters: &[&Tensor], flat: &Flat) {
    let weights = parameters.iter().enumerate().filter_map(|(i, x)| {
        let [o, c, kh, kw] = <[usize; 4]>::try_from(x.shape()).ok()?;
        c.is_multiple_of(4)
            .then_some((flat.range(i).start, [o * c, kh * kw]))
    });
    let copies = PackedCopies::new(flat.whole().clone(), weights.collect());
    for x in parameters {
        if let Storage::Gpu(storage) = x.storage() {
            storage.set_copies(copies.clone());
        }
    }
}

/// Allocates the copies of this element type before a step, so that every step has the same places
/// in memory. `parameter` is one of those of [`share_copies`].
pub(crate) fn prepare_copies(parameter: &Tensor, dtype: DType) -> Result<()> {
    let Storage::Gpu(storage) = parameter.storage() else {
        return Ok(());
    };
    if let Some(copies) = storage.copies() {
        let mut form = copies.form(dtype);
        if form.is_none() {
            *form = new_form(&storage.gpu(), &copies, dtype)?;
        }
    }
    Ok(())
}

/// The copy of the weight `w [O, C, KH, KW]` as `[KH, KW, O, C]` with this element type, or `None`
/// if there are no copies of `w`.
pub(crate) fn packed_copy(gpu: &Gpu, w: &Tensor, dtype: DType) -> Result<Option<Tensor>> {
    let storage = gpu.storage(w)?;
    let Some(copies) = storage.copies() else {
        return Ok(None);
    };
    let source = &copies.source;
    let (whole, version) = (gpu.storage(source)?, gpu.storage(source)?.version());
    let start = |&(start, _): &(usize, [usize; 2])| start;
    let own = |weight| storage.is_inside(whole, (size_of::<f32>() * start(weight)) as u64);
    let Some(index) = copies.weights.iter().position(own) else {
        return Ok(None);
    };
    let mut form = copies.form(dtype);
    if form.is_none() {
        *form = new_form(gpu, &copies, dtype)?;
    }
    let Some(PackedForm {
        packed,
        places,
        parts,
        version: of_copy,
    }) = &mut *form
    else {
        return Ok(None);
    };
    let Some(place) = places[index] else {
        return Ok(None);
    };
    if *of_copy != Some(version) {
        let places: Vec<WeightPlace> = places.iter().copied().flatten().collect();
        gpu.run(PackWeights {
            source,
            packed,
            places: &places,
            parts,
        })?;
        *of_copy = Some(version);
    }
    let bytes = dtype.bytes();
    let len = place.pairs * place.taps;
    let view = gpu
        .storage(packed)?
        .inside((bytes * place.to) as u64, bytes * len);
    Ok(Some(Tensor::new(
        &[place.taps, place.pairs],
        dtype,
        Storage::Gpu(view.into()),
    )))
}

/// Memory for the copies of this element type. A weight of one tap needs no copy in f32. `None` if
/// nothing needs one, or a binding cannot hold all.
fn new_form(gpu: &Gpu, copies: &PackedCopies, dtype: DType) -> Result<Option<PackedForm>> {
    let unit = ALIGNMENT_BYTES as usize / dtype.bytes();
    let mut end = 0;
    let places: Vec<_> = copies
        .weights
        .iter()
        .map(|&(from, [pairs, taps])| {
            let needed = taps > 1 || dtype == DType::F16;
            needed.then(|| {
                let to = end;
                end += (pairs * taps).next_multiple_of(unit);
                WeightPlace {
                    from,
                    to,
                    pairs,
                    taps,
                }
            })
        })
        .collect();
    let bytes = 4 * copies.source.len().max(end);
    if end == 0 || bytes > gpu.binding_limit() {
        return Ok(None);
    }
    let found: Vec<WeightPlace> = places.iter().copied().flatten().collect();
    Ok(Some(PackedForm {
        packed: gpu.allocate(&[end], dtype)?,
        places,
        parts: gpu.words(&parts(&found))?,
        version: None,
    }))
}
