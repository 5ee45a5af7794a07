//! Direct convolution: sums over the filter window in registers, for six pixels and two vectors of filters at a time.
//!
//! In `[N, H, W, C]` the `S` taps of a filter row are adjacent in memory, so a row of the window is one run
//! of `S * C` values and no im2col matrix is needed: a block's input is copied once with its padding, and the
//! kernel reads windows directly from the copy. Filters are packed into panels `[K / P][R * S * C][P]`, with `P` filters
//! in two vectors.

use super::blocks::{Block, Blocks, MAX_PIXELS, PANEL, Padded};
use super::{ConvKernel, ConvShape, Forward, GradInput, GradWeight, direct_filter};
use crate::cpu::{Cpu, SharedMut, Vector, VectorKernel, add_bias, prefetch_write, relu_backward};
use crate::tensor::PackedKind;
use crate::tensor::Storage;

/// Pixels in a tile: with two vectors each, they fill the registers.
const TILE: usize = 6;
/// Most filters in a panel: two vectors of 16 lanes.
const WIDE_PANEL: usize = 2 * PANEL;
/// Target length of a part of a window (a panel of 20 or 40 KiB); windows of up to twice this length are not split.
const WINDOW_BLOCK: usize = 320;

/// The direct algorithm.
pub(super) struct Direct;

impl ConvKernel for Direct {
    fn forward(&self, cpu: Cpu, job: &Forward, y: &mut [f32]) {
        let s = &job.shape;
        let len = panels_len(cpu, s);
        let panels = job.weight.packed(PackedKind::DirectForward, len, |out| {
            let w = job.weight.value().cpu();
            pack(cpu, s, out, |k, tap, c| w[(k * s.r * s.s + tap) * s.c + c]);
        });
        let Storage::Cpu(panels) = &*panels else { unreachable!("filters are packed in host memory") };
        let finish = |block: &Block, y: &SharedMut<f32>| {
            block.for_each_row(s, |start, len| {
                // SAFETY: rows of different blocks are disjoint.
                let row = unsafe { y.slice(start * s.k, len * s.k) };
                add_bias(cpu.isa, row, job.bias, job.relu);
            });
        };
        convolve(cpu, s, job.x, panels.as_f32(len), y, |_, block, y| finish(block, y));
    }

    fn grad_input(&self, cpu: Cpu, job: &GradInput, dx: &mut [f32], sums: &mut [f32]) {
        let s = job.shape.mirrored();
        let Some(saved) = job.saved_x else {
            unreachable!("Direct does not work in place, so saved_x is given")
        };
        let len = panels_len(cpu, &s);
        let panels = job.weight.packed(PackedKind::DirectGradInput, len, |out| {
            let w = job.weight.value().cpu();
            let taps = s.r * s.s;
            pack(cpu, &s, out, |k, tap, c| w[(c * taps + taps - 1 - tap) * s.k + k]);
        });
        let Storage::Cpu(panels) = &*panels else { unreachable!("filters are packed in host memory") };
        // Each block has its own sums, which are added in block order.
        let blocks = Blocks::new(&s, s.c.max(s.k)).count();
        let mut partial = cpu.scratch(blocks * s.k);
        let partial_sums = SharedMut::new(&mut partial);
        let finish = |index: usize, block: &Block, dx: &SharedMut<f32>| {
            // SAFETY: each block has sums of its own.
            let sums = unsafe { partial_sums.slice(index * s.k, s.k) };
            sums.fill(0.0);
            block.for_each_row(&s, |start, len| {
                // SAFETY: rows of different blocks are disjoint.
                let row = unsafe { dx.slice(start * s.k, len * s.k) };
                relu_backward(cpu.isa, row, &saved[start * s.k..][..len * s.k], job.scale, sums);
            });
        };
        convolve(cpu, &s, job.dz, panels.as_f32(len), dx, finish);
        sums.fill(0.0);
        for block in partial.chunks_exact(s.k) {
            sums.iter_mut().zip(block).for_each(|(sum, x)| *sum += x);
        }
    }

    fn grad_weight(&self, cpu: Cpu, job: &GradWeight, dw: &mut [f32]) {
        direct_filter::grad_weight(cpu, job, dw);
    }
}

/// Filters in a panel: two vectors, of eight lanes if that is enough for all filters.
fn panel_width(cpu: Cpu, s: &ConvShape) -> usize {
    if s.k <= PANEL { PANEL } else { 2 * cpu.isa.wide_lanes() }
}

