//! A synthetic data set of ten classes: JPEG scenes with sides of 300 to 500 pixels, each with one textured
//! shape on a cluttered background.
//!
//! A class is a combination of shape and texture. Colours (dark on light), position and tilt are random, and
//! the size varies by a factor of four. Neither colours nor a coarse image reveal the class, and a network
//! trained at one scale is worse at another, so scale jitter helps. The bounding boxes of the objects are
//! written to `boxes.csv`.

mod object;
mod scene;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use serde::{Deserialize, Serialize};

pub use object::CLASSES;
pub use scene::{Scene, ScenePixels};

use vgg_files::Lock;

use crate::{Error, Image, ImageSet, Result, Split};

/// Increased whenever the same seed would generate different images.
const VERSION: u32 = 1;
/// JPEG quality.
const QUALITY: u8 = 87;
/// Recipe of a complete set; written last.
const RECIPE: &str = "synthetic.json";
/// Recipe of an incomplete set; written first and removed at the end.
const UNFINISHED: &str = "synthetic-unfinished.json";

/// Table of the objects' bounding boxes.
const BOXES: &str = "boxes.csv";

/// Settings of a synthetic data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyntheticConfig {
    /// Seed of all images. The default is 1.
    pub seed: u64,
    /// Number of training images per class. The default is 200.
    pub train_per_class: usize,
    /// Number of validation images per class. The default is 50.
    pub val_per_class: usize,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        SyntheticConfig { seed: 1, train_per_class: 200, val_per_class: 50 }
    }
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Recipe {
    version: u32,
    #[serde(flatten)]
    config: SyntheticConfig,
}

/// Whether `out` holds this set, complete and made by this version of the generator.
pub fn is_made(out: &Path, config: &SyntheticConfig) -> bool {
    let recipe: vgg_files::Result<Recipe> = vgg_files::read_json(&out.join(RECIPE));
    recipe.is_ok_and(|r| r == Recipe::of(config))
}

/// Writes the set to `out`: `train/<class>/*.jpg`, `val/<class>/*.jpg`, and `boxes.csv` with the bounding box
/// of every object in pixels, `path,left,top,right,bottom`, right and bottom exclusive.
///
/// The files are bitwise identical for any number of `threads`. `progress` is called with the number of
/// images that are written and the total number. An interrupted generation can be repeated.
///
/// # Errors
/// [`Error::Config`] if `train_per_class` or `val_per_class` is 0; [`Error::Layout`] if `out` holds other
/// files, which are not changed; [`Error::Missing`] or [`Error::Io`] if a file cannot be written, or another
/// process is writing to `out`.
pub fn generate(
    out: &Path,
    config: &SyntheticConfig,
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<()> {
    if config.train_per_class == 0 || config.val_per_class == 0 {
        return Err(Error::Config(
            "a synthetic data set needs at least one image per class in train and in val".into(),
        ));
    }
    let recipe = Recipe::of(config);
    let _lock = Lock::acquire(out).map_err(file)?;
    refuse_foreign(out, &recipe)?;
    vgg_files::write_json(&out.join(UNFINISHED), &recipe).map_err(file)?;
    for (split, class) in [Split::Train, Split::Val].into_iter().flat_map(|s| CLASSES.map(|c| (s, c))) {
        let folder = out.join(split.name()).join(class);
        std::fs::create_dir_all(&folder).map_err(crate::error::io_error("create", &folder))?;
    }
    let tasks = tasks(config);
    let (next, boxes) = (AtomicUsize::new(0), std::sync::Mutex::new(vec![String::new(); tasks.len()]));
    let done = AtomicUsize::new(0);
    let work = || -> Result<()> {
        loop {
            let i = next.fetch_add(1, Relaxed);
            let Some(task) = tasks.get(i) else { return Ok(()) };
            let line = write_image(out, config, task)?;
            boxes.lock().map_err(|_| Error::Worker)?[i] = line;
            progress(done.fetch_add(1, Relaxed) + 1, tasks.len());
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| Error::Worker)?)
    })?;
    let lines = boxes.into_inner().map_err(|_| Error::Worker)?;
    let table = format!("path,left,top,right,bottom\n{}", lines.concat());
    vgg_files::write_bytes(&out.join(BOXES), table.as_bytes()).map_err(file)?;
    vgg_files::write_json(&out.join(RECIPE), &recipe).map_err(file)?;
    let unfinished = out.join(UNFINISHED);
    std::fs::remove_file(&unfinished).map_err(crate::error::io_error("remove", &unfinished))
}

