//! What becomes of the sums of a bf16 convolution: bias and ReLU, pooling, scores, or the mask of grad-input.

use crate::cpu::{BLOCK, Epilogue, Line, OutputLines, Place, SharedMut, Sums, TileUnit, from_bf16};
use crate::tensor::Blocked;

/// Rows and columns of the pixels of [`crate::cpu::Windows`], and the layout of the output. In a layout of vectors, each
/// vector is a pixel; the pixels form two rows, which overlap if the number of vectors is odd.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Output {
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) columns: usize,
    pub(in crate::ops) layout: Blocked,
}

/// The pixels of a block that lie inside of the output.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Pixels {
    /// Sample, row and column of the first pixel of each row of the block.
    first: [[usize; 3]; 2],
    rows: usize,
    columns: usize,
    panel: usize,
}

impl Output {
    #[inline(always)]
    fn pixels(&self, place: Place) -> Pixels {
        let per_image = self.rows.div_ceil(2);
        let (image, y) = (place.pair / per_image, place.pair % per_image * 2);
        let first = [y, y + 1].map(|y| match self.layout.holds_vectors() {
            true => [y * (self.layout.n - self.columns) + place.x, 0, 0],
            false => [image, y, place.x],
        });
        Pixels { first, rows: (self.rows - y).min(2), columns: self.columns - place.x, panel: place.panel }
    }

    #[inline(always)]
    fn lines(&self, place: Place) -> Lines {
        let pixels = self.pixels(place);
        let first = pixels.first.map(|[sample, y, x]| self.layout.line(sample, place.panel, y, x));
        Lines { first, pixels }
    }
}

/// The lines of a block that lie inside of the output. Those of a row follow one another.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Lines {
    first: [usize; 2],
    pixels: Pixels,
}

impl Lines {
    #[inline(always)]
    fn line(&self, row: usize, column: usize) -> Option<usize> {
        let inside = row < self.pixels.rows && column < self.pixels.columns;
        inside.then_some(self.first[row] + column)
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
    type At = Lines;

    #[inline(always)]
    fn begin(&self, place: Place) -> Lines {
        self.output.lines(place)
    }

    #[inline(always)]
    fn part<U: TileUnit>(&self, unit: U, at: &Lines, row: usize, column: usize, sums: &Sums) {
        let Some(line) = at.line(row, column) else { return };
        let values = bias_relu(&sums[row][column], &self.bias[at.pixels.panel * BLOCK..]);
        // SAFETY: a pixel of a panel belongs to one task.
        unit.round(&values, unsafe { self.lines.line(line) });
    }
}

/// [`BiasRelu`], then 2x2 max-pooling: only the pooled map is written.
pub(in crate::ops) struct Pooled<'a> {
    /// Sizes before pooling, and the layout of the pooled map.
    pub(in crate::ops) output: Output,
    pub(in crate::ops) bias: &'a [f32],
    pub(in crate::ops) lines: OutputLines<'a>,
}

/// The pooled pixels of a block.
#[derive(Clone, Copy)]
pub(in crate::ops) struct PooledPixels {
    /// Line of the first one.
    line: usize,
    /// Number of pooled pixels inside of the output.
    pooled: usize,
    pixels: Pixels,
}

impl Epilogue for Pooled<'_> {
    const POOLS: bool = true;
    type At = PooledPixels;

    #[inline(always)]
    fn begin(&self, place: Place) -> PooledPixels {
        let Output { rows, columns, layout } = self.output;
        let per_image = rows.div_ceil(2);
        let (image, y, x) = (place.pair / per_image, place.pair % per_image, place.x / 2);
        let pixels = Pixels {
            first: [[image, 2 * y, place.x]; 2],
            rows: (rows - 2 * y).min(2),
            columns: columns - place.x,
            panel: place.panel,
        };
        // With an odd number of rows, the last pair may have no pooled row.
        let pooled = if y < layout.h { layout.w - x } else { 0 };
        PooledPixels { line: layout.line(image, place.panel, y, x), pooled, pixels }
    }

    #[inline(always)]
    fn part<U: TileUnit>(&self, unit: U, at: &PooledPixels, _: usize, column: usize, sums: &Sums) {
        if column / 2 >= at.pooled {
            return;
        }
        // A cut-off window repeats its first row or column.
        let right = if column + 1 < at.pixels.columns { column + 1 } else { column };
        let below = at.pixels.rows - 1;
        let mut largest = sums[0][column];
        keep_larger(&mut largest, &sums[0][right]);
        let mut lower = sums[below][column];
        keep_larger(&mut lower, &sums[below][right]);
        keep_larger(&mut largest, &lower);
        let values = bias_relu(&largest, &self.bias[at.pixels.panel * BLOCK..]);
        // SAFETY: a pooled pixel of a panel belongs to one task.
        unit.round(&values, unsafe { self.lines.line(at.line + column / 2) });
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
    type At = Pixels;

    #[inline(always)]
    fn begin(&self, place: Place) -> Pixels {
        self.output.pixels(place)
    }

    #[inline(always)]
    fn part<U: TileUnit>(&self, _: U, at: &Pixels, row: usize, column: usize, sums: &Sums) {
        if row >= at.rows || column >= at.columns {
            return;
        }
        let layout = self.output.layout;
        let [sample, y, x] = at.first[row];
        let first = at.panel * BLOCK;
        let start = ((sample * layout.h + y) * layout.w + x + column) * layout.c + first;
        // SAFETY: a pixel of a panel belongs to one task.
        let scores = unsafe { self.scores.slice(start, BLOCK.min(layout.c - first)) };
        for ((score, sum), bias) in scores.iter_mut().zip(&sums[row][column]).zip(&self.bias[first..]) {
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

/// The lines of a block, and the first of its sums per channel.
#[derive(Clone, Copy)]
pub(in crate::ops) struct MaskedLines {
    lines: Lines,
    partial: usize,
}

impl Epilogue for Mask<'_> {
    type At = MaskedLines;

    #[inline(always)]
    fn begin(&self, place: Place) -> MaskedLines {
        let partial = (place.pair * self.output.layout.blocks() + place.panel) * BLOCK;
        if place.x == 0 {
            // SAFETY: a pair of rows of a panel belongs to one task.
            unsafe { self.partial.slice(partial, BLOCK) }.fill(0.0);
        }
        MaskedLines { lines: self.output.lines(place), partial }
    }

    #[inline(always)]
    fn part<U: TileUnit>(&self, unit: U, at: &MaskedLines, row: usize, column: usize, sums: &Sums) {
        let Some(line) = at.lines.line(row, column) else { return };
        let saved = &self.saved[line];
        let mut values = [0.0; BLOCK];
        for ((value, sum), saved) in values.iter_mut().zip(&sums[row][column]).zip(saved) {
            *value = if from_bf16(*saved) > 0.0 { sum * self.scale } else { 0.0 };
        }
        // SAFETY: a pixel of a panel, and the sums of its pair of rows, belong to one task.
        let (line, partial) = unsafe { (self.lines.line(line), self.partial.slice(at.partial, BLOCK)) };
        unit.round(&values, line);
        partial.iter_mut().zip(line).for_each(|(sum, value)| *sum += from_bf16(*value));
    }
}
