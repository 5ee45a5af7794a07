//! Direct grad-weight of 3x3 filters over three channels, as in conv1_1, with the filters in the lanes: a row of the
//! window has only nine values, which would fill a vector badly.
//!
//! Pixels are split and summed in the same order as by the general kernel, so the bits are the same.

use super::{Cut, GradWeight, MAX_PIXELS};
use crate::GradMode;
use crate::cpu::{Cpu, SharedMut, Vector, VectorKernel};

/// Values in a row of the window: three pixels of three channels.
const ROW: usize = 9;
/// Values in the window.
const WINDOW: usize = 3 * ROW;

/// Whether the convolution has such filters.
pub(super) fn applies_to(cut: &Cut) -> bool {
    let s = &cut.shape;
    (s.r, s.s, s.c) == (3, 3, 3)
}

pub(super) fn grad_weight(cpu: Cpu, cut: &Cut, job: &GradWeight, dw: &mut [f32]) {
    let k = cut.shape.k;
    let mut partial = cpu.scratch(cut.groups * WINDOW * k);
    let shared = SharedMut::new(&mut partial);
    cpu.for_each_with_scratch(cut.groups, cut.input_len(), |group, input| {
        // SAFETY: each group has sums of its own.
        let sums = unsafe { shared.slice(group * WINDOW * k, WINDOW * k) };
        sum(cpu, cut, job, group, sums, input);
    });
    cpu.for_each_chunk(dw, WINDOW, |filter, dw| {
        if job.mode == GradMode::Overwrite {
            dw.fill(0.0);
        }
        for sums in partial.chunks_exact(WINDOW * k) {
            dw.iter_mut().zip(sums.chunks_exact(k)).for_each(|(dw, sums)| *dw += sums[filter]);
        }
        job.state.flag().check(dw);
    });
}

/// Sums `[27][filters]` over the pixels of one group.
fn sum(cpu: Cpu, cut: &Cut, job: &GradWeight, group: usize, sums: &mut [f32], input: &mut [f32]) {
    let s = &cut.shape;
    sums.fill(0.0);
    for i in cut.blocks_of(group) {
        let block = cut.blocks.get(i);
        let layout = block.copy_padded(s, job.x, 0..s.c, s.c, input);
        let mut places = [(0usize, 0usize); MAX_PIXELS];
        block.for_each_pixel(s, layout, |i, from, pixel| places[i] = (from, pixel * s.k));
        let places = &places[..block.pixels()];
        cpu.isa.run_wide(AddPixels { k: s.k, row: layout.row, input, dz: job.dz, places, sums });
    }
}

/// Adds the pixels of a block to the sums.
struct AddPixels<'a> {
    k: usize,
    /// Values from one row of the input to the next.
    row: usize,
    input: &'a [f32],
    dz: &'a [f32],
    /// Start of each pixel's window in `input`, and of its gradient in `dz`.
    places: &'a [(usize, usize)],
    sums: &'a mut [f32],
}

impl VectorKernel for AddPixels<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let last = self.places.iter().map(|(from, _)| from + 2 * self.row + ROW).max().unwrap_or(0);
        assert!(last <= self.input.len() && self.sums.len() == WINDOW * self.k);
        for first in (0..self.k).step_by(V::LANES) {
            (0..3).for_each(|row| self.row::<V>(row, first));
        }
    }
}

impl AddPixels<'_> {
    /// Adds to the sums of a row of the window, for a vector of filters.
    #[inline(always)]
    fn row<V: Vector>(&mut self, row: usize, first: usize) {
        let filters = V::LANES.min(self.k - first);
        let mut totals = [V::splat(0.0); ROW];
        for (i, total) in totals.iter_mut().enumerate() {
            let from = &self.sums[(row * ROW + i) * self.k + first..][..filters];
            // SAFETY: `from` has this many values.
            *total = unsafe { V::load_part(from.as_ptr(), filters) };
        }
        for (from, gradient) in self.places {
            let dz = &self.dz[gradient + first..][..filters];
            // SAFETY: `dz` has this many values; `run` has checked that all windows lie in the input.
            unsafe {
                let dz = match filters == V::LANES {
                    true => V::load(dz.as_ptr()),
                    false => V::load_part(dz.as_ptr(), filters),
                };
                let window = self.input.as_ptr().add(from + row * self.row);
                for (i, total) in totals.iter_mut().enumerate() {
                    *total = V::splat(*window.add(i)).mul_add(dz, *total);
                }
            }
        }
        for (i, total) in totals.into_iter().enumerate() {
            let to = &mut self.sums[(row * ROW + i) * self.k + first..][..filters];
            // SAFETY: `to` has this many values.
            unsafe { total.store_part(to.as_mut_ptr(), filters) };
        }
    }
}
