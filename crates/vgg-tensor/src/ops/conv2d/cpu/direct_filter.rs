//! Direct grad-weight: sums over pixels in registers, for six filters and sixteen values of the window at a
//! time.
//!
//! The gradient is split into tiles of channels and filters that stay in a core's L2 cache. If these are too
//! few tasks, the pixels are also split into a fixed number of groups. A task sums one tile over one group;
//! the partial sums of the groups are then added in order.

mod rgb;

use std::ops::Range;

use super::blocks::{Blocks, MAX_PIXELS, PANEL, Padded};
use super::{ConvShape, GradWeight};
use crate::GradMode;
use crate::cpu::{Cpu, LANES, SharedMut, Vector, VectorKernel};

/// Filters in a register tile.
const TILE: usize = 6;
/// Filters in a task's tile, a multiple of [`TILE`].
const FILTER_TILE: usize = 96;
/// Channels in a task's tile.
const CHANNEL_TILE: usize = 64;
/// Fewest tasks of a gradient, if it has enough pixels.
const TASKS: usize = 16;

pub(super) fn grad_weight(cpu: Cpu, job: &GradWeight, dw: &mut [f32]) {
    let cut = Cut::new(&job.shape);
    match rgb::applies_to(&cut) {
        true => rgb::grad_weight(cpu, &cut, job, dw),
        false => general(cpu, &cut, job, dw),
    }
}

fn general(cpu: Cpu, cut: &Cut, job: &GradWeight, dw: &mut [f32]) {
    let tile_len = cut.tile_len();
    let mut partial = cpu.scratch(cut.tasks() * tile_len);
    let shared = SharedMut::new(&mut partial);
    cpu.for_each_with_scratch(cut.tasks(), cut.scratch_len(), |task, scratch| {
        // SAFETY: each task has sums of its own.
        cut.sum(cpu, job, task, unsafe { shared.slice(task * tile_len, tile_len) }, scratch);
    });
    let depth = job.shape.depth();
    cpu.for_each_chunk(dw, depth, |k, dw| {
        cut.combine(k, &partial, dw, job.mode);
        job.state.flag().check(dw);
    });
}

/// How a gradient is split into tasks.
struct Cut {
    shape: ConvShape,
    blocks: Blocks,
    channel_tiles: usize,
    filter_tiles: usize,
    groups: usize,
    /// Whether a segment, a run of window values that are adjacent in memory, is a whole filter row, or else
    /// the channels of one tap. Rows are used if all channels are in one tile and are no multiple of
    /// [`PANEL`].
    whole_rows: bool,
    segments: usize,
    segment_len: usize,
}

/// The part of the gradient that a task computes.
struct Part {
    channels: Range<usize>,
    filters: Range<usize>,
    group: usize,
}

impl Cut {
    fn new(s: &ConvShape) -> Cut {
        let blocks = Blocks::new(s, CHANNEL_TILE + FILTER_TILE);
        let channel_tiles = s.c.div_ceil(CHANNEL_TILE);
        let filter_tiles = s.k.div_ceil(FILTER_TILE);
        let groups = TASKS.div_ceil(channel_tiles * filter_tiles).min(blocks.count());
        let channels = s.c.min(CHANNEL_TILE);
        let whole_rows = !channels.is_multiple_of(PANEL) && channel_tiles == 1;
        let (segments, segment_len) = if whole_rows { (s.r, s.s * s.c) } else { (s.r * s.s, channels) };
        Cut { shape: *s, blocks, channel_tiles, filter_tiles, groups, whole_rows, segments, segment_len }
    }

    fn tasks(&self) -> usize {
        self.channel_tiles * self.filter_tiles * self.groups
    }

    /// Values in a row of a tile: every segment is rounded up to whole panels.
    fn row_len(&self) -> usize {
        self.segments * self.segment_len.next_multiple_of(PANEL)
    }

    fn tile_len(&self) -> usize {
        self.row_len() * self.shape.k.min(FILTER_TILE).next_multiple_of(TILE)
    }

