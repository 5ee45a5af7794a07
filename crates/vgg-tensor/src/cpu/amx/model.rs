//! A software model of the AMX unit, which rounds as the hardware does.

use super::super::bf16::{BLOCK, Line, from_bf16, line_of};
use super::{Overlap, Product, STEP, Sums, TILE, TileUnit};

/// The model. It is hundreds of times slower than the hardware.
#[derive(Clone, Copy)]
pub(super) struct Model {
    rows: usize,
}

/// A B tile in f32: per pair of rows, the values of the first row and of the second.
type PairRows = [[[f32; TILE]; 2]; TILE];

impl TileUnit for Model {
    fn begin(rows: usize) -> Model {
        Model { rows }
    }

    fn end(self, _: usize) {}

    #[inline(always)]
    unsafe fn multiply(self, product: &Product, sums: &mut Sums, add: bool, overlap: &mut impl Overlap) {
        if !add {
            sums.iter_mut().for_each(|tile| tile[..self.rows].fill([0.0; BLOCK]));
        }
        let mut b = product.b;
        for outer in 0..product.outer {
            for row in 0..product.window_rows {
                for column in 0..product.window_columns {
                    let offset = outer * product.outer_stride + row * product.row_stride + column * 64;
                    // SAFETY: the caller promises that A and B are readable in every step.
                    unsafe {
                        self.step(product, offset, b, sums);
                        b = b.add(STEP);
                    }
                    overlap.step();
                }
            }
        }
    }

    #[inline(always)]
    fn round(self, sums: &[f32; BLOCK], to: &mut Line) {
        line_of(sums, to);
    }
}

impl Model {
    /// # Safety
    /// The rows of both A tiles, `offset` bytes on, and two B tiles must be readable.
    #[inline(always)]
    unsafe fn step(self, product: &Product, offset: usize, b: *const u16, sums: &mut Sums) {
        for half in 0..2 {
            // SAFETY: by the caller's promise.
            let b = unsafe { pair_rows(b.add(half * STEP / 2)) };
            for (a, sums) in product.a.iter().zip(sums.iter_mut()) {
                for (row, sums) in sums.iter_mut().take(self.rows).enumerate() {
                    // SAFETY: by the caller's promise.
                    let a =
                        unsafe { a.byte_add(offset + row * product.a_pitch).cast::<Line>().read_unaligned() };
                    add_row(&a, &b, &mut sums[half * TILE..][..TILE]);
                }
            }
        }
    }
}

/// Adds the product of a row of A and a tile of B. Even and odd elements are summed apart, then added, then added to
/// the sums, as in TDPBF16PS of Intel's manual. A product of two bf16 values is exact in f32, so a multiplication and an
/// addition round as the hardware's fused operation does. Subnormal numbers, which the hardware replaces by zero, are
/// kept.
#[inline(always)]
fn add_row(a: &Line, b: &PairRows, sums: &mut [f32]) {
    let (mut even, mut odd) = ([0.0f32; TILE], [0.0f32; TILE]);
    for (pair, b) in b.iter().enumerate() {
        let (first, second) = (from_bf16(a[2 * pair]), from_bf16(a[2 * pair + 1]));
        for column in 0..TILE {
            even[column] += first * b[0][column];
            odd[column] += second * b[1][column];
        }
    }
    for ((sum, even), odd) in sums.iter_mut().zip(even).zip(odd) {
        *sum += even + odd;
    }
}

/// # Safety
/// `tile` must be readable for a B tile.
#[inline(always)]
unsafe fn pair_rows(tile: *const u16) -> PairRows {
    let mut rows = [[[0.0; TILE]; 2]; TILE];
    for (pair, rows) in rows.iter_mut().enumerate() {
        for column in 0..TILE {
            for (i, row) in rows.iter_mut().enumerate() {
                // SAFETY: inside the tile of 16 pairs of 16 columns.
                row[column] = from_bf16(unsafe { *tile.add((pair * TILE + column) * 2 + i) });
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Steps(usize);

    impl Overlap for Steps {
        fn step(&mut self) {
            self.0 += 1;
        }
    }

    /// Sums of small integers are exact: a plain product must give the same.
    #[test]
    fn products_of_integers_are_exact() {
        let to = |x: i64| super::super::super::bf16::to_bf16(x as f32);
        let a_at = |tile: usize, row: usize, step: usize, i: usize| {
            ((tile * 5 + row * 3 + step * 7 + i * i) % 11) as i64 - 5
        };
        let b_at = |step: usize, i: usize, column: usize| ((step * 3 + i * 5 + column * 7) % 13) as i64 - 6;
        // Two steps, in windows of two columns: rows of A are 128 bytes apart.
        let mut a = vec![0u16; 2 * TILE * 64];
        let mut b = vec![0u16; 2 * STEP];
        for step in 0..2 {
            for i in 0..BLOCK {
                for row in 0..TILE {
                    for tile in 0..2 {
                        a[(tile * TILE + row) * 64 + step * BLOCK + i] = to(a_at(tile, row, step, i));
                    }
                    for half in 0..2 {
                        let at = step * STEP + half * STEP / 2 + (i / 2 * TILE + row) * 2 + i % 2;
                        b[at] = to(b_at(step, i, half * TILE + row));
                    }
                }
            }
        }
        let product = Product {
            a: [a.as_ptr(), a[TILE * 64..].as_ptr()],
            a_pitch: 128,
            outer: 1,
            outer_stride: 0,
            window_rows: 1,
            row_stride: 0,
            window_columns: 2,
            b: b.as_ptr(),
        };
        let mut sums = [[[1.0; BLOCK]; TILE]; 2];
        let (rows, mut steps) = (14, Steps(0));
        // SAFETY: `a` and `b` hold the tiles of both steps.
        unsafe { Model::begin(rows).multiply(&product, &mut sums, true, &mut steps) };
        assert_eq!(steps.0, 2);
        for (tile, sums) in sums.iter().enumerate() {
            for (row, sums) in sums.iter().enumerate() {
                for (column, sum) in sums.iter().enumerate() {
                    let terms = (0..64).map(|i| (i / BLOCK, i % BLOCK));
                    let exact: i64 = terms.map(|(s, i)| a_at(tile, row, s, i) * b_at(s, i, column)).sum();
                    let expected = if row < rows { exact as f32 + 1.0 } else { 1.0 };
                    assert_eq!(*sum, expected, "tile {tile}, row {row}, column {column}");
                }
            }
        }
    }
}
