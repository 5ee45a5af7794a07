//! Horizontal flip of RGB pixels.

/// Flips `[h, width, 3]` pixels horizontally, in place.
pub(crate) fn hflip(pixels: &mut [u8], width: usize) {
    let mut as_it_was = vec![0; width * 3];
    for row in pixels.chunks_exact_mut(width * 3) {
        as_it_was.copy_from_slice(row);
        hflip_row(&as_it_was, row);
    }
}

/// Copies the pixels of row `from` to `to` in reverse order. Both rows must have the same length.
pub(crate) fn hflip_row(from: &[u8], to: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("ssse3") {
        // SAFETY: the processor has SSSE3.
        return unsafe { ssse3::hflip_row(from, to) };
    }
    hflip_scalar(from, to);
}

fn hflip_scalar(from: &[u8], to: &mut [u8]) {
    for (to, from) in to.as_chunks_mut::<3>().0.iter_mut().zip(from.as_chunks::<3>().0.iter().rev()) {
        *to = *from;
    }
}

#[cfg(target_arch = "x86_64")]
mod ssse3 {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_setr_epi8, _mm_shuffle_epi8, _mm_storeu_si128};

    /// Copies five pixels (15 bytes) at a time. Each store writes 16 bytes; the extra byte is on the left,
    /// where the next store overwrites it.
    #[target_feature(enable = "ssse3")]
    pub(super) fn hflip_row(from: &[u8], to: &mut [u8]) {
        const FIVE: usize = 15;
        let length = from.len();
        assert_eq!(length, to.len());
        let order = _mm_setr_epi8(-1, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2);
        let mut done = 0;
        while done + FIVE < length {
            // SAFETY: `done + 15 < length`, so the 16 bytes of `from` starting at `done` and the 16 bytes of
            // `to` ending at `length - done` are in bounds.
            unsafe {
                let five = _mm_loadu_si128(from.as_ptr().add(done).cast());
                let out = to.as_mut_ptr().add(length - done - FIVE - 1);
                _mm_storeu_si128(out.cast(), _mm_shuffle_epi8(five, order));
            }
            done += FIVE;
        }
        super::hflip_scalar(&from[done..], &mut to[..length - done]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_any_width_are_flipped() {
        for width in 0..70_u8 {
            let from: Vec<u8> = (0..width).flat_map(|x| [x, x + 70, x + 140]).collect();
            let expected: Vec<u8> = (0..width).rev().flat_map(|x| [x, x + 70, x + 140]).collect();
            let [mut row, mut plain] = [(); 2].map(|()| vec![255; from.len()]);
            hflip_row(&from, &mut row);
            hflip_scalar(&from, &mut plain);
            assert_eq!((&row, &plain), (&expected, &expected));
            hflip(&mut row, usize::from(width.max(1)));
            assert_eq!(row, from);
        }
    }
}