impl Recipe {
    fn of(config: &SyntheticConfig) -> Recipe {
        Recipe { version: VERSION, config: *config }
    }
}

/// Opens the training and validation splits of the set in `out`. Generates the set if it does not exist.
///
/// # Errors
/// As [`generate`] and [`ImageSet::open`].
pub fn open_or_generate(
    out: &Path,
    config: &SyntheticConfig,
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<[ImageSet; 2]> {
    if !is_made(out, config) {
        generate(out, config, threads, progress)?;
    }
    Ok([ImageSet::open(out, Split::Train)?, ImageSet::open(out, Split::Val)?])
}

struct Task {
    split: Split,
    class: usize,
    index: usize,
}

fn tasks(config: &SyntheticConfig) -> Vec<Task> {
    let split = |split, n| {
        (0..CLASSES.len()).flat_map(move |class| (0..n).map(move |index| Task { split, class, index }))
    };
    split(Split::Train, config.train_per_class).chain(split(Split::Val, config.val_per_class)).collect()
}

/// Writes one image and returns its line of `boxes.csv`.
fn write_image(out: &Path, config: &SyntheticConfig, task: &Task) -> Result<String> {
    let number =
        ((task.index * CLASSES.len() + task.class) * 2 + usize::from(task.split == Split::Val)) as u64;
    let made = Scene::draw(config.seed, number, task.class).render();
    let path = format!("{}/{}/{:05}.jpg", task.split.name(), CLASSES[task.class], task.index);
    // Images are not synced one by one: the recipe is written last, and the set can be generated again.
    let target = out.join(&path);
    std::fs::write(&target, encode(&made.image)?).map_err(crate::error::io_error("write", &target))?;
    let [left, top, right, bottom] = made.bounding_box;
    let mut line = String::new();
    let _ = writeln!(line, "{path},{left},{top},{right},{bottom}");
    Ok(line)
}

fn encode(image: &Image) -> Result<Vec<u8>> {
    let (h, w, _) = image.dim();
    let mut bytes = Vec::new();
    let fail =
        |e: jpeg_encoder::EncodingError| Error::Config(format!("cannot encode a synthetic image: {e}"));
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let pixels = image.as_slice().unwrap_or_default();
    encoder.encode(pixels, w as u16, h as u16, ColorType::Rgb).map_err(fail)?;
    Ok(bytes)
}

/// Returns an error if `out` holds files of anything but this set: images among them would become samples,
/// and no existing file is removed. Files of an interrupted generation of the same recipe are overwritten.
fn refuse_foreign(out: &Path, recipe: &Recipe) -> Result<()> {
    let refuse = |what: &str| {
        let reason = format!("{what}; choose another folder, or remove the existing files first");
        Err(Error::Layout { path: out.to_owned(), reason })
    };
    for name in [RECIPE, UNFINISHED] {
        match vgg_files::read_json::<Recipe>(&out.join(name)) {
            Ok(found) if found == *recipe => return Ok(()),
            Err(e) if e.is_missing() => (),
            _ => return refuse("the folder holds another synthetic set"),
        }
    }
    if out.join(BOXES).exists() {
        return refuse("the folder has a boxes.csv of another origin");
    }
    for split in [Split::Train, Split::Val] {
        let folder = out.join(split.name());
        if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return refuse(&format!("its subfolder {} is not empty", split.name()));
        }
    }
    Ok(())
}

fn file(e: vgg_files::Error) -> Error {
    match e {
        vgg_files::Error::Io { path, source, .. } => {
            Error::Io { action: "write", path, reason: source.to_string() }
        }
        vgg_files::Error::Locked { path } => {
            Error::Io { action: "write to", path, reason: "another process is using the folder".into() }
        }
        other => Error::Config(other.to_string()),
    }
}
