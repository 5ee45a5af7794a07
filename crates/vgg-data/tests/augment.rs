//! Augmentation: ranges and probabilities of the draws, and pixels of the crop. Resize and pixel statistics.

use ndarray::s;
use vgg_data::{
    AugmentConfig, Augmentation, Error, Geometry, Image, Interpolation, MAX_SIDE, PcaJitter, PixelStatistics,
    eigenvectors, resize, resize_region, scaled_size,
};

const N: u64 = 20_000;

fn config() -> AugmentConfig {
    AugmentConfig {
        train_scale: [8, 12],
        crop: 8,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        flip: true,
        pca_jitter: None,
    }
}

/// The augmentations of `N` samples of 10 x 15 pixels.
fn drawn(config: &AugmentConfig) -> Vec<Augmentation> {
    (0..N).map(|sample| config.draw(3, 5, sample, 10, 15)).collect()
}

/// Asserts that `count` of `of` draws is within five standard deviations of `p * of`.
fn assert_share(count: usize, of: usize, p: f64, what: &str) {
    let expected = of as f64 * p;
    let deviation = (expected * (1.0 - p)).sqrt();
    assert!(
        (count as f64 - expected).abs() < 5.0 * deviation,
        "{what}: {count} of {of} instead of {expected}"
    );
}

#[test]
fn training_scales_are_uniform() {
    let all = drawn(&config());
    for side in 8..=12 {
        let count = all.iter().filter(|a| a.train_scale == side).count();
        assert_share(count, all.len(), 0.2, &format!("scale {side}"));
    }
    assert!(all.iter().all(|a| (8..=12).contains(&a.train_scale)));
    let fixed = AugmentConfig { train_scale: [9, 9], ..config() };
    assert!(drawn(&fixed).iter().all(|a| a.train_scale == 9));
}

#[test]
fn crop_offsets_are_uniform() {
    let all = drawn(&config());
    for side in 8..=12 {
        let of_side: Vec<&Augmentation> = all.iter().filter(|a| a.train_scale == side).collect();
        // Width of a 10 x 15 image at scale `side`: 1.5 times the height, halves rounded up.
        let columns = (3 * side).div_ceil(2);
        for top in 0..=side - 8 {
            let count = of_side.iter().filter(|a| a.top == top).count();
            let p = 1.0 / (side - 8 + 1) as f64;
            assert_share(count, of_side.len(), p.min(1.0 - 1e-9), &format!("row {top} at scale {side}"));
        }
        for left in 0..=columns - 8 {
            let count = of_side.iter().filter(|a| a.left == left).count();
            let p = 1.0 / (columns - 8 + 1) as f64;
            assert_share(count, of_side.len(), p, &format!("column {left} at scale {side}"));
        }
        assert!(of_side.iter().all(|a| a.top <= side - 8 && a.left <= columns - 8));
    }
    // Row and column offsets are not exchanged, and are independent.
    let wide = AugmentConfig { train_scale: [10, 10], ..config() };
    let all = drawn(&wide);
    let corner = all.iter().filter(|a| a.top == 2 && a.left == 7).count();
    assert_share(corner, all.len(), 1.0 / 24.0, "the last corner");
}

#[test]
fn half_of_the_images_are_flipped_if_flip_is_set() {
    let all = drawn(&config());
    assert_share(all.iter().filter(|a| a.flip).count(), all.len(), 0.5, "flips");
    let large = all.iter().filter(|a| a.train_scale > 10).count();
    let both = all.iter().filter(|a| a.train_scale > 10 && a.flip).count();
    assert_share(both, large, 0.5, "flips of large scales");
    let unflipped = AugmentConfig { flip: false, ..config() };
    assert!(drawn(&unflipped).iter().all(|a| !a.flip));
}

