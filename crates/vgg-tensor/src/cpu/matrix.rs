//! Matrix products of fully connected layers: few rows against a matrix of up to 400 MB, which is read where it lies,
//! once, in long runs. A packed copy would cost more than the product.
//!
//! Sums are taken in an order that depends on sizes and the length of vectors alone.

use std::ops::Range;

use super::simd::{Vector, VectorKernel, prefetch};
use super::{Cpu, SharedMut};
use crate::{StepState, Write};

/// Values of the inner dimension that are summed before the next rows; with [`ROW_BLOCK`] rows they stay in a
/// second-level cache.
const STRETCH: usize = 2048;
/// Rows of the small matrix that share one reading of the large one.
const ROW_BLOCK: usize = 48;
/// Rows that a kernel handles at once.
const ROWS: usize = 6;
/// Rows of the large matrix that [`product`] adds at a time.
const DEPTH: usize = 64;

/// Rows of a task of [`outer_products`], which share what is in cache of `w`.
const OUTER_ROWS: usize = 8 * ROWS;
/// Columns of `w` that stay in cache meanwhile.
const OUTER_COLUMNS: usize = 512;

/// `y [rows, columns] = x [rows, depth] w^T`, with `w [columns, depth]`: both run along the inner dimension.
pub(crate) fn product_transposed(cpu: Cpu, x: &[f32], w: &[f32], depth: usize, y: &mut [f32]) {
    let (rows, columns) = (x.len() / depth, w.len() / depth);
    assert_eq!(y.len(), rows * columns);
    let y = SharedMut::new(y);
    let per_task = piece(columns, 4);
    cpu.for_each(columns.div_ceil(per_task), |task| {
        let range = task * per_task..((task + 1) * per_task).min(columns);
        cpu.isa.run_wide(Dots { x, w, depth, rows, columns, range, y: &y });
    });
}

/// `y [rows, columns] = x [rows, depth] w`, with `w [depth, columns]`.
pub(crate) fn product(cpu: Cpu, x: &[f32], w: &[f32], depth: usize, y: &mut [f32]) {
    let (rows, columns) = (x.len() / depth, w.len() / depth);
    assert_eq!(y.len(), rows * columns);
    let y = SharedMut::new(y);
    let per_task = piece(columns, 32);
    cpu.for_each(columns.div_ceil(per_task), |task| {
        let range = task * per_task..((task + 1) * per_task).min(columns);
        cpu.isa.run(Sums { x, w, depth, rows, columns, range, y: &y });
    });
}

/// `y [rows, columns] = x^T w` or adds it, with `x [depth, rows]` and `w [depth, columns]`; a value that is not finite
/// clears the flag of `state`.
pub(crate) fn outer_products(
    cpu: Cpu,
    x: &[f32],
    w: &[f32],
    depth: usize,
    y: &mut [f32],
    write: Write,
    state: &StepState,
) {
    let (rows, columns) = (x.len() / depth, w.len() / depth);
    assert_eq!(y.len(), rows * columns);
    cpu.for_each_chunk(y, OUTER_ROWS * columns, |task, y| {
        let (first, add) = (task * OUTER_ROWS, write == Write::Accumulate);
        cpu.isa.run(Outer { x, w, depth, rows, columns, first, y, add, state });
    });
}

/// Columns of a task: some dozens of tasks, each of a multiple of `of` columns.
fn piece(columns: usize, of: usize) -> usize {
    columns.div_ceil(48).next_multiple_of(of)
}

/// Some columns of a product with a transposed matrix, as dot products.
struct Dots<'a> {
    x: &'a [f32],
    w: &'a [f32],
    depth: usize,
    rows: usize,
    columns: usize,
    range: Range<usize>,
    y: &'a SharedMut<'a, f32>,
}

impl VectorKernel for Dots<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for block in (0..self.rows).step_by(ROW_BLOCK) {
            let rows = block..(block + ROW_BLOCK).min(self.rows);
            for start in (0..self.depth).step_by(STRETCH) {
                let len = STRETCH.min(self.depth - start);
                // Few rows do not fill the registers: take more columns.
                let at_once = if rows.len() <= 3 { 4 } else { 2 };
                for column in self.range.clone().step_by(at_once) {
                    let columns = at_once.min(self.range.end - column);
                    for row in rows.clone().step_by(ROWS) {
                        let count = ROWS.min(rows.end - row);
                        // The last rows do not wait for memory: meanwhile the next columns are fetched.
                        let fetch = row > rows.start && row + ROWS >= rows.end;
                        let place = Place { row, column, start, len, fetch };
                        match (count, columns) {
                            (1, 4) => self.dots::<V, 1, 4>(place),
                            (2, 4) => self.dots::<V, 2, 4>(place),
                            (3, 4) => self.dots::<V, 3, 4>(place),
                            (4, 2) => self.dots::<V, 4, 2>(place),
                            (5, 2) => self.dots::<V, 5, 2>(place),
                            (6, 2) => self.dots::<V, 6, 2>(place),
                            // At the edges one by one.
                            _ => (0..count * columns).for_each(|i| {
                                let (row, column) = (row + i / columns, column + i % columns);
                                self.dots::<V, 1, 1>(Place { row, column, ..place });
                            }),
                        }
                    }
                }
            }
        }
    }
}

