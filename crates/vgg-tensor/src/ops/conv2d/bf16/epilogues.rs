//! What becomes of the sums of a bf16 convolution: bias and ReLU, pooling, scores, or the mask of grad-input.

use crate::cpu::{BLOCK, Epilogue, Line, OutputLines, Place, SharedMut, Sums, TileUnit, from_bf16};
use crate::tensor::Blocked;

/// Rows and columns of the pixels of [`crate::cpu::Windows`], and the layout of the output. If it holds vectors, they
/// are the pixels of two rows, which overlap if their number is odd.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Output {
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) columns: usize,
    pub(in crate::ops) layout: Blocked,
}

impl Output {
    /// Sample, row and column of part `i` of a block of tiles of `width` pixels, unless it lies outside.
    #[inline(always)]
    fn pixel(&self, place: Place, width: usize, i: usize) -> Option<[usize; 3]> {
        let per_image = self.rows.div_ceil(2);
        let y = place.pair % per_image * 2 + i / width;
        let x = place.x + i % width;
        if y >= self.rows || x >= self.columns {
            return None;
        }
        match self.layout.holds_vectors() {
            true => Some([y * (self.layout.n - self.columns) + x, 0, 0]),
            false => Some([place.pair / per_image, y, x]),
        }
    }
}

/// `relu(sums + bias)` in bf16.
pub(in crate::ops) struct BiasRelu<'a> {
    pub(in crate::ops) output: Output,
    /// Filled up with zeros to whole blocks.
    pub(in crate::ops) bias: &'a [f32],
    pub(in crate::ops) lines: OutputLines<'a>,
}

impl Epilogue for BiasRelu<'_> {
    #[inline(always)]
    fn part<U: TileUnit>(&self, unit: U, place: Place, width: usize, i: usize, sums: &Sums) {
        let Some([image, y, x]) = self.output.pixel(place, width, i) else { return };
        let values = bias_relu(&sums[i / width][i % width], &self.bias[place.panel * BLOCK..]);
        // SAFETY: a pixel of a panel belongs to one task.
        unit.round(&values, unsafe { self.lines.line(self.output.layout.line(image, place.panel, y, x)) });
    }
}

/// [`BiasRelu`], then 2x2 max-pooling: only the pooled map is written.
pub(in crate::ops) struct Pooled<'a> {
    /// Sizes before pooling, and the layout of the pooled map.
    pub(in crate::ops) output: Output,
    pub(in crate::ops) bias: &'a [f32],
    pub(in crate::ops) lines: OutputLines<'a>,
}

impl Epilogue for Pooled<'_> {
    const PAIRS: bool = true;

    #[inline(always)]
    fn part<U: TileUnit>(&self, unit: U, place: Place, _: usize, i: usize, sums: &Sums) {
        let Output { rows, columns, layout } = self.output;
        let per_image = rows.div_ceil(2);
        let (image, y) = (place.pair / per_image, place.pair % per_image);
        let x = place.x / 2 + i;
        if y >= layout.h || x >= layout.w {
            return;
        }
        // A cut-off window repeats its first row or column.
        let right = if 2 * x + 1 < columns { 2 * i + 1 } else { 2 * i };
        let below = if 2 * y + 1 < rows { 1 } else { 0 };
        let mut largest = sums[0][2 * i];
        keep_larger(&mut largest, &sums[0][right]);
        let mut lower = sums[below][2 * i];
        keep_larger(&mut lower, &sums[below][right]);
        keep_larger(&mut largest, &lower);
        let values = bias_relu(&largest, &self.bias[place.panel * BLOCK..]);
        // SAFETY: a pooled pixel of a panel belongs to one task.
        unit.round(&values, unsafe { self.lines.line(layout.line(image, place.panel, y, x)) });
    }
}

/// Replaces values by larger ones; ties and NaNs keep the first, as in max-pooling of f32.
#[inline(always)]
fn keep_larger(first: &mut [f32; BLOCK], second: &[f32; BLOCK]) {
    for (a, b) in first.iter_mut().zip(second) {
        *a = if *b > *a { *b } else { *a };
    }
}

#[inline(always)]
fn bias_relu(sums: &[f32; BLOCK], bias: &[f32]) -> [f32; BLOCK] {
    let mut values = [0.0; BLOCK];
    for ((value, sum), bias) in values.iter_mut().zip(sums).zip(&bias[..BLOCK]) {
        let z = sum + bias;
        // Not `f32::max`, which would replace a NaN with 0.
        *value = if z < 0.0 { 0.0 } else { z };
    }
    values
}

/// `sums + bias` in f32, row-major `[N, H, W, K]`.
pub(in crate::ops) struct Scores<'a> {
    pub(in crate::ops) output: Output,
    pub(in crate::ops) bias: &'a [f32],
    pub(in crate::ops) scores: SharedMut<'a, f32>,
}

impl Epilogue for Scores<'_> {
    #[inline(always)]
    fn part<U: TileUnit>(&self, _: U, place: Place, width: usize, i: usize, sums: &Sums) {
        let Some([image, y, x]) = self.output.pixel(place, width, i) else { return };
        let layout = self.output.layout;
        let first = place.panel * BLOCK;
        let start = ((image * layout.h + y) * layout.w + x) * layout.c + first;
        // SAFETY: a pixel of a panel belongs to one task.
        let scores = unsafe { self.scores.slice(start, BLOCK.min(layout.c - first)) };
        for ((score, sum), bias) in
            scores.iter_mut().zip(&sums[i / width][i % width]).zip(&self.bias[first..])
        {
            *score = sum + bias;
        }
    }
}

/// `scale * sums` where the saved input is positive, else 0, in bf16; also its sums per channel.
pub(in crate::ops) struct Mask<'a> {
    pub(in crate::ops) output: Output,
    pub(in crate::ops) saved: &'a [Line],
    pub(in crate::ops) scale: f32,
    pub(in crate::ops) lines: OutputLines<'a>,
    /// `[pairs of rows][blocks][32]`: each pair of rows has its own sums.
    pub(in crate::ops) partial: SharedMut<'a, f32>,
}

impl Epilogue for Mask<'_> {
    #[inline(always)]
    fn part<U: TileUnit>(&self, unit: U, place: Place, width: usize, i: usize, sums: &Sums) {
        let layout = self.output.layout;
        let start = (place.pair * layout.blocks() + place.panel) * BLOCK;
        // SAFETY: a pair of rows of a panel belongs to one task.
        let partial = unsafe { self.partial.slice(start, BLOCK) };
        if i == 0 && place.x == 0 {
            partial.fill(0.0);
        }
        let Some([image, y, x]) = self.output.pixel(place, width, i) else { return };
        let at = layout.line(image, place.panel, y, x);
        let saved = &self.saved[at];
        let mut values = [0.0; BLOCK];
        for ((value, sum), saved) in values.iter_mut().zip(&sums[i / width][i % width]).zip(saved) {
            *value = if from_bf16(*saved) > 0.0 { sum * self.scale } else { 0.0 };
        }
        // SAFETY: a pixel of a panel belongs to one task.
        let line = unsafe { self.lines.line(at) };
        unit.round(&values, line);
        partial.iter_mut().zip(line).for_each(|(sum, value)| *sum += from_bf16(*value));
    }
}
