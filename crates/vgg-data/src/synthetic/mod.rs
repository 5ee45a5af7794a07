//! A data set from nothing: natural-sized JPEG scenes with one textured shape each on clutter, ten classes.
//!
//! A class is a shape with its texture, dark on light in any colours, at any place, a little tilted, at sizes spread over
//! a factor of four. So neither colours nor coarse pixels give it away, and a network that has seen one scale loses at
//! another: scale jitter has something to win. The bounding box of every object is written beside the images.

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

/// Changes whenever the same seed would make other images.
const VERSION: u32 = 1;
const QUALITY: u8 = 87;
/// Written last: says that the set is whole, and what it was made from.
const RECIPE: &str = "synthetic.json";
/// Written first, and removed in the end: what is being made.
const UNFINISHED: &str = "synthetic-unfinished.json";

/// Bounding boxes of the objects.
const BOXES: &str = "boxes.csv";

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyntheticConfig {
    /// Seed of everything.
    pub seed: u64,
    /// Training images of each class.
    pub train_per_class: usize,
    /// Validation images of each class.
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

/// Whether `out` already holds exactly this set.
pub fn is_made(out: &Path, config: &SyntheticConfig) -> bool {
    let recipe: vgg_files::Result<Recipe> = vgg_files::read_json(&out.join(RECIPE));
    recipe.is_ok_and(|r| r == Recipe::of(config))
}

/// Writes the set to `out`: `train/<class>/*.jpg`, `val/<class>/*.jpg`, and `boxes.csv` with the bounding box of every
/// object in pixels, `path,left,top,right,bottom`, right and bottom exclusive.
///
/// The same configuration makes the same bytes, for any number of `threads`. `progress` hears how many images are done.
///
/// # Errors
/// [`Error::Config`] if there would be no images; [`Error::Layout`] if `out` holds something else, which is left as it
/// is; [`Error::Io`], also if another process is making the set.
pub fn generate(
    out: &Path,
    config: &SyntheticConfig,
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<()> {
    if config.train_per_class == 0 || config.val_per_class == 0 {
        return Err(Error::Config(
            "a synthetic set needs at least one image per class in train and in val".into(),
        ));
    }
    let recipe = Recipe::of(config);
    let _lock = Lock::acquire(out).map_err(file)?;
    refuse_foreign(out, &recipe)?;
    vgg_files::write_json(&out.join(UNFINISHED), &recipe).map_err(file)?;
    for (split, class) in [Split::Train, Split::Val].into_iter().flat_map(|s| CLASSES.map(|c| (s, c))) {
        let folder = out.join(split.name()).join(class);
        std::fs::create_dir_all(&folder).map_err(crate::error::at("create", &folder))?;
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
    std::fs::remove_file(&unfinished).map_err(crate::error::at("remove", &unfinished))
}

impl Recipe {
    fn of(config: &SyntheticConfig) -> Recipe {
        Recipe { version: VERSION, config: *config }
    }
}

/// Opens the set in `out`, making it first if it is not there.
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

/// Writes one image and returns its line of the table of boxes.
fn write_image(out: &Path, config: &SyntheticConfig, task: &Task) -> Result<String> {
    let number =
        ((task.index * CLASSES.len() + task.class) * 2 + usize::from(task.split == Split::Val)) as u64;
    let made = Scene::draw(config.seed, number, task.class).render();
    let path = format!("{}/{}/{:05}.jpg", task.split.name(), CLASSES[task.class], task.index);
    // Not synced one by one: the recipe is written last, and the whole set can be made again.
    let target = out.join(&path);
    std::fs::write(&target, encode(&made.image)?).map_err(crate::error::at("write", &target))?;
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

/// Refuses to write among files that are not of this set: images left there would become samples, and nothing of
/// anybody else's is removed. What an interrupted run of the same recipe left is written again, byte by byte the same.
fn refuse_foreign(out: &Path, recipe: &Recipe) -> Result<()> {
    let refuse = |what: &str| {
        let reason = format!("{what}; give another folder, or remove it yourself");
        Err(Error::Layout { path: out.to_owned(), reason })
    };
    for name in [RECIPE, UNFINISHED] {
        match vgg_files::read_json::<Recipe>(&out.join(name)) {
            Ok(found) if found == *recipe => return Ok(()),
            Err(e) if e.is_missing() => (),
            _ => return refuse("it holds another synthetic set"),
        }
    }
    if out.join(BOXES).exists() {
        return refuse("there is another boxes.csv");
    }
    for split in [Split::Train, Split::Val] {
        let folder = out.join(split.name());
        if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return refuse(&format!("there is something in its {} already", split.name()));
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
            Error::Io { action: "write to", path, reason: "another process is at it".into() }
        }
        other => Error::Config(other.to_string()),
    }
}
