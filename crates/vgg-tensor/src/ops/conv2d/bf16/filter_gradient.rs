//! Grad-weight on the tile unit: a product over the pixels of all images.
//!
//! Pixels are numbered in the padded map, row by row and image by image. In this order a tap is a distance: the filter's
//! value at a tap meets pixel `q` of the input and pixel `q - distance` of the output, and the borders of zeros keep
//! rows and images apart. A tile of A has 16 filters of the gradient by 32 pixels, so the gradient is transposed first;
//! a tile of B has pairs of pixels by 16 channels. Both are made for [`CHUNK`] pixels at a time and serve all taps.

use std::ops::Range;

use super::super::shape::ConvShape;
use super::{Input, window_lines};
use crate::cpu::{BLOCK, Cpu, Line, Nothing, Product, STEP, SharedMut, Sums, TILE, TileKernel, TileUnit};
use crate::tensor::{BlockedView, Tensor};
use crate::{GradMode, Result, StepState};

/// Pixels at a time: 32 filters and 32 channels of them take about 550 KiB.
const CHUNK: usize = 4096;
/// Groups of 32 pixels that a task prepares.
const GROUPS: usize = 16;

/// Writes or adds `dw [k, r, s, c]`.
pub(in crate::ops::conv2d) fn grad_weight(
    s: ConvShape,
    x: &Tensor,
    dz: &Tensor,
    dw: &mut Tensor,
    mode: GradMode,
    state: &StepState,
) -> Result<()> {
    let input = Input::of(&s, x)?;
    let dz = dz.to_blocked()?;
    let cpu = x.device().cpu_context();
    let dw = dw.cpu_mut("conv2d", "dw")?;
    crate::alloc::or_out_of_memory(|| {
        let job = Job::new(cpu, s, &input, dz.blocked());
        let sums = job.sums();
        job.write(&sums, dw, mode, state);
    })
}

/// Whether the tile unit computes grad-weight: filters that keep the size, of which training has 3x3 and 1x1.
pub(in crate::ops::conv2d) fn supports(s: &ConvShape) -> bool {
    s.r == 2 * s.pad + 1 && s.r <= 3
}

struct Job<'a> {
    cpu: Cpu<'a>,
    s: ConvShape,
    input: &'a Input,
    dz: BlockedView<'a>,
    /// Taps, and channels of the input of each.
    taps: usize,
    c: usize,
    /// Numbered pixels, those of an image and of a row.
    pixels: usize,
    per_image: usize,
    pitch: usize,
    chunk: usize,
    /// Pixels of the gradient before and after those of a chunk.
    halo: usize,
}

