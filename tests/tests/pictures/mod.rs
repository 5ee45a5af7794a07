//! The image of the references to Pillow and torchvision, and a comparison of pixels.

use vgg_data::Image;
use vgg_testkit::fmix32;

/// The source image of the references.
pub fn source(h: usize, w: usize) -> Image {
    Image::from_shape_fn((h, w, 3), |(y, x, c)| {
        if (x / 9 + y / 11) % 2 == 0 {
            ((x * 7 + y * 13 + c * 29) % 256) as u8
        } else {
            (fmix32((y * 1000 + x * 4 + c) as u32) >> 24) as u8
        }
    })
}

/// Numbers of values that differ by at least one, two and three levels.
pub fn apart(ours: &[u8], expected: &[u8]) -> [usize; 3] {
    assert_eq!(ours.len(), expected.len());
    let count = |levels: u8| ours.iter().zip(expected).filter(|(a, b)| a.abs_diff(**b) >= levels).count();
    [1, 2, 3].map(count)
}
