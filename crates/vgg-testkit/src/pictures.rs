//! Small images of seven classes, identical to those of `tests/reference/small_run.py`.

use std::path::{Path, PathBuf};

use ndarray::Array3;

use crate::fmix32;

/// Number of classes of [`picture`].
pub const PICTURE_CLASSES: usize = 7;
/// Number of images per class and split.
pub const PICTURES_PER_CLASS: usize = 2;

/// `[H, W, 3]` pixels of 0..255: a ramp that depends on the class, plus noise that depends on the number.
///
/// Training images are numbered from 0, validation images from 100, class by class. Five sizes alternate.
pub fn picture(number: usize, class: usize) -> Array3<u8> {
    const SIZES: [(usize, usize); 5] = [(40, 52), (61, 40), (48, 48), (75, 44), (44, 90)];
    let (h, w) = SIZES[number % 5];
    Array3::from_shape_fn((h, w, 3), |(y, x, c)| {
        let ramp = (x * (class + 1) + y * (7 - class) + c * 40 + class * 31) % 256;
        let noise = fmix32((number * 100_000 + y * 1000 + x * 4 + c) as u32) >> 26;
        (ramp * 3 / 4 + noise as usize) as u8
    })
}

/// Path of image `index` of a split in the data set `set`.
pub fn picture_path(set: &Path, split: &str, index: usize) -> PathBuf {
    let class = format!("class{}", index / PICTURES_PER_CLASS);
    set.join(split).join(class).join(format!("{}.png", index % PICTURES_PER_CLASS))
}

/// Creates the folders of both splits in `set` and writes each image with `write`.
pub fn make_pictures(set: &Path, write: impl Fn(&Path, &Array3<u8>)) -> std::io::Result<()> {
    for (split, first) in [("train", 0), ("val", 100)] {
        for class in 0..PICTURE_CLASSES {
            std::fs::create_dir_all(set.join(split).join(format!("class{class}")))?;
            for index in class * PICTURES_PER_CLASS..(class + 1) * PICTURES_PER_CLASS {
                write(&picture_path(set, split, index), &picture(first + index, class));
            }
        }
    }
    Ok(())
}
