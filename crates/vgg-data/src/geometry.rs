//! Sizes and crop offsets in integer arithmetic, so that other programs can reproduce them exactly.

use serde::{Deserialize, Serialize};

/// How an image is rescaled to a scale S or Q, and where its centre crop lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Geometry {
    /// The smallest side becomes the scale, and the long side is rounded to nearest. Offsets are rounded down.
    #[default]
    Paper,
    /// torchvision's `Resize` and `CenterCrop`: the smallest side becomes the scale, and the long side is rounded
    /// down. Offsets are rounded to nearest, halves to even.
    Torchvision,
    /// Caffe's usual preparation: both sides become the scale, whatever the aspect ratio. Offsets are rounded down.
    Caffe,
}

impl Geometry {
    /// All values with their names.
    pub const ALL: [(&'static str, Geometry); 3] =
        [("paper", Geometry::Paper), ("torchvision", Geometry::Torchvision), ("caffe", Geometry::Caffe)];

    /// Whether this is the paper's geometry, the default.
    pub fn is_paper(&self) -> bool {
        *self == Geometry::Paper
    }

    /// Height and width of an `h` x `w` image after it is rescaled to the scale `side`.
    ///
    /// ```
    /// use vgg_data::Geometry;
    /// assert_eq!(Geometry::Paper.scaled_size(375, 500, 256), (256, 341));
    /// assert_eq!(Geometry::Caffe.scaled_size(375, 500, 256), (256, 256));
    /// ```
    pub fn scaled_size(self, h: usize, w: usize, side: usize) -> (usize, usize) {
        let down = |long: usize, short: usize| long * side / short;
        match self {
            Geometry::Paper => scaled_size(h, w, side),
            Geometry::Torchvision if h <= w => (side, down(w, h)),
            Geometry::Torchvision => (down(h, w), side),
            Geometry::Caffe => (side, side),
        }
    }

    /// Offset of a centre crop.
    pub fn centre_offset(self, side: usize, crop: usize) -> usize {
        let margin = side.saturating_sub(crop);
        match self {
            // A margin of 4 k + 3 is a half above the odd number 2 k + 1: it is rounded up to an even one.
            Geometry::Torchvision if margin % 4 == 3 => margin / 2 + 1,
            _ => margin / 2,
        }
    }
}

impl std::fmt::Display for Geometry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Geometry::ALL.iter().find(|(_, own)| own == self).map_or("", |(name, _)| name))
    }
}

impl std::str::FromStr for Geometry {
    type Err = String;
    fn from_str(name: &str) -> Result<Geometry, String> {
        let found = Geometry::ALL.iter().find(|(own, _)| *own == name);
        found.map(|(_, geometry)| *geometry).ok_or_else(|| "expected paper, torchvision or caffe".into())
    }
}

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
        assert_eq!([256, 341].map(|side| Geometry::Paper.centre_offset(side, 224)), [16, 58]);
    }

    /// Python's `round` rounds halves to even: 0, 0, 1, 2, 2, 2, 3, 4 for margins of 0 to 7.
    #[test]
    fn torchvision_rounds_halves_to_even() {
        let offsets: Vec<usize> = (0..8).map(|m| Geometry::Torchvision.centre_offset(224 + m, 224)).collect();
        assert_eq!(offsets, [0, 0, 1, 2, 2, 2, 3, 4]);
        assert_eq!(Geometry::Torchvision.scaled_size(375, 500, 256), (256, 341));
        assert_eq!(Geometry::Torchvision.scaled_size(500, 333, 256), (384, 256));
        assert_eq!(
            (scaled_size(300, 401, 256), Geometry::Torchvision.scaled_size(300, 401, 256)),
            ((256, 342), (256, 342))
        );
        assert_eq!(
            (scaled_size(300, 400, 256), Geometry::Torchvision.scaled_size(299, 400, 256)),
            ((256, 341), (256, 342))
        );
    }
}
