//! The kernel of [`super::gemm_tn`], `y = x^T w`: sums of outer products, the grad-weight of linear layers.

use super::super::FiniteFlag;
use super::super::simd::{Vector, VectorKernel};
use super::ROWS;

/// Rows per task of [`super::gemm_tn`]; they share the columns of `w` in cache.
pub(super) const TN_ROWS: usize = 8 * ROWS;
/// Columns of `w` that stay in cache while a task's rows use them.
const OUTER_COLUMNS: usize = 512;

/// A range of rows of `x^T w`.
pub(super) struct GemmTn<'a> {
    pub(super) x: &'a [f32],
    pub(super) w: &'a [f32],
    pub(super) depth: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) first: usize,
    pub(super) y: &'a mut [f32],
    pub(super) add: bool,
    pub(super) finite: &'a FiniteFlag,
}

impl VectorKernel for GemmTn<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let whole = self.columns / (2 * V::LANES) * (2 * V::LANES);
        let count = self.y.len() / self.columns;
        let mut bad = [V::splat(0.0); 2];
        for block in (0..whole).step_by(OUTER_COLUMNS) {
            for row in (0..count).step_by(ROWS) {
                for column in (block..whole.min(block + OUTER_COLUMNS)).step_by(2 * V::LANES) {
                    match ROWS.min(count - row) {
                        6 => self.tile::<V, 6>(row, column, &mut bad),
                        4 => self.tile::<V, 4>(row, column, &mut bad),
                        rest => {
                            for i in row..row + rest {
                                self.tile::<V, 1>(i, column, &mut bad);
                            }
                        }
                    }
                }
            }
        }
        for i in 0..count {
            for column in whole..self.columns {
                let product =
                    |d: usize| self.x[d * self.rows + self.first + i] * self.w[d * self.columns + column];
                let sum: f32 = (0..self.depth).map(product).sum();
                let y = &mut self.y[i * self.columns + column];
                *y = if self.add { *y + sum } else { sum };
            }
            self.finite.check(&self.y[i * self.columns + whole..(i + 1) * self.columns]);
        }
        self.finite.check(&[bad[0].sum(), bad[1].sum()]);
    }
}

impl GemmTn<'_> {
    #[inline(always)]
    fn tile<V: Vector, const R: usize>(&mut self, i: usize, column: usize, bad: &mut [V; 2]) {
        let mut sums = [[V::splat(0.0); 2]; R];
        let last = self.depth - 1;
        let mut x = self.x[self.first + i..][..last * self.rows + R].as_ptr();
        let mut w = self.w[column..][..last * self.columns + 2 * V::LANES].as_ptr();
        for _ in 0..self.depth {
            // SAFETY: the slices above include the last values that are read.
            unsafe {
                let w = [V::load(w), V::load(w.add(V::LANES))];
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = V::splat(*x.add(r));
                    *sum = [x.mul_add(w[0], sum[0]), x.mul_add(w[1], sum[1])];
                }
            }
            x = x.wrapping_add(self.rows);
            w = w.wrapping_add(self.columns);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let y = &mut self.y[(i + r) * self.columns + column..][..2 * V::LANES];
            for (j, sum) in sums.into_iter().enumerate() {
                // SAFETY: `y` holds two vectors.
                unsafe {
                    let y = y.as_mut_ptr().add(j * V::LANES);
                    let sum = if self.add { V::load(y).add(sum) } else { sum };
                    sum.store(y);
                    // Adds 0 for finite values, NaN for others.
                    bad[j] = sum.mul_add(V::splat(0.0), bad[j]);
                }
            }
        }
    }
}
