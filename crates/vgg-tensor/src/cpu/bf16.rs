//! Conversions between f32 and bf16, the upper half of an f32.

/// Channels per block of bf16 activations, and values per [`Line`].
pub(crate) const BLOCK: usize = 32;

/// The 32 channels of one pixel in a block: one cache line of bf16 values.
pub(crate) type Line = [u16; BLOCK];

/// The value of a bf16.
#[inline(always)]
pub(crate) fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// The nearest bf16, ties to even. A NaN stays a NaN; a subnormal number becomes zero, as in the processor's own
/// conversion.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    let chosen = if magnitude > 0x7f80_0000 { quiet } else { rounded };
    let zero = (bits >> 16) & 0x8000;
    (if magnitude < 0x0080_0000 { zero } else { chosen }) as u16
}

/// Converts the first `n` values of `from` to bf16; the other lanes of `to` become zero.
#[inline(always)]
pub(crate) fn line_of(from: &[f32], to: &mut Line) {
    let n = from.len().min(BLOCK);
    for (to, from) in to.iter_mut().zip(from) {
        *to = to_bf16(*from);
    }
    to[n..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_to_nearest_even() {
        let exact = [0.0f32, -0.0, 1.0, -2.5, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE];
        assert!(exact.iter().all(|x| from_bf16(to_bf16(*x)).to_bits() == x.to_bits()));
        // bf16 has 8 significant bits: between 256 and 512, neighbours are 2 apart.
        for (x, rounded) in
            [(257.0, 256.0), (259.0, 260.0), (258.9, 258.0), (-257.5, -258.0), (f32::MAX, f32::INFINITY)]
        {
            assert_eq!(from_bf16(to_bf16(x)), rounded, "{x}");
        }
        assert!(from_bf16(to_bf16(f32::NAN)).is_nan());
        // This NaN has its only fraction bit in the lower half.
        assert!(from_bf16(to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
        assert_eq!(to_bf16(-f32::MIN_POSITIVE / 2.0), 0x8000);
        let mut line = [7; BLOCK];
        line_of(&[1.0, 2.0], &mut line);
        assert_eq!((line[0], line[1], line[2], line[31]), (0x3f80, 0x4000, 0, 0));
    }
}