    /// Length of a block's padded input.
    fn input_len(&self) -> usize {
        self.blocks.input_len(self.shape.c.min(CHANNEL_TILE))
    }

    /// Scratch memory of a task: a block's input and gradient.
    fn scratch_len(&self) -> usize {
        self.input_len() + MAX_PIXELS * self.shape.k.min(FILTER_TILE).next_multiple_of(TILE)
    }

    fn part(&self, task: usize) -> Part {
        let (tile, group) = (task / self.groups, task % self.groups);
        let range = |i: usize, size: usize, whole: usize| i * size..((i + 1) * size).min(whole);
        Part {
            channels: range(tile / self.filter_tiles, CHANNEL_TILE, self.shape.c),
            filters: range(tile % self.filter_tiles, FILTER_TILE, self.shape.k),
            group,
        }
    }

    /// The blocks of pixels of a group.
    fn blocks_of(&self, group: usize) -> Range<usize> {
        let blocks = self.blocks.count();
        group * blocks / self.groups..(group + 1) * blocks / self.groups
    }

    /// Sums one tile over the pixels of one group.
    fn sum(&self, cpu: Cpu, job: &GradWeight, task: usize, sums: &mut [f32], scratch: &mut [f32]) {
        let (s, part) = (&self.shape, self.part(task));
        sums.fill(0.0);
        let (input, dz) = scratch.split_at_mut(self.input_len());
        for i in self.blocks_of(part.group) {
            let block = self.blocks.get(i);
            let pitch = part.channels.len();
            let layout = block.copy_padded(s, job.x, part.channels.clone(), pitch, input);
            let mut offsets = [0usize; MAX_PIXELS];
            let pixels = block.pixels();
            block.for_each_pixel(s, layout, |i, from, pixel| {
                offsets[i] = from;
                let from = &job.dz[pixel * s.k..][part.filters.clone()];
                for (tile, values) in from.chunks(TILE).enumerate() {
                    let to = &mut dz[(tile * pixels + i) * TILE..][..TILE];
                    to[..values.len()].copy_from_slice(values);
                    to[values.len()..].fill(0.0);
                }
            });
            cpu.isa.run(BlockKernel {
                cut: self,
                layout,
                channels: part.channels.len(),
                filters: part.filters.len(),
                input,
                dz,
                offsets: &offsets[..pixels],
                sums,
            });
        }
    }

    /// Adds the groups' partial sums of filter `k` in order, and writes them in the layout of the weights.
    fn combine(&self, k: usize, partial: &[f32], dw: &mut [f32], mode: GradMode) {
        let s = &self.shape;
        let (filter_tile, row) = (k / FILTER_TILE, k % FILTER_TILE);
        if mode == GradMode::Overwrite {
            dw.fill(0.0);
        }
        for channel_tile in 0..self.channel_tiles {
            let first = channel_tile * CHANNEL_TILE;
            let channels = CHANNEL_TILE.min(s.c - first);
            // A segment of `dw` starts at its tap (or filter row) and covers this tile's channels.
            let (step, len) = if self.whole_rows { (s.s * s.c, s.s * s.c) } else { (s.c, channels) };
            for group in 0..self.groups {
                let task = (channel_tile * self.filter_tiles + filter_tile) * self.groups + group;
                let sums = &partial[task * self.tile_len() + row * self.row_len()..][..self.row_len()];
                for (segment, sums) in sums.chunks_exact(self.row_len() / self.segments).enumerate() {
                    let dw = &mut dw[segment * step + first..][..len];
                    dw.iter_mut().zip(sums).for_each(|(dw, sum)| *dw += sum);
                }
            }
        }
    }
}

/// Adds one block of pixels to a tile's sums.
struct BlockKernel<'a> {
    cut: &'a Cut,
    layout: Padded,
    channels: usize,
    filters: usize,
    input: &'a [f32],
    /// `[filters / 6][pixels][6]`.
    dz: &'a [f32],
    /// Start of each pixel's window in `input`.
    offsets: &'a [usize],
    sums: &'a mut [f32],
}

