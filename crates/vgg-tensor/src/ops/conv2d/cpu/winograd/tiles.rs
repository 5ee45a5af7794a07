//! Where the tiles of a convolution lie, and how transformed tiles are laid out in scratch memory.

use super::super::ConvShape;
use super::transform::Transform;

/// Channels in a block of the layouts: a cache line.
pub(super) const BLOCK: usize = 16;

/// The output cut into tiles of `m x m` pixels, counted along columns, then rows, then images.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub(super) shape: ConvShape,
    m: usize,
    rows: usize,
    columns: usize,
}

/// One tile: its image, and its first output pixel there.
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

/// Layout of one side of the products: per tile element `[tiles / rows][channels / 16][rows][16]`, so that the
/// product of `rows` tiles with 16 filters reads and writes one run of memory.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    /// Tiles in a group: as many as the product's kernel handles at once.
    pub(super) rows: usize,
    /// Blocks of channels.
    pub(super) blocks: usize,
    /// Values from one tile element to the next.
    pub(super) pitch: usize,
}

impl Groups {
    pub(super) fn new(tiles: usize, channels: usize, rows: usize) -> Groups {
        let blocks = channels.div_ceil(BLOCK);
        // An odd number of cache lines, so that the elements of a tile do not compete for one set of the cache.
        Groups { rows, blocks, pitch: tiles.div_ceil(rows) * blocks * rows * BLOCK + BLOCK }
    }

    /// Where block `block` of a tile starts.
    #[inline(always)]
    pub(super) fn at(&self, tile: usize, block: usize) -> usize {
        let (group, row) = (tile / self.rows, tile % self.rows);
        ((group * self.blocks + block) * self.rows + row) * BLOCK
    }

    /// Values in a group of tiles.
    pub(super) fn group_len(&self) -> usize {
        self.blocks * self.rows * BLOCK
    }
}
