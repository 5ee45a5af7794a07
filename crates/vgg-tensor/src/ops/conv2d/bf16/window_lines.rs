//! Windows of images with few channels as lines: the 27 values of a 3x3 window of RGB pixels, filled up to 32.
//!
//! conv1_1 would waste nine tenths of its products on the padding of three channels to 32. With its window in a line it
//! is a 1x1 convolution.

use super::super::shape::ConvShape;
use crate::cpu::{
    BLOCK, Blocks, Cpu, Epilogue, Line, Place, Product, STEP, TILE, TileKernel, TileUnit, tile_width, to_bf16,
};

/// Whether the windows of this convolution fit into lines.
pub(super) fn fits(s: &ConvShape) -> bool {
    s.c < 8 && s.depth() <= BLOCK
}

/// Number of values of a padded row of the image.
pub(super) fn row_len(s: &ConvShape) -> usize {
    (s.w + 2 * s.pad) * s.c
}

/// Writes the windows of row `y` of the output to the first `ow` lines. `image [h, w, c]`; `row` is scratch memory of
/// [`row_len`] values.
#[inline(always)]
pub(super) fn fill(s: &ConvShape, image: &[f32], y: usize, row: &mut [u16], lines: &mut [Line]) {
    let lines = &mut lines[..s.ow];
    lines.fill([0; BLOCK]);
    let run = s.s * s.c;
    for r in 0..s.r {
        let Some(iy) = (y + r).checked_sub(s.pad).filter(|iy| *iy < s.h) else { continue };
        let (margin, inside) = (s.pad * s.c, s.w * s.c);
        row[..margin].fill(0);
        row[margin + inside..row_len(s)].fill(0);
        for (to, from) in row[margin..].iter_mut().zip(&image[iy * inside..][..inside]) {
            *to = to_bf16(*from);
        }
        for (x, line) in lines.iter_mut().enumerate() {
            let (from, to) = (&row[x * s.c..], &mut line[r * run..]);
            // The run of an RGB window has a constant length, which compiles to two moves.
            match run {
                9 => to[..9].copy_from_slice(&from[..9]),
                _ => to[..run].copy_from_slice(&from[..run]),
            }
        }
    }
}

/// Multiplies the windows of all pixels of `x [n, h, w, c]` by panels of 32 filters.
pub(super) fn multiply<E: Epilogue>(
    cpu: Cpu,
    s: &ConvShape,
    x: &[f32],
    filters: &[u16],
    panels: usize,
    epilogue: &E,
) {
    let width = tile_width(s.ow, E::POOLS);
    // Two rows of lines, with room for a whole tile after the last pixel, and a row of the image.
    let lines = s.ow + TILE;
    let scratch = (2 * lines * BLOCK + row_len(s)).div_ceil(2);
    let per_image = s.oh.div_ceil(2);
    cpu.for_each_with_scratch(s.n * per_image, scratch, |pair, scratch| {
        let image = &x[pair / per_image * s.h * s.w * s.c..][..s.h * s.w * s.c];
        cpu.tiles().run(
            width,
            Pair { s, image, pair, y: pair % per_image * 2, filters, panels, epilogue, scratch, width },
        );
    });
}

/// A pair of rows of the output.
struct Pair<'a, E> {
    s: &'a ConvShape,
    image: &'a [f32],
    pair: usize,
    y: usize,
    filters: &'a [u16],
    panels: usize,
    epilogue: &'a E,
    scratch: &'a mut [f32],
    width: usize,
}

impl<E: Epilogue> TileKernel for Pair<'_, E> {
    #[inline(always)]
    fn run<U: TileUnit>(self, unit: U) {
        let s = self.s;
        // SAFETY: every bit pattern is a valid 16-bit value.
        let (_, values, _) = unsafe { self.scratch.align_to_mut::<u16>() };
        let (lines, row) = values.split_at_mut(2 * (s.ow + TILE) * BLOCK);
        let rows = lines.as_chunks_mut::<BLOCK>().0;
        let (upper, lower) = rows.split_at_mut(s.ow + TILE);
        fill(s, self.image, self.y, row, upper);
        fill(s, self.image, (self.y + 1).min(s.oh - 1), row, lower);
        let mut blocks = Blocks::new(unit, self.epilogue, self.width, 1);
        for panel in 0..self.panels {
            for x in (0..s.ow).step_by(self.width) {
                let product = Product {
                    a: [upper[x..].as_ptr().cast(), lower[x..].as_ptr().cast()],
                    a_pitch: size_of::<Line>(),
                    outer: 1,
                    outer_stride: 0,
                    window_rows: 1,
                    row_stride: 0,
                    window_columns: 1,
                    b: self.filters[panel * STEP..].as_ptr(),
                };
                // SAFETY: both rows have room for a whole tile after the last pixel.
                unsafe { blocks.add(&product, Place { pair: self.pair, x, panel }) };
            }
        }
        blocks.finish();
    }
}
