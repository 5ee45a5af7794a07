//! Views of test images against torchvision's transforms.

mod pictures;

use pictures::{apart, source};
use vgg_data::{Geometry, Image, Interpolation, Region, View};
use vgg_testkit::pillow_resize;

/// 200 centre crops of torchvision's Resize(256) and CenterCrop(224). Sizes and offsets are the same; pixels differ as
/// from Pillow's.
#[test]
fn views_match_torchvision_transforms() {
    let mut rows = csv::Reader::from_path(vgg_tests::fixture("torchvision_views.csv")).unwrap();
    let rows: Vec<[usize; 5]> = rows.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 200);
    for [h, w, resized_h, resized_w, crc32] in rows {
        let geometry = Geometry::Torchvision;
        let size = geometry.scaled_size(h, w, 256);
        assert_eq!(size, (resized_h, resized_w), "{h}x{w}");
        let image = source(h, w);
        let resized = pillow_resize(image.as_slice().unwrap(), h, w, size, "bilinear");
        let resized = Image::from_shape_vec((size.0, size.1, 3), resized).unwrap();
        let [top, left] = [size.0, size.1].map(|side| geometry.centre_offset(side, 224));
        let crop = resized.slice(ndarray::s![top..top + 224, left..left + 224, ..]).to_owned();
        assert_eq!(
            crc32fast::hash(crop.as_slice().unwrap()) as usize,
            crc32,
            "{h}x{w}: offset {top}, {left}"
        );
        let view = View { test_scale: 256, geometry, region: Region::Centre(224), flip: false };
        let ours = view.apply(&image, Interpolation::Bilinear).unwrap();
        let levels = apart(ours.as_slice().unwrap(), crop.as_slice().unwrap());
        // More differences at ratios with many exact ties, such as 5 to 4.
        assert!(
            20 * levels[0] <= ours.len() && levels[2] == 0,
            "{h}x{w}: {levels:?} of {} values",
            ours.len()
        );
    }
}
