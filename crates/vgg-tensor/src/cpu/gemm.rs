//! Matrix products by the `gemm` crate, cut into pieces by shape so that the number of threads decides no bit.

use gemm::Parallelism;

use super::{Cpu, SharedMut};

/// Pieces of the output that one product is cut into, at most.
const PIECES: usize = 16;

/// A matrix in memory: element `(i, j)` is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns);
        Matrix { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The transposed matrix, same memory.
    pub(crate) fn t(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A row-major matrix to write.
pub(crate) struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
}

impl<'a> MatrixMut<'a> {
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns);
        MatrixMut { data, rows, columns }
    }
}

/// `c = a b` or `c += a b`, each task making some of the columns of `c`.
pub(crate) fn gemm_by_columns(cpu: Cpu, a: Matrix, b: Matrix, c: &mut MatrixMut, accumulate: bool) {
    assert_eq!((a.rows, a.columns, b.columns), (c.rows, b.rows, c.columns));
    let (rows, columns) = (c.rows, c.columns);
    let per_task = piece(columns);
    let out = SharedMut::new(c.data);
    cpu.for_each(columns.div_ceil(per_task), |task| {
        let first = task * per_task;
        let n = per_task.min(columns - first);
        // SAFETY: the pieces of different tasks are disjoint columns of `c`, and only the call below writes them.
        let c = unsafe { out.pointer(first, (rows - 1) * columns + n) };
        let b = Matrix { data: &b.data[first * b.column_stride..], columns: n, ..b };
        // SAFETY: `c` points at `rows` rows of `n` columns with a pitch of `columns`.
        unsafe { product(a, b, c, columns, accumulate) };
    });
}

/// `c = a b` or `c += a b`, each task making some of the rows of `c`, then seeing them once.
pub(crate) fn gemm_by_rows(
    cpu: Cpu,
    a: Matrix,
    b: Matrix,
    c: &mut MatrixMut,
    accumulate: bool,
    done: impl Fn(&[f32]) + Sync + Send,
) {
    assert_eq!((a.rows, a.columns, b.columns), (c.rows, b.rows, c.columns));
    let (rows, columns) = (c.rows, c.columns);
    let per_task = piece(rows);
    cpu.for_each_chunk(&mut c.data[..rows * columns], per_task * columns, |task, chunk| {
        let first = task * per_task;
        let a = Matrix { data: &a.data[first * a.row_stride..], rows: chunk.len() / columns, ..a };
        // SAFETY: `chunk` holds exactly these rows.
        unsafe { product(a, b, chunk.as_mut_ptr(), columns, accumulate) };
        done(chunk);
    });
}

/// Rows or columns in a piece: a multiple of 16, by size alone.
fn piece(n: usize) -> usize {
    n.div_ceil(PIECES).next_multiple_of(16)
}

/// One product on the calling thread.
///
/// # Safety
/// `c` must be writable at `i * pitch + j` for every row `i` of `a` and column `j` of `b`.
unsafe fn product(a: Matrix, b: Matrix, c: *mut f32, pitch: usize, accumulate: bool) {
    // SAFETY: strides and sizes of `a` and `b` lie within their slices by construction, `c` by the caller's promise.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            c,
            1,
            pitch as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
