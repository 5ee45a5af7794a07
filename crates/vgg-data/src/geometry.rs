//! Sizes and crop offsets in integer arithmetic, so that other programs can reproduce them exactly.

/// Height and width of an `h` x `w` image after isotropic rescaling to smallest side `side`. The long side is
/// `long * side / short` rounded to nearest, halves up: the integer quotient
/// `(2 * long * side + short) / (2 * short)`.
///
/// ```
/// assert_eq!(vgg_data::scaled_size(375, 500, 256), (256, 341));
/// ```
pub fn scaled_size(h: usize, w: usize, side: usize) -> (usize, usize) {
    let scaled = |long: usize, short: usize| (2 * long * side + short) / (2 * short);
    if h <= w { (side, scaled(w, h)) } else { (scaled(h, w), side) }
}

/// Offset of a centre crop: `(side - crop) / 2`, rounded down.
pub fn centre_offset(side: usize, crop: usize) -> usize {
    side.saturating_sub(crop) / 2
}

/// Offset of crop `k` (0 to 4) of five crops spaced evenly from edge to edge: `k * (side - crop) / 4` rounded
/// to nearest, halves up.
pub fn grid_offset(side: usize, crop: usize, k: usize) -> usize {
    (k * side.saturating_sub(crop) + 2) / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_side_is_rounded_to_nearest() {
        assert_eq!(scaled_size(500, 375, 384), (512, 384));
        assert_eq!(scaled_size(333, 500, 256), (256, 384));
        assert_eq!(scaled_size(100, 100, 37), (37, 37));
        assert_eq!(scaled_size(1, 3, 5), (5, 15));
        assert_eq!([0, 1, 2, 3, 4].map(|k| grid_offset(341, 224, k)), [0, 29, 59, 88, 117]);
        assert_eq!((centre_offset(256, 224), centre_offset(341, 224)), (16, 58));
    }
}
