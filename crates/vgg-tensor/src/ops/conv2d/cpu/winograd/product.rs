//! Matrix products of transformed tiles with transformed filters, one per tile element.

use std::ops::Range;

use super::tiles::{CHANNEL_BLOCK, PackedTiles};
use crate::cpu::{SharedMut, Vector, VectorKernel, prefetch};

/// Filters whose products are summed together. With vectors of 16 lanes, two panels of filters share each value of the
/// tiles that is loaded, because loads would limit the speed with one.
const fn panels_at_once(lanes: usize) -> usize {
    if lanes == 16 { 2 } else { 1 }
}

/// Channel blocks that are summed before the next filters: 16 KiB of filters, half of an L1 cache.
const fn blocks_at_once(lanes: usize) -> usize {
    16 / panels_at_once(lanes)
}

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
        let at_once = blocks_at_once(V::LANES);
        for first in (0..self.v_layout.blocks).step_by(at_once) {
            let blocks = at_once.min(self.v_layout.blocks - first);
            let channels = (self.channels - first * CHANNEL_BLOCK).min(at_once * CHANNEL_BLOCK);
            for panel in self.panels.clone().step_by(panels_at_once(V::LANES)) {
                let panels = panels_at_once(V::LANES).min(self.panels.end - panel);
                self.panels::<V>(panel, panels, first..first + blocks, channels);
            }
        }
    }
}

impl Product<'_> {
    /// Adds the products of some channel blocks to the sums of one or two panels.
    #[inline(always)]
    fn panels<V: Vector>(&self, panel: usize, panels: usize, blocks: Range<usize>, channels: usize) {
        let rows = self.v_layout.rows;
        let groups = self.tiles.div_ceil(rows);
        let panel_len = self.channels * CHANNEL_BLOCK;
        let filters = &self.u[panel * panel_len + blocks.start * CHANNEL_BLOCK * CHANNEL_BLOCK..];
        let filters = &filters[..(panels - 1) * panel_len + channels * CHANNEL_BLOCK];
        let m_panel = self.m_layout.at(0, panel + 1) - self.m_layout.at(0, panel);
        let next_filters = self.after(panel + panels, &blocks);
        for group in 0..groups {
            let here = rows.min(self.tiles - group * rows);
            let v = &self.v[group * self.v_layout.group_len() + blocks.start * rows * CHANNEL_BLOCK..];
            let next = Next {
                filters: next_filters.wrapping_add(group % panels * panel_len),
                tiles: v.as_ptr().wrapping_add(self.v_layout.group_len()),
            };
            let v = &v[..blocks.len() * rows * CHANNEL_BLOCK];
            let start = self.m_start + self.m_layout.at(group * rows, panel);
            // SAFETY: tasks write different elements and panels; `v` and `filters` are cut to what is read.
            unsafe {
                let m = self.m.pointer(start, (panels - 1) * m_panel + rows * CHANNEL_BLOCK);
                let sums = Sums { m, panel: m_panel, add: blocks.start > 0 };
                let filters = Filters { u: filters.as_ptr(), panel: panel_len, channels };
                some_rows::<V>(here, panels, v.as_ptr(), filters, sums, next);
            }
        }
    }

    /// Start of the filters that are used when the panels before `panel` are done: a neighbouring panel, the first
    /// panel of the next channel blocks, or the next element.
    #[inline(always)]
    fn after(&self, panel: usize, blocks: &Range<usize>) -> *const f32 {
        let (panel, block) = match () {
            () if panel < self.panels.end => (panel, blocks.start),
            () if blocks.end < self.v_layout.blocks => (self.panels.start, blocks.end),
            () => (self.m_layout.blocks, 0),
        };
        self.u.as_ptr().wrapping_add((panel * self.channels + block * CHANNEL_BLOCK) * CHANNEL_BLOCK)
    }
}

/// What the next call of the kernel reads. Each step of a kernel prefetches one cache line of both, because many
/// prefetches in a row occupy all the buffers for lines under way, and loads wait.
#[derive(Clone, Copy)]
struct Next {
    filters: *const f32,
    tiles: *const f32,
}

/// Filters of some channels, `[channels][16]` in each panel.
#[derive(Clone, Copy)]
struct Filters {
    u: *const f32,
    /// Values from one panel to the next.
    panel: usize,
    channels: usize,
}

/// Sums of a group of tiles, `[tiles][16]` in each panel.
#[derive(Clone, Copy)]
struct Sums {
    m: *mut f32,
    /// Values from one panel to the next.
    panel: usize,
    /// Whether to add to the values that are there.
    add: bool,
}

