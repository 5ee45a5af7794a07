//! Pixels and statistics against Pillow and numpy, loading, and errors of data sets.

mod pictures;

use std::path::Path;
use std::sync::Arc;

use pictures::{apart, source};
use vgg_data::synthetic::{CLASSES, SyntheticConfig, generate};
use vgg_data::{
    AugmentConfig, Batch, DecodeOptions, Error, Geometry, Image, ImageSet, Interpolation, Loader,
    LoaderConfig, OnBadImage, Partition, PcaJitter, PixelStatistics, Split, decode, decode_with,
    eigenvectors, resize, resize_region, scaled_size,
};
use vgg_testkit::pillow_resize;

fn fixture(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(vgg_tests::fixture(name)).unwrap()).unwrap()
}

/// All but nearest, which the loader's reference covers.
const FILTERS: [(&str, Interpolation); 3] = [
    ("bilinear", Interpolation::Bilinear),
    ("bicubic", Interpolation::Bicubic),
    ("lanczos", Interpolation::Lanczos),
];

/// Asserts that noise, in which any value may be near a tie, matches a reference except for one level in one
/// of fifty values, and two levels, if both passes round differently, in one of a thousand. With nearest
/// interpolation, a row or a column may be its neighbour if its centre is on an edge.
#[track_caller]
fn assert_near(ours: &[u8], expected: &[u8], interpolation: Interpolation, what: &str) {
    let [one, two, three] = apart(ours, expected);
    if interpolation == Interpolation::Nearest {
        assert!(16 * one <= ours.len(), "{what}: {one} of {} values differ", ours.len());
    } else {
        let fits = 50 * one <= ours.len() && 1000 * two <= ours.len() && three == 0;
        assert!(fits, "{what}: of {} values {one} differ, {two} by two levels, {three} by more", ours.len());
    }
}

/// The Rust reference is bitwise identical to Pillow, so it stands in for Pillow at any size.
#[test]
fn resizing_matches_pillow_except_one_or_two_levels_in_few_values() {
    let all = fixture("pillow_resize.json");
    let cases = all["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2 * 4 * 4, "images, sides and filters");
    for case in cases {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let (h, w, name) = (number("h"), number("w"), case["filter"].as_str().unwrap());
        let size = scaled_size(h, w, number("side"));
        assert_eq!(size, (number("out_h"), number("out_w")));
        let (image, what) = (source(h, w), format!("{h}x{w} to {size:?}, {name}"));
        let pillow = pillow_resize(image.as_slice().unwrap(), h, w, size, name);
        assert_eq!(u64::from(crc32fast::hash(&pillow)), case["crc32"], "{what}");
        let ours = resize(&image, size.0, size.1, name.parse().unwrap()).unwrap();
        assert_near(ours.as_slice().unwrap(), &pillow, name.parse().unwrap(), &what);
    }
}

#[test]
fn photographs_are_resized_like_pillow() {
    let Some(folder) = vgg_tests::real_images("imagenet-natural-200") else { return };
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "JPEG"));
    files.sort();
    assert!(!files.is_empty());
    for (name, filter) in &FILTERS {
        let (mut values, mut one, mut two) = (0, 0, 0);
        for path in files.iter().step_by(20) {
            let image = decode(&std::fs::read(path).unwrap(), path).unwrap();
            let (h, w, _) = image.dim();
            let size = scaled_size(h, w, 256);
            let ours = resize(&image, size.0, size.1, *filter).unwrap();
            let pillow = pillow_resize(image.as_slice().unwrap(), h, w, size, name);
            let levels = apart(ours.as_slice().unwrap(), &pillow);
            // More differences at ratios with many exact ties, such as 5 to 4.
            let fits = 20 * levels[0] <= ours.len() && levels[2] == 0;
            assert!(fits, "{}, {name}: {levels:?} of {} values", path.display(), ours.len());
            (values, one, two) = (values + ours.len(), one + levels[0], two + levels[1]);
        }
        assert!(100 * one <= values && 200_000 * two <= values, "{name}: {one}, {two} of {values}");
    }
}

#[test]
fn resizing_a_region_equals_cropping_the_resized_image() {
    let image = source(90, 160);
    for (name, filter) in FILTERS {
        for whole in [(61, 108), (90, 160), (137, 243), (90, 100), (180, 160)] {
            let all = pillow_resize(image.as_slice().unwrap(), 90, 160, whole, name);
            let all = Image::from_shape_vec((whole.0, whole.1, 3), all).unwrap();
            for (top, left) in [(0, 0), (7, 40), (whole.0 - 32, whole.1 - 48)] {
                let part = resize_region(image.view(), whole, (top, left), (32, 48), filter).unwrap();
                let expected = all.slice(ndarray::s![top..top + 32, left..left + 48, ..]).to_owned();
                let what = format!("{name}, {whole:?}, {top}, {left}");
                assert_near(part.as_slice().unwrap(), &expected.into_raw_vec_and_offset().0, filter, &what);
            }
        }
    }
}

