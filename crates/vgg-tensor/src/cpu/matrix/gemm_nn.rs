//! The kernel of [`super::gemm_nn`], `y = x w`: sums of scaled rows of `w`.

use std::ops::Range;

use super::super::SharedMut;
use super::super::simd::{Vector, VectorKernel, prefetch};
use super::{ROWS, from_fn};

/// Block size of the inner dimension: rows of `w` per pass.
const DEPTH: usize = 64;

/// A range of columns of `x w`.
pub(super) struct GemmNn<'a> {
    pub(super) x: &'a [f32],
    pub(super) w: &'a [f32],
    pub(super) depth: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) range: Range<usize>,
    pub(super) y: &'a SharedMut<'a, f32>,
}

impl VectorKernel for GemmNn<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for start in (0..self.depth).step_by(DEPTH) {
            let depth = start..(start + DEPTH).min(self.depth);
            for column in self.range.clone().step_by(2 * V::LANES) {
                let width = (2 * V::LANES).min(self.range.end - column);
                for row in (0..self.rows).step_by(ROWS) {
                    // Only the first tile of rows reads `w` from memory; the others find it in cache.
                    let fetch = row == 0;
                    match (ROWS.min(self.rows - row), width == 2 * V::LANES) {
                        (6, true) => self.sums::<V, 6>(row, column, depth.clone(), fetch),
                        (4, true) => self.sums::<V, 4>(row, column, depth.clone(), fetch),
                        (2, true) => self.sums::<V, 2>(row, column, depth.clone(), fetch),
                        (count, true) => {
                            for r in row..row + count {
                                self.sums::<V, 1>(r, column, depth.clone(), fetch);
                            }
                        }
                        (count, false) => self.edge(row..row + count, column..column + width, depth.clone()),
                    }
                }
            }
        }
    }
}

impl GemmNn<'_> {
    #[inline(always)]
    fn sums<V: Vector, const R: usize>(&self, row: usize, column: usize, depth: Range<usize>, fetch: bool) {
        let x: [*const f32; R] = from_fn(|i| self.x[(row + i) * self.depth..][..self.depth].as_ptr());
        // SAFETY: only this task touches these columns.
        let y: [*mut f32; R] =
            from_fn(|i| unsafe { self.y.pointer((row + i) * self.columns + column, 2 * V::LANES) });
        let mut sums = [[V::splat(0.0); 2]; R];
        // SAFETY: `x` holds all of the depth, `y` two vectors, and each row of `w` two vectors at `column`.
        unsafe {
            if depth.start > 0 {
                for (sum, y) in sums.iter_mut().zip(y) {
                    *sum = [V::load(y), V::load(y.add(V::LANES))];
                }
            }
            let rows = &self.w[depth.start * self.columns + column..];
            let mut next = rows[..(depth.len() - 1) * self.columns + 2 * V::LANES].as_ptr();
            for at in depth {
                let w = next;
                next = next.wrapping_add(self.columns);
                if fetch {
                    prefetch(w.wrapping_add(6 * V::LANES));
                }
                let w = [V::load(w), V::load(w.add(V::LANES))];
                for (sum, x) in sums.iter_mut().zip(x) {
                    let x = V::splat(*x.add(at));
                    *sum = [x.mul_add(w[0], sum[0]), x.mul_add(w[1], sum[1])];
                }
            }
            for (sum, y) in sums.iter().zip(y) {
                sum[0].store(y);
                sum[1].store(y.add(V::LANES));
            }
        }
    }

    /// Computes columns that do not fill two vectors.
    fn edge(&self, rows: Range<usize>, columns: Range<usize>, depth: Range<usize>) {
        for row in rows {
            for column in columns.clone() {
                // SAFETY: only this task touches this column.
                let y = unsafe { self.y.slice(row * self.columns + column, 1) };
                let mut sum = if depth.start == 0 { 0.0 } else { y[0] };
                for at in depth.clone() {
                    sum += self.x[row * self.depth + at] * self.w[at * self.columns + column];
                }
                y[0] = sum;
            }
        }
    }
}
