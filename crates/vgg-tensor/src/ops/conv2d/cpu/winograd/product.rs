//! Matrix products of transformed tiles with transformed filters, one per tile element.

use std::ops::Range;

use super::tiles::{CHANNEL_BLOCK, PackedTiles};
use crate::cpu::{SharedMut, Vector, VectorKernel, prefetch};

/// Channel blocks that are summed before the next filters: 16 KiB of filters, half of an L1 cache.
const BLOCKS_AT_ONCE: usize = 16;

/// `m[tile][k] = sum over c of v[tile][c] u[c][k]` for one tile element and a range of panels of 16 filters.
pub(super) struct Product<'a> {
    /// One element of the tiles: `[groups][c / 16][rows][16]`.
    pub(super) v: &'a [f32],
    pub(super) v_layout: PackedTiles,
    pub(super) tiles: usize,
    pub(super) channels: usize,
    /// One element of the filters: `[k / 16][c][16]`.
    pub(super) u: &'a [f32],
    pub(super) panels: Range<usize>,
    /// All elements of the products, each `[groups][k / 16][rows][16]`.
    pub(super) m: &'a SharedMut<'a, f32>,
    pub(super) m_layout: PackedTiles,
    /// Start of this element in `m`.
    pub(super) m_start: usize,
}

/// Number of tiles that the kernel for vectors of `lanes` values multiplies at once.
pub(super) fn rows(lanes: usize) -> usize {
    if lanes == 16 { 12 } else { 6 }
}

impl VectorKernel for Product<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let rows = self.v_layout.rows;
        assert_eq!(rows, self::rows(V::LANES));
        let groups = self.tiles.div_ceil(rows);
        assert!(self.v.len() >= groups * self.v_layout.group_len());
        assert!(self.u.len() >= self.panels.end * self.channels * CHANNEL_BLOCK);
        for first in (0..self.v_layout.blocks).step_by(BLOCKS_AT_ONCE) {
            let blocks = BLOCKS_AT_ONCE.min(self.v_layout.blocks - first);
            let channels = (self.channels - first * CHANNEL_BLOCK).min(BLOCKS_AT_ONCE * CHANNEL_BLOCK);
            for panel in self.panels.clone() {
                let filters = &self.u[(panel * self.channels + first * CHANNEL_BLOCK) * CHANNEL_BLOCK..]
                    [..channels * CHANNEL_BLOCK];
                // Prefetch the next panel while this one is used, a part of it per group.
                let next = filters.as_ptr().wrapping_add(self.channels * CHANNEL_BLOCK);
                let lines = channels.div_ceil(groups);
                for group in 0..groups {
                    for line in group * lines..((group + 1) * lines).min(channels) {
                        prefetch(next.wrapping_add(line * CHANNEL_BLOCK));
                    }
                    let here = rows.min(self.tiles - group * rows);
                    let v = &self.v[group * self.v_layout.group_len() + first * rows * CHANNEL_BLOCK..];
                    let v = &v[..blocks * rows * CHANNEL_BLOCK];
                    let start = self.m_start + self.m_layout.at(group * rows, panel);
                    // SAFETY: tasks write different elements and panels; `v` and `filters` are cut to what is
                    // read.
                    unsafe {
                        let m = self.m.pointer(start, rows * CHANNEL_BLOCK);
                        some_rows::<V>(here, v.as_ptr(), channels, filters.as_ptr(), m, first > 0);
                    }
                }
            }
        }
    }
}

/// Selects the kernel for the number of tiles in a group.
///
/// # Safety
/// As [`kernel`], for a whole group.
#[inline(always)]
unsafe fn some_rows<V: Vector>(
    n: usize,
    v: *const f32,
    channels: usize,
    u: *const f32,
    m: *mut f32,
    add: bool,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        match (V::LANES, n) {
            (16, 9..) => kernel::<V, 12, 12, 1>(v, channels, u, m, add),
            (16, 5..) => kernel::<V, 12, 8, 1>(v, channels, u, m, add),
            (16, _) => kernel::<V, 12, 4, 1>(v, channels, u, m, add),
            (_, 1) => kernel::<V, 6, 1, 2>(v, channels, u, m, add),
            (_, 2) => kernel::<V, 6, 2, 2>(v, channels, u, m, add),
            (_, 3) => kernel::<V, 6, 3, 2>(v, channels, u, m, add),
            (_, 4) => kernel::<V, 6, 4, 2>(v, channels, u, m, add),
            (_, 5) => kernel::<V, 6, 5, 2>(v, channels, u, m, add),
            _ => kernel::<V, 6, 6, 2>(v, channels, u, m, add),
        }
    }
}

/// `m[i][0..16] (+)= sum over c of v[i][c] u[c][0..16]` for `ROWS` tiles of a group of `GROUP`. The sums stay
/// in registers, the 16 filters of a channel are read once, and each tile's value is broadcast to a vector.
///
/// # Safety
/// `v` must be readable for whole blocks `[c / 16][GROUP][16]`, `u` for `[channels][16]`, and `m` writable
/// for `[ROWS][16]`.
#[inline(always)]
unsafe fn kernel<V: Vector, const GROUP: usize, const ROWS: usize, const VECTORS: usize>(
    v: *const f32,
    channels: usize,
    u: *const f32,
    m: *mut f32,
    add: bool,
) {
    let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
    // SAFETY: all by the caller's promise.
    unsafe {
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(m.add(i * CHANNEL_BLOCK + j * V::LANES));
                }
            }
        }
        let (mut v, mut u) = (v, u);
        for _ in 0..channels / CHANNEL_BLOCK {
            for c in 0..CHANNEL_BLOCK {
                add_channel(&mut sums, v.add(c), u.add(c * CHANNEL_BLOCK));
            }
            v = v.add(GROUP * CHANNEL_BLOCK);
            u = u.add(CHANNEL_BLOCK * CHANNEL_BLOCK);
        }
        for c in 0..channels % CHANNEL_BLOCK {
            add_channel(&mut sums, v.add(c), u.add(c * CHANNEL_BLOCK));
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                sum.store(m.add(i * CHANNEL_BLOCK + j * V::LANES));
            }
        }
    }
}

/// Adds the products of one channel.
///
/// # Safety
/// `v` must be readable at every sixteenth of `ROWS` places, `u` for `VECTORS` vectors.
#[inline(always)]
unsafe fn add_channel<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; ROWS],
    v: *const f32,
    u: *const f32,
) {
    let mut filters = [V::splat(0.0); VECTORS];
    for (j, filter) in filters.iter_mut().enumerate() {
        // SAFETY: by the caller's promise.
        *filter = unsafe { V::load(u.add(j * V::LANES)) };
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: by the caller's promise.
        let value = V::splat(unsafe { *v.add(i * CHANNEL_BLOCK) });
        for (sum, filter) in sums.iter_mut().zip(filters) {
            *sum = value.mul_add(filter, *sum);
        }
    }
}