#[test]
fn statistics_match_numpy() {
    let reference = fixture("colour_statistics.json");
    let mut statistics = PixelStatistics::default();
    statistics.add(&source(61, 47));
    let mut second = PixelStatistics::default();
    second.add(&source(90, 160));
    statistics.merge(&second);
    // Our sums are integers; the remaining difference is the rounding of numpy's sums over 17,267 pixels and
    // of two solvers.
    let near = |ours: [f64; 3], theirs: &serde_json::Value, largest: f64| {
        let theirs: Vec<f64> = theirs.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(theirs.len(), 3);
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() < 1e-12 * largest, "{ours:?}, numpy's {theirs:?}");
        }
    };
    assert_eq!(statistics.pixels, reference["pixels"]);
    near(statistics.mean(), &reference["mean"], 255.0);
    let covariance = statistics.covariance();
    let (values, vectors) = eigenvectors(covariance);
    for i in 0..3 {
        near(covariance[i], &reference["covariance"][i], 255.0 * 255.0);
        // The sign of an eigenvector is arbitrary.
        let theirs = reference["eigenvectors"][i].as_array().unwrap();
        let dot: f64 = (0..3).map(|c| vectors[i][c] * theirs[c].as_f64().unwrap()).sum();
        near(vectors[i].map(|v| v * dot.signum()), &reference["eigenvectors"][i], 100.0);
    }
    near(values, &reference["eigenvalues"], 255.0 * 255.0);
    // The eigenvalues of 0..1 pixels are these divided by 255^2, so for a shift in 0..255 they are divided by
    // 255.
    let shift = PcaJitter::new(&statistics, 0.1);
    assert!((shift.eigenvalues[0] - values[0] / 255.0).abs() < 1e-9);
}

fn synthetic(dir: &Path) -> SyntheticConfig {
    let config = SyntheticConfig { seed: 3, train_per_class: 2, val_per_class: 1 };
    generate(dir, &config, 2, &|_, _| ()).unwrap();
    config
}

#[test]
fn synthetic_set_depends_only_on_its_seed() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = synthetic(a.path());
    generate(b.path(), &config, 1, &|_, _| ()).unwrap();
    let folder = ImageSet::open(a.path(), Split::Train).unwrap();
    assert_eq!(folder.classes(), CLASSES);
    assert_eq!(folder.len(), 20);
    let val = ImageSet::open(a.path(), Split::Val).unwrap();
    assert_eq!(val.len(), 10);
    let images = |set: &ImageSet| (0..set.len()).map(|i| set.path(i).into_owned()).collect::<Vec<_>>();
    for file in images(&folder).into_iter().chain(images(&val)).chain(["boxes.csv".to_owned()]) {
        let read = |dir: &Path| std::fs::read(dir.join(&file)).unwrap();
        assert!(read(a.path()) == read(b.path()), "{file}");
    }
    let boxes = std::fs::read_to_string(a.path().join("boxes.csv")).unwrap();
    assert_eq!(boxes.lines().count(), 31);
    // Another seed gives other images.
    let c = tempfile::tempdir().unwrap();
    generate(c.path(), &SyntheticConfig { seed: 4, ..config }, 2, &|_, _| ()).unwrap();
    let other = std::fs::read_to_string(c.path().join("boxes.csv")).unwrap();
    assert!(boxes.lines().count() == other.lines().count() && boxes != other);
}

fn batches(folder: &Arc<ImageSet>, workers: usize, epoch: u64) -> Vec<Batch> {
    let augment = AugmentConfig {
        train_scale: [64, 96],
        crop: 64,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        flip: true,
        pca_jitter: Some(PcaJitter { std: 0.1, eigenvectors: [[1.0, 0.0, 0.0]; 3], eigenvalues: [9.0; 3] }),
    };
    let config = LoaderConfig {
        augment,
        mean_rgb: [120.0; 3],
        batch: 6,
        seed: 5,
        on_bad_image: OnBadImage::Skip,
        workers,
        partition: Partition::WHOLE,
    };
    let mut all = Vec::new();
    let mut loader = Loader::new(folder.clone(), config).unwrap();
    loader
        .for_each(epoch, 0, |batch, _| {
            all.push(batch.clone());
            Ok::<bool, Error>(true)
        })
        .unwrap();
    all
}

