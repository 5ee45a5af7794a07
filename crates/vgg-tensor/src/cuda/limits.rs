//! Measurement of a GPU's peak throughput: large matrix products in its precision, and copies in its memory.

use std::time::Instant;

use super::{CublasEpilogue, Cuda, Matrix, Product};
use crate::{PeakThroughput, Result};

/// Largest side of the square matrices.
const SIDE: usize = 8192;
/// A product that takes longer than this, in seconds, is large enough.
const LONG_ENOUGH_S: f64 = 2e-3;
/// Number of bytes to copy: more than any cache holds.
const COPY_BYTES: usize = 1 << 29;
/// Number of repetitions; the fastest counts.
const REPETITIONS: usize = 5;

/// Measures in less than a second. A copied byte counts as two: one read and one written.
pub(crate) fn measure(cuda: &Cuda) -> Result<PeakThroughput> {
    let mut side = 512;
    let gflops = loop {
        let seconds = product_seconds(cuda, side)?;
        if seconds > LONG_ENOUGH_S || side >= SIDE {
            break 2.0 * (side as f64).powi(3) / seconds / 1e9;
        }
        side *= 2;
    };
    let (from, to) = (cuda.alloc_bytes(COPY_BYTES)?, cuda.alloc_bytes(COPY_BYTES)?);
    // SAFETY: both buffers have that many bytes.
    let seconds = best_seconds(cuda, || unsafe { cuda.copy(from.pointer(), to.pointer(), COPY_BYTES) })?;
    Ok(PeakThroughput { gflops, read_gb_per_s: 2.0 * COPY_BYTES as f64 / seconds / 1e9 })
}

fn product_seconds(cuda: &Cuda, side: usize) -> Result<f64> {
    let element = cuda.element();
    let bytes = side * side * element.bytes();
    let [a, b, out] = [cuda.alloc_bytes(bytes)?, cuda.alloc_bytes(bytes)?, cuda.alloc_bytes(bytes)?];
    cuda.clear(&a)?;
    cuda.clear(&b)?;
    let matrix =
        |pointer| Matrix { pointer, element, rows: side, columns: side, pitch: side, transposed: false };
    let product = Product {
        a: matrix(a.pointer()),
        b: matrix(b.pointer()),
        out: matrix(out.pointer()),
        epilogue: CublasEpilogue::Write,
        bias: 0,
    };
    // SAFETY: the matrices were allocated with these sizes.
    best_seconds(cuda, || unsafe { cuda.product(&product) })
}

fn best_seconds(cuda: &Cuda, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    cuda.synchronize()?;
    let mut best = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        work()?;
        cuda.synchronize()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