impl<'a> Job<'a> {
    fn new(cpu: Cpu<'a>, s: ConvShape, input: &'a Input, dz: BlockedView<'a>) -> Job<'a> {
        let sizes = input.sizes(&s);
        let (pitch, per_image) = (dz.layout.row_stride, dz.layout.padded_pixels());
        let pixels = s.n * per_image;
        let chunk = CHUNK.min(pixels.next_multiple_of(BLOCK));
        let halo = (pitch + 1).next_multiple_of(BLOCK);
        Job { cpu, s, input, dz, taps: sizes.taps, c: sizes.c, pixels, per_image, pitch, chunk, halo }
    }

    fn panels(&self) -> usize {
        self.s.k.div_ceil(BLOCK)
    }

    fn blocks(&self) -> usize {
        self.c.div_ceil(BLOCK)
    }

    /// Pixels from one row of the transposed gradient to the next. An odd number of cache lines, so that the rows of a
    /// tile lie in different sets of the cache.
    fn row_len(&self) -> usize {
        let lines = (self.chunk + 2 * self.halo) / BLOCK;
        (lines + 1 - lines % 2) * BLOCK
    }

    /// The gradient per panel, block, tap: `[panels][blocks][taps][2][16][32]`.
    fn sums(&self) -> crate::cpu::Scratch {
        let cpu = self.cpu;
        let per_block = self.taps * BLOCK * BLOCK;
        let mut sums = cpu.scratch(self.panels() * self.blocks() * per_block);
        let mut transposed = cpu.scratch(self.panels() * BLOCK * self.row_len() / 2);
        let mut pairs = cpu.scratch(self.blocks() * BLOCK * self.chunk / 2);
        let row_scratch = window_lines::row_len(&self.s).div_ceil(2);
        for first in (0..self.pixels).step_by(self.chunk) {
            self.transpose(first, as_u16(&mut transposed));
            self.pair(first, as_u16(&mut pairs), row_scratch);
            self.add_products(first > 0, as_u16(&mut transposed), as_u16(&mut pairs), &mut sums);
        }
        sums
    }

    /// Transposes the gradient of the pixels from `first - halo` on: `[panels][32][row_len]`.
    fn transpose(&self, first: usize, transposed: &mut [u16]) {
        let to = SharedMut::new(transposed);
        let groups = (self.chunk + 2 * self.halo) / BLOCK;
        self.cpu.for_each(self.panels() * groups.div_ceil(GROUPS), |task| {
            let (panel, start) = (task % self.panels(), task / self.panels() * GROUPS);
            let groups = start..(start + GROUPS).min(groups);
            self.cpu.tiles().run_vectors(Transpose { job: self, first, panel, groups, to: &to });
        });
    }

    /// Line of pixel `q` of the gradient; `None` before the first and after the last pixel.
    fn gradient_line(&self, q: usize, panel: usize) -> Option<&Line> {
        if q >= self.pixels {
            return None;
        }
        let layout = self.dz.layout;
        let at = q / self.per_image * layout.sample_stride + panel * layout.block_stride + q % self.per_image;
        Some(&self.dz.lines[at])
    }

    /// Interleaves the lines of pairs of input pixels: `[blocks][chunk / 32][2][16 pairs][16][2]`.
    fn pair(&self, first: usize, pairs: &mut [u16], row_scratch: usize) {
        let to = SharedMut::new(pairs);
        let groups = self.chunk / BLOCK;
        match self.input {
            Input::Blocked(x) => {
                let x = x.blocked();
                self.cpu.for_each(self.blocks() * groups.div_ceil(GROUPS), |task| {
                    let (block, start) = (task % self.blocks(), task / self.blocks() * GROUPS);
                    let groups = start..(start + GROUPS).min(groups);
                    self.cpu.tiles().run_vectors(Pair { job: self, x, first, block, groups, to: &to });
                });
            }
            Input::Pixels(x) => {
                let scratch = (self.s.ow * BLOCK).div_ceil(2) + row_scratch;
                self.cpu.for_each_with_scratch(groups.div_ceil(GROUPS), scratch, |task, scratch| {
                    let start = task * GROUPS;
                    let groups = start..(start + GROUPS).min(groups);
                    let kernel = PairWindows { job: self, x: x.cpu(), first, groups, scratch, to: &to };
                    self.cpu.tiles().run_vectors(kernel);
                });
            }
        }
    }

    /// Adds the products of a chunk, or writes those of the first one.
    fn add_products(&self, add: bool, transposed: &[u16], pairs: &[u16], sums: &mut [f32]) {
        let tasks = self.panels() * self.blocks() * self.taps;
        let sums = SharedMut::new(sums);
        self.cpu.for_each(tasks, |task| {
            let tap = task % self.taps;
            let (panel, block) = (task / self.taps / self.blocks(), task / self.taps % self.blocks());
            // SAFETY: each task has sums of its own.
            let sums = unsafe { sums.slice(task * BLOCK * BLOCK, BLOCK * BLOCK) };
            let row_len = self.row_len();
            let start = (panel * BLOCK * row_len + self.halo).wrapping_add_signed(-self.distance(tap));
            let product = Product {
                a: [transposed[start..].as_ptr(), transposed[start + TILE * row_len..].as_ptr()],
                a_pitch: 2 * row_len,
                outer: self.chunk / BLOCK,
                outer_stride: size_of::<Line>(),
                window_rows: 1,
                row_stride: 0,
                window_columns: 1,
                b: pairs[block * self.chunk * BLOCK..].as_ptr(),
            };
            self.cpu.tiles().run(TILE, AddProduct { product, sums, add });
        });
    }

    /// Distance, in numbered pixels, from an output pixel to the input pixel that a tap multiplies.
    fn distance(&self, tap: usize) -> isize {
        if self.taps == 1 {
            return 0;
        }
        let (r, s) = ((tap / self.s.s) as isize, (tap % self.s.s) as isize);
        let pad = self.s.pad as isize;
        (r - pad) * self.pitch as isize + s - pad
    }

    /// Writes the sums to `dw [k, taps, c]`, or adds them.
    fn write(&self, sums: &[f32], dw: &mut [f32], mode: GradMode, state: &StepState) {
        let (taps, c, blocks) = (self.taps, self.c, self.blocks());
        self.cpu.for_each_chunk(dw, taps * c, |filter, dw| {
            for (tap, dw) in dw.chunks_exact_mut(c).enumerate() {
                for (block, dw) in dw.chunks_mut(BLOCK).enumerate() {
                    let of_block = ((filter / BLOCK * blocks + block) * taps + tap) * BLOCK * BLOCK;
                    let sums = &sums[of_block + filter % BLOCK * BLOCK..];
                    match mode {
                        GradMode::Overwrite => dw.copy_from_slice(&sums[..dw.len()]),
                        GradMode::Accumulate => dw.iter_mut().zip(sums).for_each(|(dw, sum)| *dw += sum),
                    }
                }
            }
            state.flag().check(dw);
        });
    }
}

/// Scratch memory as 16-bit values.
fn as_u16(scratch: &mut [f32]) -> &mut [u16] {
    // SAFETY: every bit pattern is a valid 16-bit value, and an f32 is aligned for them.
    unsafe { scratch.align_to_mut::<u16>().1 }
}

/// Transposes groups of 32 pixels of a panel.
struct Transpose<'a> {
    job: &'a Job<'a>,
    first: usize,
    panel: usize,
    groups: Range<usize>,
    to: &'a SharedMut<'a, u16>,
}