fn panels_len(cpu: Cpu, s: &ConvShape) -> usize {
    let width = panel_width(cpu, s);
    s.k.div_ceil(width) * s.depth() * width
}

/// Packs filters into panels. `weight(k, tap, c)` returns one value; filters past the last are zero.
fn pack(cpu: Cpu, s: &ConvShape, out: &mut [f32], weight: impl Fn(usize, usize, usize) -> f32 + Sync) {
    let width = panel_width(cpu, s);
    cpu.for_each_chunk(out, s.depth() * width, |panel, out| {
        for (at, group) in out.chunks_exact_mut(width).enumerate() {
            let (tap, c) = (at / s.c, at % s.c);
            for (i, value) in group.iter_mut().enumerate() {
                let k = panel * width + i;
                *value = if k < s.k { weight(k, tap, c) } else { 0.0 };
            }
        }
    });
}

/// Computes `y [n, oh, ow, k]` block by block, and calls `finish` on each block while it is in cache.
fn convolve(
    cpu: Cpu,
    s: &ConvShape,
    x: &[f32],
    panels: &[f32],
    y: &mut [f32],
    finish: impl Fn(usize, &Block, &SharedMut<f32>) + Sync + Send,
) {
    let blocks = Blocks::new(s, s.c.max(s.k));
    let y = SharedMut::new(y);
    cpu.for_each_with_scratch(blocks.count(), blocks.input_len(s.c), |i, input| {
        let block = blocks.get(i);
        let layout = block.copy_padded(s, x, 0..s.c, s.c, input);
        let kernel = BlockKernel { s, block: &block, layout, input, panels, y: &y };
        if panel_width(cpu, s) > PANEL {
            cpu.isa.run_wide(kernel)
        } else {
            cpu.isa.run(kernel)
        }
        finish(i, &block, &y);
    });
}

/// Computes a block of the output, without bias.
struct BlockKernel<'a> {
    s: &'a ConvShape,
    block: &'a Block,
    layout: Padded,
    input: &'a [f32],
    panels: &'a [f32],
    y: &'a SharedMut<'a, f32>,
}

impl VectorKernel for BlockKernel<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (s, k, panel_width) = (self.s, self.s.k, 2 * V::LANES);
        let mut inputs = [0usize; MAX_PIXELS];
        let mut outputs = [0usize; MAX_PIXELS];
        self.block.for_each_pixel(s, self.layout, |i, from, to| (inputs[i], outputs[i]) = (from, to * k));
        let pixels = self.block.pixels();
        for part in WindowParts::of(s) {
            let start = part.row * self.layout.row + part.from;
            let window = PartLayout { rows: part.rows, pitch: self.layout.row, len: part.len };
            for (panel, values) in self.panels.chunks_exact(s.depth() * panel_width).enumerate() {
                let filters = &values[(part.row * s.s * s.c + part.from) * panel_width..];
                let filters = &filters[..part.rows * part.len * panel_width];
                let width = panel_width.min(k - panel * panel_width);
                for first in (0..pixels).step_by(TILE) {
                    let here = TILE.min(pixels - first);
                    let mut input = [self.input.as_ptr(); TILE];
                    let mut out = [std::ptr::null_mut(); TILE];
                    for i in 0..TILE {
                        // A partial tile repeats its last pixel; the repeated results are discarded.
                        let pixel = first + i.min(here - 1);
                        // SAFETY: offsets are of pixels of the block: their windows lie in `input`, their
                        // outputs in `y`, where only this task touches them.
                        unsafe {
                            input[i] = self.input.as_ptr().add(inputs[pixel] + start);
                            out[i] = self.y.pointer(outputs[pixel] + panel * panel_width, width);
                        }
                    }
                    for &output in outputs[first + here..pixels].iter().take(TILE) {
                        let next = self.y.as_ptr().wrapping_add(output + panel * panel_width);
                        prefetch_write(next);
                        prefetch_write(next.wrapping_add(V::LANES));
                    }
                    // SAFETY: the pointers are as `tile` requires; a partial tile is computed in a local
                    // buffer.
                    unsafe {
                        if here == TILE && width == panel_width {
                            tile::<V>(input, window, filters.as_ptr(), out, !part.first());
                        } else {
                            let accumulate = !part.first();
                            partial_tile::<V>(input, window, filters.as_ptr(), out, here, width, accumulate);
                        }
                    }
                }
            }
        }
    }
}

