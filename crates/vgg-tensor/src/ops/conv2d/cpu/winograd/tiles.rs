//! The tiles of a convolution's output, and the layout of transformed tiles in scratch memory.

use std::ops::Range;

use super::super::ConvShape;
use super::transform::Transform;
use crate::cpu::Vector;

/// Channels in a block of the layouts: a cache line.
pub(super) const CHANNEL_BLOCK: usize = 16;

/// The output split into tiles of `m x m` pixels, numbered along columns, then rows, then images.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub(super) shape: ConvShape,
    m: usize,
    rows: usize,
    columns: usize,
}

/// The image of a tile, and the tile's first output pixel.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) image: usize,
    pub(super) y: usize,
    pub(super) x: usize,
}

impl Tiles {
    pub(super) fn new<T: Transform>(shape: &ConvShape) -> Tiles {
        let (rows, columns) = (shape.oh.div_ceil(T::M), shape.ow.div_ceil(T::M));
        Tiles { shape: *shape, m: T::M, rows, columns }
    }

    pub(super) fn count(&self) -> usize {
        self.shape.n * self.rows * self.columns
    }

    #[inline(always)]
    pub(super) fn place(&self, tile: usize) -> Place {
        let (row, column) = (tile / self.columns, tile % self.columns);
        Place { image: row / self.rows, y: row % self.rows * self.m, x: column * self.m }
    }
}

/// Layout of the operands of the matrix products: for each tile element
/// `[tiles / rows][channels / 16][rows][16]`, so that the product of `rows` tiles with 16 filters reads and
/// writes contiguous memory.
#[derive(Clone, Copy)]
pub(super) struct PackedTiles {
    /// Tiles in a group: the number that the kernel multiplies at once.
    pub(super) rows: usize,
    /// Number of channel blocks.
    pub(super) blocks: usize,
    /// Values from one tile element to the next.
    pub(super) pitch: usize,
}

impl PackedTiles {
    pub(super) fn new(tiles: usize, channels: usize, rows: usize) -> PackedTiles {
        let blocks = channels.div_ceil(CHANNEL_BLOCK);
        // An odd number of cache lines, so that the elements of a tile fall into different cache sets.
        PackedTiles {
            rows,
            blocks,
            pitch: tiles.div_ceil(rows) * blocks * rows * CHANNEL_BLOCK + CHANNEL_BLOCK,
        }
    }

    /// Start of channel block `block` of a tile.
    #[inline(always)]
    pub(super) fn at(&self, tile: usize, block: usize) -> usize {
        let (group, row) = (tile / self.rows, tile % self.rows);
        ((group * self.blocks + block) * self.rows + row) * CHANNEL_BLOCK
    }

    /// Values in a group of tiles.
    pub(super) fn group_len(&self) -> usize {
        self.blocks * self.rows * CHANNEL_BLOCK
    }
}

/// A layout of transformed tiles.
pub(super) trait TileLayout: Copy + Sync {
    /// Start of a channel of a tile within every element; `channel` is a multiple of the vector length.
    fn start(&self, tile: usize, channel: usize) -> usize;
    /// Values from one tile element to the next.
    fn pitch(&self) -> usize;
}

impl TileLayout for PackedTiles {
    #[inline(always)]
    fn start(&self, tile: usize, channel: usize) -> usize {
        self.at(tile, channel / CHANNEL_BLOCK) + channel % CHANNEL_BLOCK
    }

    #[inline(always)]
    fn pitch(&self) -> usize {
        self.pitch
    }
}

/// The input pixels of a tile; pixels outside of the image are 0.
pub(super) struct Window {
    corner: *const f32,
    row: usize,
    column: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    side: usize,
}

impl Window {
    /// `side * side` pixels of an image of `size` pixels with `channels` values each, from `pad` pixels
    /// before `place` on.
    #[inline(always)]
    pub(super) fn new(
        x: &[f32],
        size: [usize; 2],
        channels: usize,
        place: Place,
        pad: usize,
        side: usize,
    ) -> Window {
        let [h, w] = size;
        assert!(x.len() >= (place.image + 1) * h * w * channels);
        let origin = ((place.image * h + place.y) * w + place.x) * channels;
        // The corner may lie before the image; only pixels inside are read.
        let corner = x.as_ptr().wrapping_add(origin).wrapping_sub((pad * w + pad) * channels);
        let (rows, columns) = (inside(place.y, pad, h, side), inside(place.x, pad, w, side));
        Window { corner, row: w * channels, column: channels, rows, columns, side }
    }

    /// Whether all pixels are inside of the image.
    #[inline(always)]
    pub(super) fn is_whole(&self) -> bool {
        self.rows == (0..self.side) && self.columns == (0..self.side)
    }

    /// Loads a vector of pixel `(i, j)` from channel `c` on, of which `n` channels exist. `WHOLE` states that
    /// all pixels and lanes exist.
    #[inline(always)]
    pub(super) fn load<V: Vector, const WHOLE: bool>(&self, i: usize, j: usize, c: usize, n: usize) -> V {
        let at = self.corner.wrapping_add(i * self.row + j * self.column + c);
        // SAFETY: pixels inside of the image hold `n` values from channel `c` on.
        unsafe {
            if WHOLE {
                V::load(at)
            } else if !self.rows.contains(&i) || !self.columns.contains(&j) {
                V::splat(0.0)
            } else if n >= V::LANES {
                V::load(at)
            } else {
                V::load_part(at, n)
            }
        }
    }
}

/// The part of `side` positions, starting at `first - pad`, that lies in `0..len`, relative to the start.
#[inline(always)]
fn inside(first: usize, pad: usize, len: usize, side: usize) -> Range<usize> {
    pad.saturating_sub(first).min(side)..(len + pad - first).min(side)
}
