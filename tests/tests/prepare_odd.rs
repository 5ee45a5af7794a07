//! Images that differ from their extension, CMYK or 16-bit images, absurd sizes, and names that are not
//! UTF-8: each is used, or refused by name, and nothing else is lost.

mod preparation;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use image::{DynamicImage, ImageFormat};
use preparation::{descriptions, ilsvrc, images, options_with_shards_of_kib, prepare_quietly};
use vgg_data::prepare::{Files, Layout};
use vgg_data::{ImageSet, Interpolation, Manifest, Split};
use vgg_testkit::imagenet::{ARCHIVES, FakeImagenet};

fn png(image: &DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A JPEG whose header claims other sides.
fn claims(jpeg: &[u8], side: u16) -> Vec<u8> {
    let mut bytes = jpeg.to_vec();
    let frame = bytes.windows(4).position(|w| w[0] == 0xFF && w[1] == 0xC0 && w[2] == 0).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&side.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&side.to_be_bytes());
    bytes
}

#[test]
fn unusual_images_are_used_or_refused_by_name() {
    let jpeg = images().remove(0);
    let fixture = |name: &str| std::fs::read(vgg_tests::fixture("jpeg_colours").join(name)).unwrap();
    let grey = image::GrayImage::from_fn(50, 40, |x, y| image::Luma([(x * 5 + y) as u8]));
    let alpha = image::RgbaImage::from_fn(50, 40, |x, y| image::Rgba([x as u8, y as u8, 7, (x * 3) as u8]));
    let deep =
        image::ImageBuffer::from_fn(50, 40, |x, y| image::Rgb([x as u16 * 1000, y as u16 * 1000, 65535]));
    let cut = jpeg[..jpeg.len() - 20].to_vec();
    // Used, with the anomaly if any; or refused, with a word of the reason.
    type Fate = Result<Option<&'static str>, &'static str>;
    let odd: [(&str, Vec<u8>, Fate); 10] = [
        ("grey.JPEG", png(&grey.into()), Ok(Some("PNG"))),
        ("alpha.JPEG", png(&alpha.into()), Ok(Some("PNG"))),
        ("deep.png", png(&DynamicImage::ImageRgb16(deep)), Ok(None)),
        ("cmyk.JPEG", fixture("cmyk_adobe.jpg"), Ok(Some("CMYK"))),
        ("ycck.JPEG", fixture("ycck.jpg"), Ok(Some("CMYK"))),
        ("plain.JPEG", jpeg.clone(), Ok(None)),
        ("huge.JPEG", claims(&jpeg, 30_000), Err("30000")),
        ("cut.JPEG", cut, Err("truncated")),
        ("empty.JPEG", Vec::new(), Err("empty")),
        ("heic.JPEG", b"\0\0\0\x1cftypheic\0\0\0\0".to_vec(), Err("HEIC")),
    ];
    let dir = tempfile::tempdir().unwrap();
    let (class, out) = (dir.path().join("set/train/a"), dir.path().join("out"));
    std::fs::create_dir_all(&class).unwrap();
    odd.iter().for_each(|(name, bytes, _)| std::fs::write(class.join(name), bytes).unwrap());
    prepare_quietly(
        &Files::open(&dir.path().join("set"), Layout::Folders).unwrap(),
        &options_with_shards_of_kib(40),
        &out,
        2,
    )
    .unwrap();
    let manifest = Manifest::read(&out).unwrap();
    let split = &manifest.splits[&Split::Train];
    let by_name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let unusual: BTreeMap<_, _> = split.anomalies.iter().map(|odd| (by_name(&odd.path), &odd.what)).collect();
    let refused: BTreeMap<_, _> = split.skipped.iter().map(|out| (by_name(&out.path), &out.reason)).collect();
    let set = ImageSet::open(&out, Split::Train).unwrap();
    let described = descriptions(&out);
    for (name, bytes, expected) in &odd {
        match expected {
            Ok(what) => {
                let found = unusual.get(*name).map(|text| text.as_str());
                assert!(
                    found.is_some_and(|text| what.is_some_and(|w| text.contains(w)))
                        || what.is_none() && found.is_none(),
                    "{name}: {found:?}"
                );
                let stem = name.split('.').next().unwrap();
                let index = (0..set.len()).find(|&i| set.path(i).contains(&format!("a/{stem}."))).unwrap();
                let (ours, path) = (set.image(index).unwrap(), Path::new(name));
                let whole = vgg_data::decode(bytes, path).unwrap();
                assert_eq!(ours.dim().2, 3);
                assert_eq!(described[&format!("train/a/{name}")]["height"], whole.dim().0);
                // Images above a smallest side of 64 are downscaled to it, others kept.
                let large = whole.dim().0 > 64;
                let side = whole.dim().0.min(whole.dim().1).min(64);
                let (h, w) = vgg_data::scaled_size(whole.dim().0, whole.dim().1, side);
                let whole = vgg_data::resize(&whole, h, w, Interpolation::Bilinear).unwrap();
                assert_eq!(ours.dim(), whole.dim(), "{name}");
                let mean = ours.iter().zip(&whole).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>()
                    / ours.len() as f64;
                assert!(large || mean < 3.0, "{name}: {mean} levels away");
            }
            Err(word) => {
                assert!(refused.get(*name).is_some_and(|reason| reason.contains(word)), "{name}: {refused:?}")
            }
        }
    }
    assert_eq!((set.len(), refused.len()), (6, 4));
}

#[test]
fn non_utf8_names_are_replaced() {
    let name = OsStr::from_bytes(b"caf\xe9.JPEG");
    let jpegs = images();
    let dir = tempfile::tempdir().unwrap();
    let class = dir.path().join("set/train/a");
    std::fs::create_dir_all(&class).unwrap();
    std::fs::write(class.join(name), &jpegs[0]).unwrap();
    let shards = dir.path().join("shards");
    let files = Files::open(&dir.path().join("set"), Layout::Folders).unwrap();
    prepare_quietly(&files, &options_with_shards_of_kib(40), &shards, 1).unwrap();
    assert_eq!(ImageSet::open(&shards, Split::Train).unwrap().len(), 1);
    // Archives may contain such names, too; in a shard each gets a unique ASCII name.
    let archives = dir.path().join("archives");
    let fake = FakeImagenet::new(&jpegs[..6]);
    fake.write(&archives);
    let member = |path: &Path, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        let mut all = [header.as_bytes(), bytes].concat();
        all.resize(all.len().next_multiple_of(512), 0);
        all
    };
    let other = OsStr::from_bytes(b"caf\xe8.JPEG");
    let inner =
        [member(Path::new(name), &jpegs[0]), member(Path::new(other), &jpegs[1]), vec![0; 1024]].concat();
    let archive = format!("{}.tar", fake.train[0].0);
    let outer = [member(Path::new(&archive), &inner), vec![0; 1024]].concat();
    std::fs::write(archives.join(ARCHIVES[0]), outer).unwrap();
    let out = dir.path().join("out");
    prepare_quietly(&ilsvrc(&archives), &options_with_shards_of_kib(40), &out, 1).unwrap();
    let set = ImageSet::open(&out, Split::Train).unwrap();
    let (first, second) = (set.path(0).into_owned(), set.path(1).into_owned());
    assert!(set.len() == 2 && first != second && first.is_ascii() && second.is_ascii(), "{first}, {second}");
}