/// A part of the filter window: the whole window if it is short, else a row or part of a row.
#[derive(Clone, Copy)]
struct WindowPart {
    row: usize,
    rows: usize,
    from: usize,
    len: usize,
}

impl WindowPart {
    fn first(&self) -> bool {
        self.row == 0 && self.from == 0
    }
}

/// The parts of a window, in the order in which they are summed.
struct WindowParts {
    rows: usize,
    run: usize,
    next: Option<WindowPart>,
}

impl WindowParts {
    fn of(s: &ConvShape) -> WindowParts {
        let run = s.s * s.c;
        let (rows, len) = match s.r * run {
            all if all <= 2 * WINDOW_BLOCK => (s.r, run),
            _ => (1, run.div_ceil(run.div_ceil(WINDOW_BLOCK))),
        };
        WindowParts { rows: s.r, run, next: Some(WindowPart { row: 0, rows, from: 0, len }) }
    }
}

impl Iterator for WindowParts {
    type Item = WindowPart;

    #[inline(always)]
    fn next(&mut self) -> Option<WindowPart> {
        let now = self.next?;
        let from = now.from + now.len;
        let (row, from) = if from < self.run { (now.row, from) } else { (now.row + now.rows, 0) };
        self.next = (row < self.rows).then_some(WindowPart { row, from, ..now });
        Some(WindowPart { len: now.len.min(self.run - now.from), ..now })
    }
}

/// The part of the filter window that a call sums: `rows` runs of `len` values, `pitch` apart in the input.
#[derive(Clone, Copy)]
struct PartLayout {
    rows: usize,
    pitch: usize,
    len: usize,
}

/// `y[i] (+)= sum over the window of input[i] * filters`, for six pixels and two vectors of filters.
///
/// # Safety
/// Each `input` must be readable over the window, `filters` for two vectors at each of its places, and each `y`
/// writable for two vectors.
#[inline(always)]
unsafe fn tile<V: Vector>(
    input: [*const f32; TILE],
    window: PartLayout,
    filters: *const f32,
    y: [*mut f32; TILE],
    accumulate: bool,
) {
    let mut sums = [[V::splat(0.0); 2]; TILE];
    // SAFETY: all by the caller's promise.
    unsafe {
        if accumulate {
            for (sum, y) in sums.iter_mut().zip(y) {
                *sum = [V::load(y), V::load(y.add(V::LANES))];
            }
        }
        let mut filters = filters;
        for row in 0..window.rows {
            let from = input.map(|p| p.add(row * window.pitch));
            for at in 0..window.len {
                let f = [V::load(filters), V::load(filters.add(V::LANES))];
                for (sum, from) in sums.iter_mut().zip(from) {
                    let x = V::splat(*from.add(at));
                    *sum = [x.mul_add(f[0], sum[0]), x.mul_add(f[1], sum[1])];
                }
                filters = filters.add(2 * V::LANES);
            }
        }
        for (sum, y) in sums.iter().zip(y) {
            sum[0].store(y);
            sum[1].store(y.add(V::LANES));
        }
    }
}

/// Like [`tile`], but writes only the first `pixels` pixels and `width` filters.
///
/// # Safety
/// As [`tile`], with `y` writable for `width` values only.
#[inline(always)]
unsafe fn partial_tile<V: Vector>(
    input: [*const f32; TILE],
    window: PartLayout,
    filters: *const f32,
    y: [*mut f32; TILE],
    pixels: usize,
    width: usize,
    accumulate: bool,
) {
    let mut whole = [[0.0f32; WIDE_PANEL]; TILE];
    // SAFETY: `whole` has room for a full tile; the copies stay within `pixels` and `width`.
    unsafe {
        if accumulate {
            for (whole, y) in whole.iter_mut().zip(y) {
                std::ptr::copy_nonoverlapping(y, whole.as_mut_ptr(), width);
            }
        }
        let rows: [*mut f32; TILE] = whole.each_mut().map(|row| row.as_mut_ptr());
        tile::<V>(input, window, filters, rows, accumulate);
        for (whole, y) in whole.iter().zip(y).take(pixels) {
            std::ptr::copy_nonoverlapping(whole.as_ptr(), y, width);
        }
    }
}
