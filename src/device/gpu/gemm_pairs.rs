//! Launches of `shaders/gemm_pairs.wgsl`: products, and convolutions as products, whose factors lie in whole vectors,
//! on a processor's Vulkan.

use super::shaders::{
    gemm_pairs_nn, gemm_pairs_nt, gemm_pairs_nt_bias, gemm_pairs_tn, gemm_pairs_tt,
};
use super::{EntryPoint, GpuDevice};

/// Elements in a vector of A, and of terms that are added up at once.
const FOUR: usize = 4;
/// Columns of one invocation, and elements in a vector of C, and of B where those lie together.
const EIGHT: usize = 8;

/// Where a factor lies in its binding, in elements.
#[derive(Clone, Copy)]
pub(super) struct Lie {
    pub(super) offset: usize,
    /// From a term of the sum to the next.
    pub(super) term: usize,
    /// From a row of A, or a column of B, to the next.
    pub(super) step: usize,
}

/// An index that runs through the pixels of images: B's columns where those lie together (C is images as B is),
/// otherwise the terms of the sum (A is images as B is).
#[derive(Clone, Copy)]
pub(super) struct Images {
    /// Elements of a plane.
    pub(super) plane: usize,
    /// Elements from an image of B to the next, and from one of C or A.
    pub(super) b: usize,
    pub(super) other: usize,
}

/// Taps of a kernel. Where the pixels are B's columns, a product is added up for each, tap after tap; where they are
/// the terms, B's columns are channels with their taps.
#[derive(Clone, Copy)]
pub(super) struct Taps {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Elements from a tap's matrix A to the next.
    pub(super) a: usize,
    /// Elements of B from a tap to the next, and to that of the next row.
    pub(super) b: isize,
    pub(super) b_row: isize,
}

impl Taps {
    /// Of a product of matrices.
    pub(super) const ONE: Taps = Taps {
        rows: 1,
        columns: 1,
        a: 0,
        b: 0,
        b_row: 0,
    };
}

/// A product of `m` rows, `n` columns and `k` terms a tap.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: Lie,
    pub(super) b: Lie,
    /// Elements before C, and from a row of it to the next.
    pub(super) c_offset: usize,
    pub(super) c_stride: usize,
    /// First column written.
    pub(super) column: usize,
    pub(super) accumulate: bool,
    pub(super) bias: bool,
    pub(super) images: Option<Images>,
    /// Terms of one run of the sum, where it is cut into runs with a C of their own.
    pub(super) run: Option<usize>,
    pub(super) taps: Taps,
}

impl Product {
    /// The kernel for it, and what that is launched with; none where the device has no `i64`, or something does not lie
    /// in whole vectors.
    pub(super) fn in_pairs(
        &self,
        device: &GpuDevice,
    ) -> Option<(&'static EntryPoint, gemm_pairs_nn::Params)> {
        let (a, b) = (self.a, self.b);
        let (left_along, right_along) = (a.term == 1, b.term == 1);
        let a_step = if left_along { a.step } else { a.term };
        let b_step = if right_along { b.step } else { b.term };
        let b_vector = if right_along { FOUR } else { EIGHT };
        let images = self.images.unwrap_or(Images {
            plane: if right_along { self.k } else { self.n },
            b: 0,
            other: 0,
        });
        let run = self.run.unwrap_or(self.k);
        let taps = self.taps;
        let [all, k] = [taps.rows * taps.columns, self.k];
        // What is skipped at the end of a tap's terms; the difference itself where a column is a channel and a tap.
        let skipped = |to_next: isize, term: usize| match right_along {
            true => to_next,
            false => to_next - (k * term) as isize,
        };
        let between_rows = match right_along {
            true => taps.b_row,
            false => taps.b_row - (taps.columns - 1) as isize * taps.b,
        };
        // Signed steps, which wrap in the shader's unsigned addresses.
        let vectors = |elements: isize, vector: usize| (elements / vector as isize) as i32 as u32;
        let in_fours = [self.k, a.offset, a_step, run, taps.a];
        let in_eights = [self.n, self.c_offset, self.c_stride, self.column];
        let whole = device.context.has_i64
            && self.k > 0
            && in_fours.iter().all(|x| x.is_multiple_of(FOUR))
            && in_eights.iter().all(|x| x.is_multiple_of(EIGHT))
            && [b.offset, b_step, images.plane, images.b, images.other]
                .iter()
                .all(|x| x.is_multiple_of(b_vector))
            && [taps.b, taps.b_row]
                .iter()
                .all(|x| x % b_vector as isize == 0)
            && (left_along || a.step == 1 && self.m.is_multiple_of(FOUR))
            && (right_along || b.step == 1);
        let entry = match (left_along, right_along, self.bias) {
            _ if !whole => return None,
            (true, false, false) => &gemm_pairs_nn::GEMM,
            (true, true, false) => &gemm_pairs_nt::GEMM,
            (true, true, true) => &gemm_pairs_nt_bias::GEMM,
            (false, false, false) => &gemm_pairs_tn::GEMM,
            (false, true, false) => &gemm_pairs_tt::GEMM,
            // Only the linear layer has a bias, and its factors lie along the sum.
            (_, _, true) => return None,
        };
        let params = gemm_pairs_nn::Params {
            m: self.m as u32,
            eights: (self.n / EIGHT) as u32,
            fours: (if right_along { k } else { all * k } / FOUR) as u32,
            a_offset: (a.offset / FOUR) as u32,
            a_step: (a_step / FOUR) as u32,
            b_offset: (b.offset / b_vector) as u32,
            b_step: (b_step / b_vector) as u32,
            c_offset: (self.c_offset / EIGHT) as u32,
            c_stride: (self.c_stride / EIGHT) as u32,
            column: self.column as u32,
            accumulate: u32::from(self.accumulate),
            plane: (images.plane / b_vector) as u32,
            b_image: (images.b / b_vector) as u32,
            // A's vectors are as long as B's where both are images, and C's otherwise.
            other_image: (images.other / b_vector) as u32,
            splits: self.k.div_ceil(run) as u32,
            split_fours: (run / FOUR) as u32,
            taps_w: taps.columns as u32,
            taps: all as u32,
            tap_fours: (k / FOUR) as u32,
            a_tap: vectors(taps.a as isize - (k * a.term) as isize, FOUR),
            b_tap: vectors(skipped(taps.b, b_step), b_vector),
            b_tap_row: vectors(skipped(between_rows, b_step), b_vector),
        };
        Some((entry, params))
    }
}