impl TileKernel for Transpose<'_> {
    #[inline(always)]
    fn run<U: TileUnit>(self, _: U) {
        let row_len = self.job.row_len();
        for group in self.groups {
            let start = (self.first + group * BLOCK).wrapping_sub(self.job.halo);
            let mut lines = [[0; BLOCK]; BLOCK];
            for (i, line) in lines.iter_mut().enumerate() {
                if let Some(from) = self.job.gradient_line(start.wrapping_add(i), self.panel) {
                    *line = *from;
                }
            }
            for (filter, line) in transposed(lines).iter().enumerate() {
                let at = (self.panel * BLOCK + filter) * row_len + group * BLOCK;
                // SAFETY: each group of a panel is written once.
                unsafe { self.to.slice(at, BLOCK) }.copy_from_slice(line);
            }
        }
    }
}

/// Transposes 32 lines by five perfect shuffles.
#[inline(always)]
fn transposed(mut lines: [Line; BLOCK]) -> [Line; BLOCK] {
    for _ in 0..5 {
        let mut shuffled = [[0; BLOCK]; BLOCK];
        for i in 0..TILE {
            let (a, b) = (lines[i], lines[i + TILE]);
            for j in 0..TILE {
                shuffled[2 * i][2 * j] = a[j];
                shuffled[2 * i][2 * j + 1] = b[j];
                shuffled[2 * i + 1][2 * j] = a[TILE + j];
                shuffled[2 * i + 1][2 * j + 1] = b[TILE + j];
            }
        }
        lines = shuffled;
    }
    lines
}

/// Interleaves the lines of groups of 32 pixels of a block.
struct Pair<'a> {
    job: &'a Job<'a>,
    x: BlockedView<'a>,
    first: usize,
    block: usize,
    groups: Range<usize>,
    to: &'a SharedMut<'a, u16>,
}

