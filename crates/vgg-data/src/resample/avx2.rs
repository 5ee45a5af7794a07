//! The first pass with AVX2: four taps of a pixel at a time, and four rows.
//!
//! A weight of 23 bits is taken as two parts of at most 12, so that the products and the sum of two neighbours are one
//! instruction on pairs of 16 bits. Integers add up in any order to the same.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_packs_epi32, _mm_packus_epi16,
    _mm_set1_epi32, _mm_srai_epi32, _mm256_add_epi32, _mm256_broadcastsi128_si256, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_load_si256, _mm256_madd_epi16, _mm256_setr_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_slli_epi32,
};

use super::taps::{PLACES, Taps};
use super::{HALF, both_passes};

/// Bits of a weight's lower part.
const LOW: u32 = 11;
/// Taps of a group.
const GROUP: usize = 4;
/// Bytes that are read for the twelve of a group.
const READ: usize = 16;
/// Rows at a time, which share the weights.
const ROWS: usize = 4;

/// The parts of four weights: for each of R, G, B and nothing those of the first two, then those of the next two.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Group {
    high: [i16; 16],
    low: [i16; 16],
}

#[target_feature(enable = "avx2")]
pub(super) fn resample(pixels: &[u8], w: usize, down: &Taps, across: &Taps, out: &mut [u8]) {
    let filter = Groups::new(across);
    both_passes(pixels, w, down, across, out, |pixels, out| {
        let out_width = across.len() * 3;
        // A few rows and what the last pixel's groups read beyond them.
        let mut some = vec![0; (ROWS * w + filter.per * GROUP) * 3 + READ];
        for (pixels, out) in pixels.chunks(ROWS * w * 3).zip(out.chunks_mut(ROWS * out_width)) {
            some[..pixels.len()].copy_from_slice(pixels);
            if out.len() == ROWS * out_width {
                filter.rows::<ROWS>(&some, w, out);
                continue;
            }
            for (y, out) in out.chunks_exact_mut(out_width).enumerate() {
                filter.rows::<1>(&some[y * w * 3..], w, out);
            }
        }
    })
}

/// Taps by groups.
struct Groups {
    /// First pixel of each.
    starts: Vec<usize>,
    /// `per` groups for each.
    groups: Vec<Group>,
    per: usize,
}

impl Groups {
    fn new(across: &Taps) -> Groups {
        let per = across.most().div_ceil(GROUP);
        let mut groups = vec![Group { high: [0; 16], low: [0; 16] }; across.len() * per];
        let mut starts = Vec::with_capacity(across.len());
        for i in 0..across.len() {
            let (start, weights) = across.at(i);
            starts.push(start);
            for (t, &weight) in weights.iter().enumerate() {
                let group = &mut groups[i * per + t / GROUP];
                for c in 0..3 {
                    let place = t % GROUP / 2 * 8 + c * 2 + t % 2;
                    group.high[place] = (weight >> LOW) as i16;
                    group.low[place] = (weight & ((1 << LOW) - 1)) as i16;
                }
            }
        }
        Groups { starts, groups, per }
    }

    /// `N` rows of `w` pixels, after which there is more to read.
    #[target_feature(enable = "avx2")]
    fn rows<const N: usize>(&self, pixels: &[u8], w: usize, out: &mut [u8]) {
        let width = self.starts.len() * 3;
        for (i, (&start, groups)) in self.starts.iter().zip(self.groups.chunks_exact(self.per)).enumerate() {
            let (mut high, mut low) = ([_mm256_setzero_si256(); N], [_mm256_setzero_si256(); N]);
            assert!(pixels.len() >= ((N - 1) * w + start + (self.per - 1) * GROUP) * 3 + READ);
            for (g, group) in groups.iter().enumerate() {
                // SAFETY: both are 32 bytes and aligned to them.
                let (h, l) = unsafe {
                    (
                        _mm256_load_si256(group.high.as_ptr().cast()),
                        _mm256_load_si256(group.low.as_ptr().cast()),
                    )
                };
                for n in 0..N {
                    let at = (n * w + start + g * GROUP) * 3;
                    // SAFETY: `n` and `g` are at most those of the assertion.
                    let taken = pairs(unsafe { _mm_loadu_si128(pixels.as_ptr().add(at).cast()) });
                    high[n] = _mm256_add_epi32(high[n], _mm256_madd_epi16(taken, h));
                    low[n] = _mm256_add_epi32(low[n], _mm256_madd_epi16(taken, l));
                }
            }
            for n in 0..N {
                let levels = levels(high[n], low[n]);
                out[n * width + i * 3..][..3].copy_from_slice(&levels[..3]);
            }
        }
    }
}

/// Twelve bytes of four pixels as R, G and B of the first two side by side, then of the next two, with 16 bits each.
#[target_feature(enable = "avx2")]
fn pairs(pixels: __m128i) -> __m256i {
    #[rustfmt::skip]
    let order = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
        6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
    );
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(pixels), order)
}

/// Levels of R, G and B from the sums with the parts of weights.
#[target_feature(enable = "avx2")]
fn levels(high: __m256i, low: __m256i) -> [u8; 4] {
    let sums = _mm256_add_epi32(_mm256_slli_epi32::<{ LOW as i32 }>(high), low);
    let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let levels = _mm_srai_epi32::<{ PLACES as i32 }>(_mm_add_epi32(sums, _mm_set1_epi32(HALF)));
    _mm_cvtsi128_si32(_mm_packus_epi16(_mm_packs_epi32(levels, levels), levels)).to_le_bytes()
}
