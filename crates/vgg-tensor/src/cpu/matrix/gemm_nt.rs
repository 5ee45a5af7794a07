//! The kernel of [`super::gemm_nt`], `y = x w^T`: dot products, vectorised along the inner dimension.

use std::ops::Range;

use super::super::SharedMut;
use super::super::simd::{Vector, VectorKernel, prefetch};
use super::from_fn;

/// Block size of the inner dimension: six or eight rows of `x` stay in the L1 cache, and a task's columns of `w` stay
/// in the L2 cache while all rows use them.
const DEPTH_BLOCK: usize = 512;
/// Block size of the inner dimension for at most three rows: memory is the limit, and long runs are faster.
const LONG_DEPTH_BLOCK: usize = 8192;
/// Rows that share one pass over `w`.
pub(super) const ROW_BLOCK: usize = 48;

/// Rows of a register tile: 32 registers hold the sums of eight.
const fn rows_at_once(lanes: usize) -> usize {
    if lanes == 16 { MAX_ROWS } else { 6 }
}
const MAX_ROWS: usize = 8;

/// A range of columns of `x w^T`.
pub(super) struct GemmNt<'a> {
    pub(super) x: &'a [f32],
    pub(super) w: &'a [f32],
    pub(super) depth: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) range: Range<usize>,
    /// Partial sums: one vector for every row of a block and column of the range.
    pub(super) sums: &'a mut [f32],
    pub(super) y: &'a SharedMut<'a, f32>,
}

impl VectorKernel for GemmNt<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let whole = self.depth / V::LANES * V::LANES;
        for block in (0..self.rows).step_by(ROW_BLOCK) {
            let rows = block..(block + ROW_BLOCK).min(self.rows);
            let depth_block = if rows.len() <= 3 { LONG_DEPTH_BLOCK } else { DEPTH_BLOCK };
            for start in (0..whole.max(1)).step_by(depth_block) {
                let len = depth_block.min(whole - start);
                let at_once = rows_at_once(V::LANES);
                for row in rows.clone().step_by(at_once) {
                    let count = at_once.min(rows.end - row);
                    let fetch =
                        Share { index: (row - rows.start) / at_once, of: rows.len().div_ceil(at_once) };
                    self.row_group::<V>(block, row, count, (start, len), fetch);
                }
            }
            self.finish::<V>(rows, whole);
        }
    }
}

impl GemmNt<'_> {
    /// Computes all columns of the range for up to eight rows.
    #[inline(always)]
    fn row_group<V: Vector>(
        &mut self,
        block: usize,
        row: usize,
        count: usize,
        part: (usize, usize),
        fetch: Share,
    ) {
        // Few rows leave registers free for more columns.
        let at_once = if count <= 3 { 4 } else { 2 };
        // Rows of `x` may map to the same cache sets and evict each other; a packed copy does not.
        let (start, len) = part;
        let mut packed = [0.0f32; MAX_ROWS * DEPTH_BLOCK];
        let x = if len <= DEPTH_BLOCK {
            for (i, to) in packed.chunks_exact_mut(len.max(1)).take(count).enumerate() {
                to[..len].copy_from_slice(&self.x[(row + i) * self.depth + start..][..len]);
            }
            (packed.as_slice(), len)
        } else {
            (&self.x[row * self.depth + start..], self.depth)
        };
        for column in self.range.clone().step_by(at_once) {
            let columns = at_once.min(self.range.end - column);
            let place = Place { block, row, column, part, fetch, x };
            match (count, columns) {
                (1, 4) => self.dots::<V, 1, 4>(place),
                (2, 4) => self.dots::<V, 2, 4>(place),
                (3, 4) => self.dots::<V, 3, 4>(place),
                (4, 2) => self.dots::<V, 4, 2>(place),
                (5, 2) => self.dots::<V, 5, 2>(place),
                (6, 2) => self.dots::<V, 6, 2>(place),
                (7, 2) => self.dots::<V, 7, 2>(place),
                (8, 2) => self.dots::<V, 8, 2>(place),
                // Remainders: one element at a time.
                _ => {
                    for i in 0..count * columns {
                        let (row, column) = (row + i / columns, column + i % columns);
                        let x = (&x.0[i / columns * x.1..], x.1);
                        self.dots::<V, 1, 1>(Place { row, column, x, ..place });
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn dots<V: Vector, const R: usize, const C: usize>(&mut self, place: Place<'_>) {
        let Place { block, row, column, part: (start, len), fetch, x: (x, pitch) } = place;
        let x: [*const f32; R] = from_fn(|i| x[i * pitch..][..len].as_ptr());
        let w: [*const f32; C] = from_fn(|j| self.w[(column + j) * self.depth + start..][..len].as_ptr());
        let width = self.range.len() * V::LANES;
        let at = (row - block) * width + (column - self.range.start) * V::LANES;
        let kept = self.sums[at..][..(R - 1) * width + C * V::LANES].as_mut_ptr();
        // Without a share, this prefetches what is in cache anyway.
        let ahead: [usize; C] =
            from_fn(|j| if R > 3 && j % fetch.of == fetch.index { DEPTH_BLOCK } else { 0 });
        let mut sums = [[V::splat(0.0); C]; R];
        // SAFETY: `x` and `w` hold `len` values, `kept` a vector for each row and column.
        unsafe {
            if start > 0 {
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = V::load(kept.add(i * width + j * V::LANES));
                    }
                }
            }
            for at in (0..len).step_by(V::LANES) {
                for (w, ahead) in w.into_iter().zip(ahead) {
                    prefetch(w.wrapping_add(at + ahead));
                }
                let mut values = [V::splat(0.0); C];
                for (value, w) in values.iter_mut().zip(w) {
                    *value = V::load(w.add(at));
                }
                for (sums, x) in sums.iter_mut().zip(x) {
                    let x = V::load(x.add(at));
                    for (sum, w) in sums.iter_mut().zip(values) {
                        *sum = x.mul_add(w, *sum);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    sum.store(kept.add(i * width + j * V::LANES));
                }
            }
        }
    }

    /// Sums the lanes and adds the tail of the inner dimension that does not fill a vector.
    #[inline(always)]
    fn finish<V: Vector>(&self, rows: Range<usize>, whole: usize) {
        for (i, row) in rows.enumerate() {
            // SAFETY: only this task touches these columns.
            let y = unsafe { self.y.slice(row * self.columns + self.range.start, self.range.len()) };
            let kept = &self.sums[i * y.len() * V::LANES..][..y.len() * V::LANES];
            let x = &self.x[row * self.depth + whole..(row + 1) * self.depth];
            for ((y, kept), column) in y.iter_mut().zip(kept.chunks_exact(V::LANES)).zip(self.range.clone()) {
                let w = &self.w[column * self.depth + whole..(column + 1) * self.depth];
                let rest: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                // SAFETY: the chunk has the length of a vector.
                *y = unsafe { V::load(kept.as_ptr()) }.sum() + rest;
            }
        }
    }
}

/// The columns of the next block of the inner dimension that a tile of rows prefetches: those of index `index` modulo
/// `of`. The tiles share the work, so that memory is busy while all of them multiply.
#[derive(Clone, Copy)]
struct Share {
    index: usize,
    of: usize,
}

/// Position of a tile: the block's first row, the tile's first row and column, start and length of the block
/// of the inner dimension, what to prefetch, and the rows of `x` there with their pitch.
#[derive(Clone, Copy)]
struct Place<'a> {
    x: (&'a [f32], usize),
    block: usize,
    row: usize,
    column: usize,
    part: (usize, usize),
    fetch: Share,
}
