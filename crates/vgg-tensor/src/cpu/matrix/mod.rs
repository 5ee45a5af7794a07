//! Matrix products (GEMM) of fully connected layers: a few rows times a weight matrix of up to 400 MB.
//!
//! The weight matrix is read in place, once, in long contiguous runs; packing it would cost more than the
//! product. The order of summation depends only on the sizes and the vector length.

mod gemm_nn;
mod gemm_nt;
mod gemm_tn;

use self::gemm_nn::GemmNn;
use self::gemm_nt::{GemmNt, ROW_BLOCK};
use self::gemm_tn::{GemmTn, TN_ROWS};
use super::{Cpu, FiniteFlag, SharedMut};
use crate::GradMode;

/// Rows of a register tile.
const ROWS: usize = 6;

/// `y [rows, columns] = x [rows, depth] w^T`, with `w [columns, depth]`: both are contiguous along `depth`.
pub(crate) fn gemm_nt(cpu: Cpu, x: &[f32], w: &[f32], depth: usize, y: &mut [f32]) {
    let (rows, columns) = (x.len() / depth, w.len() / depth);
    assert_eq!(y.len(), rows * columns);
    let y = SharedMut::new(y);
    let per_task = piece(columns, 4);
    let scratch = ROW_BLOCK.min(rows) * per_task * cpu.isa.wide_lanes();
    cpu.for_each_with_scratch(columns.div_ceil(per_task), scratch, |task, sums| {
        let range = task * per_task..((task + 1) * per_task).min(columns);
        cpu.isa.run_wide(GemmNt { x, w, depth, rows, columns, range, sums, y: &y });
    });
}

/// `y [rows, columns] = x [rows, depth] w`, with `w [depth, columns]`.
pub(crate) fn gemm_nn(cpu: Cpu, x: &[f32], w: &[f32], depth: usize, y: &mut [f32]) {
    let (rows, columns) = (x.len() / depth, w.len() / depth);
    assert_eq!(y.len(), rows * columns);
    let y = SharedMut::new(y);
    let per_task = piece(columns, 32);
    cpu.for_each(columns.div_ceil(per_task), |task| {
        let range = task * per_task..((task + 1) * per_task).min(columns);
        cpu.isa.run_wide(GemmNn { x, w, depth, rows, columns, range, y: &y });
    });
}

/// `y [rows, columns] = x^T w`, or `y += x^T w` if `mode` accumulates, with `x [depth, rows]` and
/// `w [depth, columns]`. A non-finite value of `y` clears `finite`.
pub(crate) fn gemm_tn(
    cpu: Cpu,
    x: &[f32],
    w: &[f32],
    depth: usize,
    y: &mut [f32],
    mode: GradMode,
    finite: &FiniteFlag,
) {
    let (rows, columns) = (x.len() / depth, w.len() / depth);
    assert_eq!(y.len(), rows * columns);
    cpu.for_each_chunk(y, TN_ROWS * columns, |task, y| {
        let (first, add) = (task * TN_ROWS, mode == GradMode::Accumulate);
        cpu.isa.run_wide(GemmTn { x, w, depth, rows, columns, first, y, add, finite });
    });
}

/// Columns per task: at most 48 tasks, each with a multiple of `of` columns.
fn piece(columns: usize, of: usize) -> usize {
    columns.div_ceil(48).next_multiple_of(of)
}

/// Builds an array; unlike [`std::array::from_fn`], the loop is compiled with the caller's instruction set.
#[inline(always)]
fn from_fn<T: Copy, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut array = [f(0); N];
    for (i, place) in array.iter_mut().enumerate().skip(1) {
        *place = f(i);
    }
    array
}
