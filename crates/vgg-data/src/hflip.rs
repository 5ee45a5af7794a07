//! Exchanging left and right.

/// Exchanges left and right of `[h, width, 3]` pixels.
pub(crate) fn hflip(pixels: &mut [u8], width: usize) {
    let mut as_it_was = vec![0; width * 3];
    for row in pixels.chunks_exact_mut(width * 3) {
        as_it_was.copy_from_slice(row);
        hflip_row(&as_it_was, row);
    }
}

/// The pixels of a row from the last to the first. Both are as long.
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

    /// Five pixels at a time. Sixteen bytes are written for their fifteen: the one too many is to the left, where the next
    /// five come.
    #[target_feature(enable = "ssse3")]
    pub(super) fn hflip_row(from: &[u8], to: &mut [u8]) {
        const FIVE: usize = 15;
        let length = from.len();
        assert_eq!(length, to.len());
        let order = _mm_setr_epi8(-1, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2);
        let mut done = 0;
        while done + FIVE < length {
            // SAFETY: 16 bytes from `done` on, and 16 bytes before `length - done`, are inside.
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
    fn rows_of_any_width_are_mirrored() {
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