impl VectorKernel for BlockKernel<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (cut, pixels) = (self.cut, self.offsets.len());
        let row_len = cut.row_len();
        let per_row = cut.segments / cut.shape.r;
        let padded_len = row_len / cut.segments;
        for (tile, dz) in
            self.dz[..self.filters.div_ceil(TILE) * pixels * TILE].chunks_exact(pixels * TILE).enumerate()
        {
            for segment in 0..cut.segments {
                let start = segment / per_row * self.layout.row + segment % per_row * self.channels;
                let len = if cut.whole_rows { cut.segment_len } else { self.channels };
                for at in (0..len).step_by(PANEL) {
                    let sums = &mut self.sums[tile * TILE * row_len + segment * padded_len + at..];
                    let sums = &mut sums[..(TILE - 1) * row_len + PANEL];
                    let input = &self.input[start + at..];
                    // SAFETY: a window that starts at an offset ends inside the input, which has sixteen
                    // values of slack for the last vector; `sums` was cut to what the kernel touches.
                    unsafe { add_pixels::<V>(input.as_ptr(), self.offsets, dz, sums.as_mut_ptr(), row_len) };
                }
            }
        }
    }
}

/// `sums[i][0..16] += sum over pixels of dz[pixel][i] * input[offset of pixel + 0..16]`, for six filters.
///
/// # Safety
/// `input` must be readable for 16 values at every offset, `sums` writable for 16 values in six rows
/// `row_len` apart.
#[inline(always)]
unsafe fn add_pixels<V: Vector>(
    input: *const f32,
    offsets: &[usize],
    dz: &[f32],
    sums: *mut f32,
    row_len: usize,
) {
    // SAFETY: all by the caller's promise; `dz` has six values per offset.
    unsafe {
        let mut totals = [[V::splat(0.0); 2]; TILE];
        for (i, total) in totals.iter_mut().enumerate() {
            let row = sums.add(i * row_len);
            *total = [V::load(row), V::load(row.add(LANES))];
        }
        let mut dz = dz.as_ptr();
        for offset in offsets {
            let from = input.add(*offset);
            let x = [V::load(from), V::load(from.add(LANES))];
            for (i, total) in totals.iter_mut().enumerate() {
                let d = V::splat(*dz.add(i));
                *total = [d.mul_add(x[0], total[0]), d.mul_add(x[1], total[1])];
            }
            dz = dz.add(TILE);
        }
        for (i, total) in totals.iter().enumerate() {
            let row = sums.add(i * row_len);
            total[0].store(row);
            total[1].store(row.add(LANES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Shape, StepState};

    /// Values without a pattern, of both signs.
    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0).collect()
    }

    #[test]
    fn rgb_kernel_equals_the_general_one_bit_by_bit() {
        for isa in crate::cpu::Isa::available() {
            let config = crate::DeviceConfig {
                kind: crate::DeviceKind::Cpu,
                threads: 2,
                instruction_set: Some(isa.name().to_owned()),
                ..Default::default()
            };
            let device = Device::open(&config).unwrap();
            for (n, h, w, k, pad) in
                [(1, 3, 3, 1, 0), (2, 9, 14, 16, 1), (3, 40, 33, 37, 1), (1, 64, 65, 112, 2)]
            {
                let shape = ConvShape::of(Shape::from([n, h, w, 3]), Shape::from([k, 3, 3, 3]), pad).unwrap();
                let (x, dz) = (values(n * h * w * 3), values(shape.output().len()));
                let state = StepState::new(&device).unwrap();
                let cut = Cut::new(&shape);
                for mode in [GradMode::Overwrite, GradMode::Accumulate] {
                    let job = GradWeight { shape, x: &x, dz: &dz, mode, state: &state };
                    let [mut own, mut expected] = [values(27 * k), values(27 * k)];
                    rgb::grad_weight(device.cpu_context(), &cut, &job, &mut own);
                    general(device.cpu_context(), &cut, &job, &mut expected);
                    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&own), bits(&expected), "{}: {shape:?}", isa.name());
                }
            }
        }
    }
}
