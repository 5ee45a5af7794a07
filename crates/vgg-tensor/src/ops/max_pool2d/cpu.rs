//! Max-pooling on the CPU, one row of windows at a time.

use crate::Shape;
use crate::cpu::{Cpu, SharedMut, Vector, VectorKernel};

pub(in crate::ops) fn forward(
    cpu: Cpu,
    input: Shape,
    output: Shape,
    x: &[f32],
    y: &mut [f32],
    index: Option<&mut [u8]>,
) {
    let rows = Rows::new(input, output);
    let index = index.map(SharedMut::new);
    cpu.for_each_chunk(y, rows.out_len(), |row, y| {
        // SAFETY: each row of windows has index bytes of its own.
        let index = index.as_ref().map(|all| unsafe { all.slice(row * rows.out_len(), rows.out_len()) });
        cpu.isa.run_wide(PoolRow { rows, row, x, y, index });
    });
}

pub(super) fn backward(cpu: Cpu, input: Shape, output: Shape, dy: &[f32], index: &[u8], dx: &mut [f32]) {
    let rows = Rows::new(input, output);
    let per_image = input.numel_per_sample();
    // One task per image: windows of neighbouring rows never share an input row.
    cpu.for_each_chunk(dx, per_image, |image, dx| {
        dx.fill(0.0);
        for row in 0..rows.oh {
            let at = (image * rows.oh + row) * rows.out_len();
            let (dy, index) = (&dy[at..][..rows.out_len()], &index[at..][..rows.out_len()]);
            cpu.isa.run_wide(ScatterRow { rows, row, dy, index, dx });
        }
    });
}

#[derive(Clone, Copy)]
struct Rows {
    h: usize,
    w: usize,
    c: usize,
    oh: usize,
    ow: usize,
}

impl Rows {
    fn new(input: Shape, output: Shape) -> Rows {
        let (i, o) = (input.dims(), output.dims());
        Rows { h: i[1], w: i[2], c: i[3], oh: o[1], ow: o[2] }
    }

    fn out_len(&self) -> usize {
        self.ow * self.c
    }
}

/// One row of windows.
struct PoolRow<'a> {
    rows: Rows,
    row: usize,
    x: &'a [f32],
    y: &'a mut [f32],
    index: Option<&'a mut [u8]>,
}

impl VectorKernel for PoolRow<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Rows { h, w, c, oh, .. } = self.rows;
        let (image, row) = (self.row / oh, self.row % oh);
        let mut index = self.index;
        for (column, y) in self.y.chunks_exact_mut(c).enumerate() {
            let at = |r: usize, q: usize| {
                // A cut-off window repeats its first row or column, which changes neither value nor index.
                let r = if 2 * row + r < h { 2 * row + r } else { 2 * row };
                let q = if 2 * column + q < w { 2 * column + q } else { 2 * column };
                &self.x[((image * h + r) * w + q) * c..][..c]
            };
            let [a, b, d, e] = [at(0, 0), at(0, 1), at(1, 0), at(1, 1)];
            match &mut index {
                None => {
                    for (i, y) in y.iter_mut().enumerate() {
                        *y = max_nan_first(max_nan_first(a[i], b[i]), max_nan_first(d[i], e[i]));
                    }
                }
                Some(index) => {
                    let index = &mut index[column * c..][..c];
                    for (i, (y, index)) in y.iter_mut().zip(index).enumerate() {
                        let (top, top_index) = if b[i] > a[i] { (b[i], 1) } else { (a[i], 0) };
                        let (low, low_index) = if e[i] > d[i] { (e[i], 3) } else { (d[i], 2) };
                        (*y, *index) = if low > top { (low, low_index) } else { (top, top_index) };
                    }
                }
            }
        }
    }
}

/// The larger value; `a` if they are equal or one is NaN.
#[inline(always)]
fn max_nan_first(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The gradients of one row of windows of one image.
struct ScatterRow<'a> {
    rows: Rows,
    row: usize,
    dy: &'a [f32],
    index: &'a [u8],
    dx: &'a mut [f32],
}

impl VectorKernel for ScatterRow<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Rows { h, w, c, .. } = self.rows;
        for (column, (dy, index)) in self.dy.chunks_exact(c).zip(self.index.chunks_exact(c)).enumerate() {
            for place in 0..4u8 {
                let (r, q) = (2 * self.row + usize::from(place / 2), 2 * column + usize::from(place % 2));
                if r < h && q < w {
                    let dx = &mut self.dx[(r * w + q) * c..][..c];
                    for ((dx, dy), index) in dx.iter_mut().zip(dy).zip(index) {
                        *dx = if *index == place { *dy } else { 0.0 };
                    }
                }
            }
        }
    }
}