#[test]
fn batches_do_not_depend_on_the_number_of_workers() {
    let dir = tempfile::tempdir().unwrap();
    synthetic(dir.path());
    let folder = Arc::new(ImageSet::open(dir.path(), Split::Train).unwrap());
    let one = batches(&folder, 1, 0);
    let cached = Arc::new(ImageSet::open(dir.path(), Split::Train).unwrap().with_cache(1 << 30));
    for other in [batches(&folder, 3, 0), batches(&cached, 2, 0), batches(&cached, 2, 0)] {
        assert_eq!(one.len(), other.len());
        for (a, b) in one.iter().zip(&other) {
            assert_eq!((&a.ids, &a.pixels, &a.offset), (&b.ids, &b.pixels, &b.offset));
            assert_eq!((&a.targets, a.skipped.len()), (&b.targets, b.skipped.len()));
        }
    }
    assert_eq!(one.iter().map(Batch::len).collect::<Vec<_>>(), [6, 6, 6, 2]);
    assert_ne!(one[0].ids, batches(&folder, 1, 1)[0].ids, "every epoch has its own order");
}

#[test]
fn bad_images_are_named_or_skipped() {
    let dir = tempfile::tempdir().unwrap();
    synthetic(dir.path());
    let class = dir.path().join("train").join(CLASSES[0]);
    std::fs::write(class.join("00000.jpg"), b"").unwrap();
    let whole = std::fs::read(class.join("00001.jpg")).unwrap();
    std::fs::write(class.join("00001.jpg"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(class.join("notes.txt"), b"not an image").unwrap();
    let folder = Arc::new(ImageSet::open(dir.path(), Split::Train).unwrap());
    assert_eq!((folder.len(), folder.ignored()), (20, 1));
    let error = folder.image(0).unwrap_err().to_string();
    assert!(error.contains("00000.jpg") && error.contains("0 bytes"), "{error}");
    let error = folder.image(1).unwrap_err().to_string();
    assert!(error.contains("00001.jpg") && error.contains("truncated"), "{error}");
    let skipped: usize = batches(&folder, 2, 0).iter().map(|b| b.skipped.len()).sum();
    assert_eq!(skipped, 2);
}

#[test]
fn missing_class_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    synthetic(dir.path());
    std::fs::remove_dir_all(dir.path().join("val").join(CLASSES[4])).unwrap();
    let error = ImageSet::open(dir.path(), Split::Val).err().unwrap().to_string();
    assert!(error.contains("val does not have these class folders of train: netted-leaf"), "{error}");
    let error = ImageSet::open(&dir.path().join("nowhere"), Split::Val).err().unwrap().to_string();
    assert!(error.contains("folder does not exist"), "{error}");
}

/// Unusual files found in practice, with Pillow's result for each. They are not part of the repository.
#[test]
fn unusual_images_are_decoded_or_refused_like_pillow() {
    let Some(folder) = vgg_tests::real_images("awkward-images") else { return };
    let mut manifest = csv::Reader::from_path(folder.join("manifest.csv")).unwrap();
    // Our decoder is stricter than Pillow: no arithmetic coding, no truncated colour marker.
    let stricter: &[&str] =
        if cfg!(feature = "turbojpeg") { &[] } else { &["arithmetic.JPEG", "truncated_app14.JPEG"] };
    let (mut seen, mut faults) = (0, Vec::new());
    for row in manifest.records().map(Result::unwrap) {
        let (name, format, size, verdict) = (&row[0], &row[2], &row[4], &row[6]);
        let path = folder.join(name);
        let decoded = decode(&std::fs::read(&path).unwrap(), &path);
        let formats = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"];
        let ours = formats.contains(&format) && verdict == "ok" && !stricter.contains(&name);
        match decoded.map(|image| format!("{1}x{0}", image.dim().0, image.dim().1)) {
            Ok(decoded) if ours && decoded == size => (),
            Err(error) if !ours && error.is_bad_image() && error.to_string().contains(name) => (),
            other => faults.push(format!("{name}: {other:?}; Pillow: {verdict}, {size}")),
        }
        seen += 1;
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen >= 30, "{seen} files");
}

/// `tests/reference/jpeg_colours.py` made the files, and Pillow the pixels; it refuses those without a PNG.
#[test]
fn colour_spaces_and_ends_of_jpegs_are_read_like_pillow() {
    let folder = vgg_tests::fixture("jpeg_colours");
    let (mut seen, mut refused) = (0, 0);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jpg") {
            continue;
        }
        let ours = decode(&std::fs::read(&path).unwrap(), &path);
        let png = path.with_extension("png");
        seen += 1;
        if !png.exists() {
            assert!(ours.unwrap_err().to_string().contains("truncated"), "{path:?}");
            refused += 1;
            continue;
        }
        let (ours, pillow) = (ours.unwrap(), decode(&std::fs::read(&png).unwrap(), &png).unwrap());
        assert_eq!(ours.dim(), pillow.dim());
        // Another inverse DCT rounds differently, by one level before colour conversion.
        let most = ours.iter().zip(&pillow).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(most <= Some(3), "{path:?}: {most:?} levels from Pillow's");
    }
    assert_eq!((seen, refused), (23, 3));
}

