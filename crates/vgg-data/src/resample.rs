//! Pillow's resampling, to the last bit: rows first, rounded to levels, then columns, in fixed point with 22 binary places.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod taps;

pub(crate) use taps::Taps;

use taps::PLACES;

/// What rounds a sum to the nearest level.
const HALF: i32 = 1 << (PLACES - 1);

/// Pixels `[h, w, 3]` as `[down.len(), across.len(), 3]`, which are `out`.
pub(crate) fn resample(pixels: &[u8], w: usize, down: &Taps, across: &Taps, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::resample(pixels, w, down, across, out) };
    }
    resample_plainly(pixels, w, down, across, out);
}

fn resample_plainly(pixels: &[u8], w: usize, down: &Taps, across: &Taps, out: &mut [u8]) {
    both_passes(pixels, w, down, across, out, |pixels, out| {
        for (pixels, out) in pixels.chunks_exact(w * 3).zip(out.chunks_exact_mut(across.len() * 3)) {
            resample_row(pixels, across, out);
        }
    })
}

/// Both passes, the first one by `resample_rows`.
#[inline(always)]
fn both_passes(
    pixels: &[u8],
    w: usize,
    down: &Taps,
    across: &Taps,
    out: &mut [u8],
    resample_rows: impl FnOnce(&[u8], &mut [u8]),
) {
    // Only the rows that the second pass reads.
    let rows = down.reach();
    let width = across.len() * 3;
    let mut narrow = vec![0; rows.len() * width];
    resample_rows(&pixels[rows.start * w * 3..rows.end * w * 3], &mut narrow);
    for (i, out) in out.chunks_exact_mut(width).enumerate() {
        let (start, weights) = down.at(i);
        sum_rows(&narrow[(start - rows.start) * width..], weights, out);
    }
}

/// One row of the first pass.
fn resample_row(pixels: &[u8], across: &Taps, out: &mut [u8]) {
    for (i, out) in out.chunks_exact_mut(3).enumerate() {
        let (start, weights) = across.at(i);
        let mut sums = [HALF; 3];
        for (pixel, &weight) in pixels[start * 3..].chunks_exact(3).zip(weights) {
            for c in 0..3 {
                sums[c] += i32::from(pixel[c]) * weight;
            }
        }
        for c in 0..3 {
            out[c] = level(sums[c]);
        }
    }
}

/// One row of the second pass: the weighted sum of the first of `rows`.
#[inline(always)]
fn sum_rows(rows: &[u8], weights: &[i32], out: &mut [u8]) {
    /// Values at a time, whose sums stay in registers.
    const BLOCK: usize = 32;
    let width = out.len();
    let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
    for (b, out) in blocks.iter_mut().enumerate() {
        let mut sums = [HALF; BLOCK];
        for (t, &weight) in weights.iter().enumerate() {
            let values = &rows[t * width + b * BLOCK..][..BLOCK];
            for i in 0..BLOCK {
                sums[i] += i32::from(values[i]) * weight;
            }
        }
        for i in 0..BLOCK {
            out[i] = level(sums[i]);
        }
    }
    let done = width - rest.len();
    for (i, out) in rest.iter_mut().enumerate() {
        let products =
            weights.iter().enumerate().map(|(t, &weight)| i32::from(rows[t * width + done + i]) * weight);
        *out = level(HALF + products.sum::<i32>());
    }
}

#[inline(always)]
fn level(sum: i32) -> u8 {
    (sum >> PLACES).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Filter, KeyedRng, Purpose};

    #[test]
    fn the_vector_kernel_computes_what_the_loops_do() {
        let mut stream = KeyedRng::new(1, 0, 0, Purpose::Augment);
        for round in 0..300 {
            let [h, w, rows, columns] = [(); 4].map(|()| stream.random_range(1..=70));
            let filter = [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos, Filter::Nearest][round % 4];
            let pixels: Vec<u8> = (0..h * w * 3).map(|_| stream.random_range(0..=255) as u8).collect();
            let (top, left) = (stream.random_range(0..=rows - 1), stream.random_range(0..=columns - 1));
            let down = Taps::new(h, rows, top, rows - top, filter);
            let across = Taps::new(w, columns, left, columns - left, filter);
            let [mut ours, mut plain] = [(); 2].map(|()| vec![0; down.len() * across.len() * 3]);
            resample(&pixels, w, &down, &across, &mut ours);
            resample_plainly(&pixels, w, &down, &across, &mut plain);
            assert_eq!(ours, plain, "{filter:?}, {h}x{w} to {rows}x{columns} from {top}, {left}");
        }
    }
}
