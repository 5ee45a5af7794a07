//! Splits the output of a convolution into blocks of pixels, and copies the padded input of a block.

use std::ops::Range;

use super::ConvShape;
use crate::cpu::LANES;

/// Most pixels in a block.
pub(super) const MAX_PIXELS: usize = 768;

/// Filters in a panel: two vectors.
pub(super) const PANEL: usize = 2 * LANES;

/// Output pixels split into blocks by shape alone: several whole small images, or a part of a large one.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    shape: ConvShape,
    images: usize,
    rows: usize,
    columns: usize,
}

/// One block of output pixels.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) images: Range<usize>,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl Blocks {
    /// Blocks whose input and output, of up to `channels` channels, fit in a core's L2 cache.
    pub(super) fn new(shape: &ConvShape, channels: usize) -> Blocks {
        let all = shape.n * shape.oh * shape.ow;
        let target = (48 * 1024 / channels).clamp(96, MAX_PIXELS).min((all / 8).max(24));
        let even = |whole: usize, part: usize| whole.div_ceil(whole.div_ceil(part.max(1)));
        let columns = even(shape.ow, target.min(64));
        let rows = even(shape.oh, target / columns);
        let per_image = shape.oh * shape.ow;
        let images =
            if rows == shape.oh && columns == shape.ow { even(shape.n, target / per_image) } else { 1 };
        Blocks { shape: *shape, images, rows, columns }
    }

    fn counts(&self) -> [usize; 3] {
        let s = &self.shape;
        [s.n.div_ceil(self.images), s.oh.div_ceil(self.rows), s.ow.div_ceil(self.columns)]
    }

    pub(super) fn count(&self) -> usize {
        self.counts().iter().product()
    }

    /// Block `i`, counted along columns, then rows, then images.
    pub(super) fn get(&self, i: usize) -> Block {
        let [_, in_rows, in_columns] = self.counts();
        let part = |index: usize, size: usize, whole: usize| index * size..((index + 1) * size).min(whole);
        Block {
            columns: part(i % in_columns, self.columns, self.shape.ow),
            rows: part(i / in_columns % in_rows, self.rows, self.shape.oh),
            images: part(i / in_columns / in_rows, self.images, self.shape.n),
        }
    }

    /// Length of a block's padded input, with `pitch` values per pixel.
    pub(super) fn input_len(&self, pitch: usize) -> usize {
        let s = &self.shape;
        // A vector may be read past the last value.
        self.images * (self.rows + s.r - 1) * (self.columns + s.s - 1) * pitch + 16
    }
}

/// Layout of the padded copy of a block's input.
#[derive(Clone, Copy)]
pub(super) struct Padded {
    /// Values from one pixel to the next.
    pub(super) pitch: usize,
    /// Values from one row to the next.
    pub(super) row: usize,
    /// Values from one image to the next.
    image: usize,
}

impl Block {
    /// Copies the input pixels of the block, with zeros outside of the image, and only the channels in
    /// `channels`.
    pub(super) fn copy_padded(
        &self,
        s: &ConvShape,
        x: &[f32],
        channels: Range<usize>,
        pitch: usize,
        out: &mut [f32],
    ) -> Padded {
        let (in_rows, in_columns) = (self.rows.len() + s.r - 1, self.columns.len() + s.s - 1);
        let layout = Padded { pitch, row: in_columns * pitch, image: in_rows * in_columns * pitch };
        let end = self.images.len() * layout.image;
        out[end..end + 16].fill(0.0);
        for (i, image) in self.images.clone().enumerate() {
            for r in 0..in_rows {
                let to = &mut out[i * layout.image + r * layout.row..][..layout.row];
                let y = (self.rows.start + r).wrapping_sub(s.pad);
                if y >= s.h {
                    to.fill(0.0);
                    continue;
                }
                let from = &x[(image * s.h + y) * s.w * s.c..][..s.w * s.c];
                self.copy_row(s, from, &channels, pitch, to);
            }
        }
        layout
    }

    fn copy_row(&self, s: &ConvShape, from: &[f32], channels: &Range<usize>, pitch: usize, to: &mut [f32]) {
        let columns = to.len() / pitch;
        // Padded column j is image column first + j - pad; the columns in `inside` lie in the image.
        let first = self.columns.start;
        let inside = s.pad.saturating_sub(first).min(columns)..(s.w + s.pad - first).min(columns);
        to[..inside.start * pitch].fill(0.0);
        to[inside.end * pitch..].fill(0.0);
        if inside.is_empty() {
            return;
        }
        let x = first + inside.start - s.pad;
        let to = &mut to[inside.start * pitch..inside.end * pitch];
        if channels.len() == s.c && pitch == s.c {
            to.copy_from_slice(&from[x * s.c..][..to.len()]);
            return;
        }
        for (pixel, to) in from[x * s.c..].chunks_exact(s.c).zip(to.chunks_exact_mut(pitch)) {
            let (values, gap) = to.split_at_mut(channels.len());
            values.copy_from_slice(&pixel[channels.clone()]);
            gap.fill(0.0);
        }
    }

    /// Calls `f(index, offset in the padded copy, pixel number in the output)` for every pixel of the block.
    pub(super) fn for_each_pixel(
        &self,
        s: &ConvShape,
        layout: Padded,
        mut f: impl FnMut(usize, usize, usize),
    ) {
        let mut index = 0;
        for (i, image) in self.images.clone().enumerate() {
            for (r, y) in self.rows.clone().enumerate() {
                for (q, x) in self.columns.clone().enumerate() {
                    let offset = i * layout.image + r * layout.row + q * layout.pitch;
                    f(index, offset, (image * s.oh + y) * s.ow + x);
                    index += 1;
                }
            }
        }
    }

    /// Calls `f(first pixel number in the output, pixels)` for every contiguous run of the block.
    pub(super) fn for_each_row(&self, s: &ConvShape, mut f: impl FnMut(usize, usize)) {
        for image in self.images.clone() {
            for y in self.rows.clone() {
                f((image * s.oh + y) * s.ow + self.columns.start, self.columns.len());
            }
        }
    }

    pub(super) fn pixels(&self) -> usize {
        self.images.len() * self.rows.len() * self.columns.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    #[test]
    fn blocks_cover_every_pixel_once() {
        for (n, h, w) in
            [(1, 1, 1), (3, 2, 2), (2, 14, 14), (1, 224, 224), (1, 700, 1024), (5, 7, 100), (64, 4, 4)]
        {
            let s = ConvShape::of(Shape::from([n, h, w, 16]), Shape::from([8, 3, 3, 16]), 1).unwrap();
            let blocks = Blocks::new(&s, 16);
            let mut seen = vec![0; n * h * w];
            let layout = Padded { pitch: 16, row: 0, image: 0 };
            for i in 0..blocks.count() {
                let block = blocks.get(i);
                assert!(block.pixels() <= MAX_PIXELS);
                block.for_each_pixel(&s, layout, |_, _, pixel| seen[pixel] += 1);
            }
            assert!(seen.iter().all(|&n| n == 1), "{n} {h} {w}");
        }
    }
}