/// Selects the kernel for the number of tiles in a group and of panels.
///
/// # Safety
/// As [`kernel`], for a whole group.
#[inline(always)]
unsafe fn some_rows<V: Vector>(
    n: usize,
    panels: usize,
    v: *const f32,
    filters: Filters,
    sums: Sums,
    next: Next,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        match (V::LANES, n, panels) {
            (16, 9.., 2) => kernel::<V, 12, 12, 2>(v, filters, sums, next),
            (16, 5.., 2) => kernel::<V, 12, 8, 2>(v, filters, sums, next),
            (16, _, 2) => kernel::<V, 12, 4, 2>(v, filters, sums, next),
            (16, 9.., _) => kernel::<V, 12, 12, 1>(v, filters, sums, next),
            (16, 5.., _) => kernel::<V, 12, 8, 1>(v, filters, sums, next),
            (16, ..) => kernel::<V, 12, 4, 1>(v, filters, sums, next),
            (_, 1, _) => kernel::<V, 6, 1, 2>(v, filters, sums, next),
            (_, 2, _) => kernel::<V, 6, 2, 2>(v, filters, sums, next),
            (_, 3, _) => kernel::<V, 6, 3, 2>(v, filters, sums, next),
            (_, 4, _) => kernel::<V, 6, 4, 2>(v, filters, sums, next),
            (_, 5, _) => kernel::<V, 6, 5, 2>(v, filters, sums, next),
            _ => kernel::<V, 6, 6, 2>(v, filters, sums, next),
        }
    }
}

/// Where vector `j` of the filters starts, if panels are `panel` values apart.
#[inline(always)]
fn vector_at<V: Vector>(j: usize, panel: usize) -> usize {
    let place = j * V::LANES;
    place / CHANNEL_BLOCK * panel + place % CHANNEL_BLOCK
}

/// `m[i][..] (+)= sum over c of v[i][c] u[c][..]` for `ROWS` tiles of a group of `GROUP`, and `VECTORS` vectors of
/// filters. The sums stay in registers, the filters of a channel are read once, and each tile's value is broadcast to a
/// vector.
///
/// # Safety
/// `v` must be readable for whole blocks `[c / 16][GROUP][16]`, `u` for `[channels][16]` in each panel, and `m`
/// writable for `[ROWS][16]` in each panel.
#[inline(always)]
unsafe fn kernel<V: Vector, const GROUP: usize, const ROWS: usize, const VECTORS: usize>(
    v: *const f32,
    filters: Filters,
    to: Sums,
    mut next: Next,
) {
    let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
    // SAFETY: all by the caller's promise.
    unsafe {
        if to.add {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(to.m.add(i * CHANNEL_BLOCK + vector_at::<V>(j, to.panel)));
                }
            }
        }
        let (mut v, mut u) = (v, filters.u);
        for _ in 0..filters.channels / CHANNEL_BLOCK {
            for c in 0..CHANNEL_BLOCK {
                prefetch(next.filters.wrapping_add(c * CHANNEL_BLOCK));
                prefetch(next.tiles.wrapping_add(c * CHANNEL_BLOCK));
                add_channel(&mut sums, v.add(c), u.add(c * CHANNEL_BLOCK), filters.panel);
            }
            v = v.add(GROUP * CHANNEL_BLOCK);
            u = u.add(CHANNEL_BLOCK * CHANNEL_BLOCK);
            next.filters = next.filters.wrapping_add(CHANNEL_BLOCK * CHANNEL_BLOCK);
            next.tiles = next.tiles.wrapping_add(CHANNEL_BLOCK * CHANNEL_BLOCK);
        }
        for c in 0..filters.channels % CHANNEL_BLOCK {
            add_channel(&mut sums, v.add(c), u.add(c * CHANNEL_BLOCK), filters.panel);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                sum.store(to.m.add(i * CHANNEL_BLOCK + vector_at::<V>(j, to.panel)));
            }
        }
    }
}

/// Adds the products of one channel.
///
/// # Safety
/// `v` must be readable at every sixteenth of `ROWS` places, `u` for `VECTORS` vectors in panels `panel` values apart.
#[inline(always)]
unsafe fn add_channel<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; ROWS],
    v: *const f32,
    u: *const f32,
    panel: usize,
) {
    let mut filters = [V::splat(0.0); VECTORS];
    for (j, filter) in filters.iter_mut().enumerate() {
        // SAFETY: by the caller's promise.
        *filter = unsafe { V::load(u.add(vector_at::<V>(j, panel))) };
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: by the caller's promise.
        let value = V::splat(unsafe { *v.add(i * CHANNEL_BLOCK) });
        for (sum, filter) in sums.iter_mut().zip(filters) {
            *sum = value.mul_add(filter, *sum);
        }
    }
}