/// Where a kernel works: first row and column, and a stretch of the inner dimension.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    column: usize,
    start: usize,
    len: usize,
    fetch: bool,
}

impl Dots<'_> {
    #[inline(always)]
    fn dots<V: Vector, const R: usize, const C: usize>(&self, place: Place) {
        let Place { row, column, start, len, fetch } = place;
        let x: [&[f32]; R] = from_fn(|i| &self.x[(row + i) * self.depth + start..][..len]);
        let w: [&[f32]; C] = from_fn(|j| &self.w[(column + j) * self.depth + start..][..len]);
        let mut sums = [[V::splat(0.0); C]; R];
        let whole = len / V::LANES * V::LANES;
        for at in (0..whole).step_by(V::LANES) {
            if fetch {
                for w in &w {
                    prefetch(w.as_ptr().wrapping_add(C * self.depth + at));
                }
            }
            // SAFETY: every slice holds a vector at `at`.
            let w: [V; C] = from_fn(|j| unsafe { V::load(w[j].as_ptr().add(at)) });
            for (sums, x) in sums.iter_mut().zip(&x) {
                // SAFETY: as above.
                let x = unsafe { V::load(x.as_ptr().add(at)) };
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = x.mul_add(w, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let rest: f32 = x[i][whole..].iter().zip(&w[j][whole..]).map(|(x, w)| x * w).sum();
                // SAFETY: only this task touches this column.
                let y = unsafe { self.y.slice((row + i) * self.columns + column + j, 1) };
                let before = if start == 0 { 0.0 } else { y[0] };
                y[0] = before + (sum.sum() + rest);
            }
        }
    }
}

/// An array built by a loop, which unlike [`std::array::from_fn`] is compiled with the caller's instruction set.
#[inline(always)]
fn from_fn<T: Copy, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut array = [f(0); N];
    for (i, place) in array.iter_mut().enumerate().skip(1) {
        *place = f(i);
    }
    array
}

/// Some columns of a product, as sums of the large matrix's rows.
struct Sums<'a> {
    x: &'a [f32],
    w: &'a [f32],
    depth: usize,
    rows: usize,
    columns: usize,
    range: Range<usize>,
    y: &'a SharedMut<'a, f32>,
}

impl VectorKernel for Sums<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for start in (0..self.depth).step_by(DEPTH) {
            let depth = start..(start + DEPTH).min(self.depth);
            for column in self.range.clone().step_by(2 * V::LANES) {
                let width = (2 * V::LANES).min(self.range.end - column);
                for row in (0..self.rows).step_by(ROWS) {
                    // Only the first rows wait for memory.
                    let fetch = row == 0;
                    match (ROWS.min(self.rows - row), width == 2 * V::LANES) {
                        (6, true) => self.sums::<V, 6>(row, column, depth.clone(), fetch),
                        (4, true) => self.sums::<V, 4>(row, column, depth.clone(), fetch),
                        (2, true) => self.sums::<V, 2>(row, column, depth.clone(), fetch),
                        (count, true) => {
                            (row..row + count)
                                .for_each(|r| self.sums::<V, 1>(r, column, depth.clone(), fetch));
                        }
                        (count, false) => self.edge(row..row + count, column..column + width, depth.clone()),
                    }
                }
            }
        }
    }
}

impl Sums<'_> {
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
            let last = &self.w[(depth.end - 1) * self.columns + column..][..2 * V::LANES];
            let mut next = last.as_ptr().sub((depth.len() - 1) * self.columns);
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

    /// Columns that do not fill two vectors.
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

/// Some rows of a sum of outer products.
struct Outer<'a> {
    x: &'a [f32],
    w: &'a [f32],
    depth: usize,
    rows: usize,
    columns: usize,
    first: usize,
    y: &'a mut [f32],
    add: bool,
    state: &'a StepState,
}

impl VectorKernel for Outer<'_> {
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
                        rest => (row..row + rest).for_each(|i| self.tile::<V, 1>(i, column, &mut bad)),
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
            self.state.check(&self.y[i * self.columns + whole..(i + 1) * self.columns]);
        }
        self.state.check(&[bad[0].sum(), bad[1].sum()]);
    }
}

impl Outer<'_> {
    #[inline(always)]
    fn tile<V: Vector, const R: usize>(&mut self, i: usize, column: usize, bad: &mut [V; 2]) {
        let mut sums = [[V::splat(0.0); 2]; R];
        let last = self.depth - 1;
        let mut x = self.x[self.first + i..][..last * self.rows + R].as_ptr();
        let mut w = self.w[column..][..last * self.columns + 2 * V::LANES].as_ptr();
        for _ in 0..self.depth {
            // SAFETY: the slices above end with what is read last.
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
                    // 0 for finite values, NaN for others.
                    bad[j] = sum.mul_add(V::splat(0.0), bad[j]);
                }
            }
        }
    }
}