#[test]
fn pca_jitter_is_normal_along_each_principal_component() {
    // Orthonormal rows; none is symmetric in the channels.
    let p = [[2.0, 1.0, 2.0], [1.0, 2.0, -2.0], [2.0, -2.0, -1.0]].map(|row| row.map(|v: f64| v / 3.0));
    let shift = PcaJitter { std: 0.5, eigenvectors: p, eigenvalues: [40.0, 20.0, 5.0] };
    let config = AugmentConfig { pca_jitter: Some(shift), ..config() };
    let all = drawn(&config);
    let along: Vec<[f64; 3]> = all
        .iter()
        .map(|a| p.map(|row| row.iter().zip(a.pca_jitter).map(|(p, s)| p * f64::from(s)).sum()))
        .collect();
    let n = N as f64;
    for (i, deviation) in [20.0, 10.0, 2.5].into_iter().enumerate() {
        let mean = along.iter().map(|v| v[i]).sum::<f64>() / n;
        let variance = along.iter().map(|v| v[i] * v[i]).sum::<f64>() / n;
        // Five standard errors of the mean, and of the variance of normal values.
        assert!(mean.abs() < 5.0 * deviation / n.sqrt(), "component {i}: mean {mean}");
        let ratio = variance / (deviation * deviation);
        assert!((ratio - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "component {i}: variance {variance}");
        let beyond = along.iter().filter(|v| v[i].abs() > 1.959_964 * deviation).count();
        assert_share(beyond, all.len(), 0.05, &format!("component {i}: beyond 1.96 deviations"));
        let other = (i + 1) % 3;
        let product = along.iter().map(|v| v[i] * v[other]).sum::<f64>() / n;
        let expected = deviation * [20.0, 10.0, 2.5][other];
        assert!(product.abs() < 5.0 * expected / n.sqrt(), "components {i} and {other}: {product}");
    }
    // The colour jitter is drawn last, so it changes no other draw.
    for (with, without) in all.iter().zip(drawn(&AugmentConfig { pca_jitter: None, ..config })) {
        assert_eq!(Augmentation { pca_jitter: [0.0; 3], ..*with }, without);
    }
}

#[test]
fn draws_differ_by_seed_epoch_and_sample() {
    let shift = PcaJitter { std: 0.1, eigenvectors: [[1.0, 0.0, 0.0]; 3], eigenvalues: [50.0; 3] };
    let config = AugmentConfig { pca_jitter: Some(shift), ..config() };
    let draw = |seed, epoch, sample| config.draw(seed, epoch, sample, 10, 15).pca_jitter[0];
    let mut all: Vec<f32> = Vec::new();
    for seed in 0..4 {
        for epoch in 0..20 {
            all.extend((0..50).map(|sample| draw(seed, epoch, sample)));
        }
    }
    assert_eq!(draw(2, 3, 4), draw(2, 3, 4));
    all.sort_by(f32::total_cmp);
    let equal = all.windows(2).filter(|pair| pair[0] == pair[1]).count();
    // 4,000 normal f32 values have a few equal pairs by chance; an unused part of the key makes thousands.
    assert!(equal < 20, "{equal} pairs of equal draws");
}

/// An image whose pixels all differ.
fn numbered(h: usize, w: usize) -> Image {
    Image::from_shape_fn((h, w, 3), |(y, x, c)| (y * 16 + x + c * 80) as u8)
}

#[test]
fn crop_has_the_pixels_at_its_offset_and_flips_horizontally() {
    // An image that has the training scale already is not resampled.
    let image = numbered(10, 15);
    let config = AugmentConfig { train_scale: [10, 10], ..config() };
    let at = |top, left, flip| Augmentation { train_scale: 10, top, left, flip, pca_jitter: [9.0; 3] };
    let crop = config.apply(image.view(), &at(2, 7, false)).unwrap();
    assert_eq!(crop, image.slice(s![2..10, 7..15, ..]));
    let flipped = config.apply(image.view(), &at(1, 3, true)).unwrap();
    assert_eq!(flipped, image.slice(s![1..9, 3..11;-1, ..]));
    // The same with an image that is not contiguous.
    let doubled = Image::from_shape_fn((20, 30, 3), |(y, x, c)| image[[y / 2, x / 2, c]]);
    let strided = doubled.slice(s![..;2, ..;2, ..]);
    assert_eq!(config.apply(strided, &at(1, 3, true)).unwrap(), flipped);
    // With resampling, the result is the crop of the resized image.
    let larger = AugmentConfig { train_scale: [12, 12], ..config };
    let whole = resize(&image, 12, 18, Interpolation::Bilinear).unwrap();
    let a = Augmentation { train_scale: 12, ..at(4, 9, true) };
    assert_eq!(larger.apply(image.view(), &a).unwrap(), whole.slice(s![4..12, 9..17;-1, ..]));
    assert!(matches!(config.apply(image.view(), &at(3, 0, false)), Err(Error::Config(_))), "below the image");
    assert!(
        matches!(config.apply(image.view(), &at(0, 8, false)), Err(Error::Config(_))),
        "beside the image"
    );
}

#[test]
fn invalid_scales_and_crops_are_rejected() {
    let of = |train_scale, crop| AugmentConfig { train_scale, crop, ..config() }.check();
    for (train_scale, crop) in [([8, 8], 8), ([8, MAX_SIDE], 8), ([1, 1], 1), ([MAX_SIDE, MAX_SIDE], 8)] {
        of(train_scale, crop).unwrap();
    }
    for (train_scale, crop, message) in [
        ([9, 8], 8, "train_scale [9, 8] must be ascending"),
        ([7, 9], 8, "train_scale [7, 9] is smaller than the crop, 8"),
        ([7, 7], 8, "train_scale 7 is smaller than the crop, 8"),
        ([8, 9], 0, "the crop must be at least 1"),
        ([8, MAX_SIDE + 1], 8, "train_scale [8, 16385] is larger than 16384"),
    ] {
        assert_eq!(of(train_scale, crop).unwrap_err().to_string(), message);
    }
}

#[test]
fn region_must_be_inside_the_resized_image() {
    let image = numbered(10, 15);
    let region = |offset, size| resize_region(image.view(), (20, 30), offset, size, Interpolation::Bicubic);
    let whole = resize(&image, 20, 30, Interpolation::Bicubic).unwrap();
    assert_eq!(region((12, 21), (8, 9)).unwrap(), whole.slice(s![12..20, 21..30, ..]));
    assert_eq!(region((0, 0), (20, 30)).unwrap(), whole);
    for (offset, size) in [((13, 21), (8, 9)), ((12, 22), (8, 9)), ((0, 0), (0, 5)), ((0, 0), (5, 0))] {
        assert!(matches!(region(offset, size), Err(Error::Config(_))), "{size:?} at {offset:?}");
    }
    let empty = Image::zeros((0, 5, 3));
    assert!(resize(&empty, 4, 4, Interpolation::Bilinear).is_err());
    for (name, filter) in [
        ("bilinear", Interpolation::Bilinear),
        ("bicubic", Interpolation::Bicubic),
        ("lanczos", Interpolation::Lanczos),
        ("nearest", Interpolation::Nearest),
    ] {
        assert_eq!(name.parse(), Ok(filter));
    }
    assert!("Bilinear".parse::<Interpolation>().is_err());
}

#[test]
fn scaled_sizes_match_the_formula() {
    // (2 * long * side + short) / (2 * short), rounded down, so halves round up.
    assert_eq!(scaled_size(10, 15, 9), (9, 14));
    assert_eq!(scaled_size(15, 10, 9), (14, 9));
    assert_eq!(scaled_size(10, 15, 7), (7, 11));
    assert_eq!(scaled_size(3, 4, 2), (2, 3));
    assert_eq!(scaled_size(7, 7, 100), (100, 100));
}

#[test]
fn pixel_statistics_match_hand_computed_sums() {
    let image = Image::from_shape_vec((1, 2, 3), vec![1, 2, 3, 5, 8, 13]).unwrap();
    let mut statistics = PixelStatistics::default();
    statistics.add(&image);
    let expected = PixelStatistics { pixels: 2, sums: [6, 10, 16], products: [26, 42, 68, 68, 110, 178] };
    assert_eq!(statistics, expected);
    assert_eq!(statistics.mean(), [3.0, 5.0, 8.0]);
    // Both pixels deviate from the mean by (2, 3, 5).
    assert_eq!(statistics.covariance(), [[4.0, 6.0, 10.0], [6.0, 9.0, 15.0], [10.0, 15.0, 25.0]]);
    assert!((statistics.unit_variance_scale() - (3.0f64 / 38.0).sqrt()).abs() < 1e-15);
    let mut other = PixelStatistics { pixels: 1, sums: [1, 2, 3], products: [1, 2, 3, 4, 5, 6] };
    other.merge(&statistics);
    assert_eq!(other, PixelStatistics { pixels: 3, sums: [7, 12, 19], products: [27, 44, 71, 72, 115, 184] });
    let grey = PixelStatistics { pixels: 1, sums: [9; 3], products: [81; 6] };
    assert_eq!(grey.unit_variance_scale(), 1.0, "no variance");
    assert_eq!(PixelStatistics::default().mean(), [0.0; 3]);
}

#[test]
fn eigenvectors_are_sorted_and_have_a_unique_sign() {
    let (values, vectors) = eigenvectors([[2.0, 0.0, 0.0], [0.0, 7.0, 0.0], [0.0, 0.0, 5.0]]);
    assert_eq!(values, [7.0, 5.0, 2.0]);
    assert_eq!(vectors, [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]);
    // V^T diag(9, 4, 1) V for these rows of V. The largest component of the second row is negative; the
    // result has it positive.
    let rows = [[2.0, 3.0, 6.0], [3.0, -6.0, 2.0], [6.0, 2.0, -3.0]].map(|row| row.map(|v: f64| v / 7.0));
    let mut matrix = [[0.0; 3]; 3];
    for (value, row) in [9.0, 4.0, 1.0].into_iter().zip(rows) {
        for i in 0..3 {
            for j in 0..3 {
                matrix[i][j] += value * row[i] * row[j];
            }
        }
    }
    let (values, vectors) = eigenvectors(matrix);
    let close = |ours: f64, expected: f64| assert!((ours - expected).abs() < 1e-12, "{ours} {expected}");
    values.into_iter().zip([9.0, 4.0, 1.0]).for_each(|(a, b)| close(a, b));
    let expected = [rows[0], rows[1].map(|v| -v), rows[2]];
    vectors.iter().flatten().zip(expected.iter().flatten()).for_each(|(a, b)| close(*a, *b));
}