/// `tests/reference/image_formats.py` made the files, and Pillow the pixels.
#[test]
fn file_formats_are_read_like_pillow() {
    let folder = vgg_tests::fixture("image_formats");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let png = folder.join(format!("{}.png", path.file_name().unwrap().display()));
        if png.exists() {
            let read = |path: &Path| decode(&std::fs::read(path).unwrap(), path).unwrap();
            let (ours, pillow) = (read(&path), read(&png));
            assert_eq!(ours.dim(), pillow.dim(), "{path:?}");
            // Lossy WebP is rounded in another way when its chroma is enlarged.
            let allowed = if path.ends_with("lossy.webp") { 2 } else { 0 };
            let most = ours.iter().zip(&pillow).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(most <= Some(allowed), "{path:?}: {most:?} levels from Pillow's");
            seen += 1;
        }
    }
    assert_eq!(seen, 12);
}

/// A JPEG with this EXIF orientation.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let directory = [b'I', b'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
    let contents = [b"Exif\0\0", &directory[..], &[0; 4]].concat();
    let marker = [&[0xFF, 0xE1, 0, contents.len() as u8 + 2][..], &contents].concat();
    [&jpeg[..2], &marker, &jpeg[2..]].concat()
}

#[test]
fn exif_orientation_is_applied_only_on_request() {
    let path = vgg_tests::fixture("jpeg_colours").join("adobe1.jpg");
    let jpeg = std::fs::read(&path).unwrap();
    let plain = decode(&jpeg, &path).unwrap();
    let (h, w, _) = plain.dim();
    let upright = DecodeOptions { exif_orientation: true, ..DecodeOptions::default() };
    // Where the pixel of row y and column x is stored, by EXIF's definition of the first row and column.
    type Stored = fn(usize, usize, usize, usize) -> (usize, usize);
    let cases: [(u8, Stored); 8] = [
        (1, |y, x, _, _| (y, x)),
        (2, |y, x, _, w| (y, w - 1 - x)),
        (3, |y, x, h, w| (h - 1 - y, w - 1 - x)),
        (4, |y, x, h, _| (h - 1 - y, x)),
        (5, |y, x, _, _| (x, y)),
        (6, |y, x, h, _| (h - 1 - x, y)),
        (7, |y, x, h, w| (h - 1 - x, w - 1 - y)),
        (8, |y, x, _, w| (x, w - 1 - y)),
    ];
    for (orientation, stored) in cases {
        let bytes = with_orientation(&jpeg, orientation);
        assert_eq!(decode(&bytes, &path).unwrap(), plain);
        let turned = decode_with(&bytes, &path, &upright).unwrap();
        assert_eq!(turned.dim(), if orientation < 5 { (h, w, 3) } else { (w, h, 3) });
        for ((y, x, c), value) in turned.indexed_iter() {
            let (row, column) = stored(y, x, h, w);
            assert_eq!(*value, plain[[row, column, c]], "orientation {orientation}");
        }
    }
}

#[test]
fn images_of_more_pixels_than_allowed_are_refused() {
    let folder = vgg_tests::fixture("image_formats");
    for name in ["lossless.webp", "rgb.bmp", "rgb.ppm", "lzw.tif", "frames.gif", "palette.png"] {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).unwrap();
        let pixels = decode(&bytes, &path).unwrap().len() as u64 / 3;
        let limited =
            |max_pixels| decode_with(&bytes, &path, &DecodeOptions { max_pixels, ..Default::default() });
        assert!(limited(pixels).is_ok() && limited(u64::MAX).is_ok(), "{name}");
        let message = limited(pixels - 1).unwrap_err().to_string();
        assert!(message.contains(&format!("at most {} are allowed", pixels - 1)), "{message}");
    }
}