impl TileKernel for Pair<'_> {
    #[inline(always)]
    fn run<U: TileUnit>(self, _: U) {
        let Job { chunk, pixels, per_image, .. } = *self.job;
        let layout = self.x.layout;
        for group in self.groups {
            let mut lines = [[0; BLOCK]; BLOCK];
            for (i, line) in lines.iter_mut().enumerate() {
                let q = self.first + group * BLOCK + i;
                if q < pixels {
                    let plane = q / per_image * layout.sample_stride + self.block * layout.block_stride;
                    *line = self.x.lines[plane + q % per_image];
                }
            }
            let at = (self.block * (chunk / BLOCK) + group) * STEP;
            // SAFETY: each group of a block is written once.
            interleave(&lines, unsafe { self.to.slice(at, STEP) });
        }
    }
}

/// As [`Pair`], for windows of pixels as lines.
struct PairWindows<'a> {
    job: &'a Job<'a>,
    x: &'a [f32],
    first: usize,
    groups: Range<usize>,
    scratch: &'a mut [f32],
    to: &'a SharedMut<'a, u16>,
}

impl TileKernel for PairWindows<'_> {
    #[inline(always)]
    fn run<U: TileUnit>(self, _: U) {
        let Job { s, pitch, .. } = self.job;
        let image_len = s.h * s.w * s.c;
        let (windows, row) = as_u16(self.scratch).split_at_mut(s.ow * BLOCK);
        let windows = windows.as_chunks_mut::<BLOCK>().0;
        let mut current = usize::MAX;
        for group in self.groups {
            let mut lines = [[0; BLOCK]; BLOCK];
            for (i, line) in lines.iter_mut().enumerate() {
                let q = self.first + group * BLOCK + i;
                let (padded_row, column) = (q / pitch, q % pitch);
                let (image, y) = (padded_row / (s.oh + 2), padded_row % (s.oh + 2));
                let inside = image < s.n && (1..=s.oh).contains(&y) && (1..=s.ow).contains(&column);
                if !inside {
                    continue;
                }
                if current != padded_row {
                    window_lines::fill(s, &self.x[image * image_len..][..image_len], y - 1, row, windows);
                    current = padded_row;
                }
                *line = windows[column - 1];
            }
            // SAFETY: each group is written once.
            interleave(&lines, unsafe { self.to.slice(group * STEP, STEP) });
        }
    }
}

/// The B tiles of 32 pixels: the values of each pair of pixels alternate.
#[inline(always)]
fn interleave(lines: &[Line; BLOCK], step: &mut [u16]) {
    let (first, second) = step.split_at_mut(STEP / 2);
    for (i, pair) in lines.as_chunks::<2>().0.iter().enumerate() {
        for (half, tile) in [&mut *first, &mut *second].into_iter().enumerate() {
            let row = &mut tile[i * BLOCK..][..BLOCK];
            for c in 0..TILE {
                row[2 * c] = pair[0][half * TILE + c];
                row[2 * c + 1] = pair[1][half * TILE + c];
            }
        }
    }
}

/// The product of a panel of filters and a block of channels at a tap.
struct AddProduct<'a> {
    product: Product,
    sums: &'a mut [f32],
    add: bool,
}

impl TileKernel for AddProduct<'_> {
    #[inline(always)]
    fn run<U: TileUnit>(self, unit: U) {
        let (rows, _) = self.sums.as_chunks_mut::<BLOCK>();
        let (tiles, _) = rows.as_chunks_mut::<TILE>();
        let Some(sums) = tiles.first_chunk_mut::<2>() else {
            unreachable!("a task has sums of two rows of tiles")
        };
        let sums: &mut Sums = sums;
        // SAFETY: the transposed gradient has a halo on both sides, and the pairs have a step for each group.
        unsafe { unit.multiply(&self.product, sums, self.add, &mut Nothing) };
    }
}
