//! Options for data sets and images, and their reports.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use vgg::system::free_memory_bytes;
use vgg_data::{DecodeOptions, ImageSet, OnBadImage, Split};
use vgg_error::printable;
use vgg_experiment::{Dataset, DatasetOptions, RunPlan};

use super::options::choice;
use super::ranks::Ranks;
use crate::console::{note, warning};
use crate::exit::UsageError;

/// Limits of data sets that are read in every epoch.
#[derive(Args)]
pub(super) struct TrainDataOptions {
    /// Memory for decoded images, such as 2GiB, per rank. It shrinks when memory becomes scarce. Default: a quarter of
    /// the free memory, shared by the ranks of a machine.
    #[arg(long, value_name = "BYTES", value_parser = size)]
    image_cache: Option<u64>,
    #[command(flatten)]
    pixels: PixelLimit,
}

#[derive(Args)]
struct PixelLimit {
    /// Largest number of pixels of an image, such as 200M; larger ones count as bad images.
    #[arg(long, value_name = "PIXELS", default_value = "100M", value_parser = pixels)]
    max_image_pixels: u64,
}

/// How image files are decoded.
#[derive(Args)]
pub(super) struct ImageOptions {
    #[command(flatten)]
    pixels: PixelLimit,
    /// Turn images as their EXIF orientation says. The paper does not mention it; training ignores it unless
    /// data.exif_orientation is set.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, value_name = "true|false")]
    exif_orientation: bool,
}

#[derive(Args)]
pub(super) struct BadImageOption {
    /// What to do with an image that cannot be decoded: stop, or skip and list it.
    #[arg(long, default_value = "stop", value_parser = choice(&OnBadImage::ALL))]
    pub(super) on_bad_image: OnBadImage,
}

/// A number with an optional suffix, such as 512MiB or 100M.
fn size(text: &str) -> Result<u64, String> {
    parse_size::parse_size(text).map_err(|_| "expected a number of bytes, such as 512MiB".to_owned())
}

/// A number of pixels with an optional suffix, such as 100M.
fn pixels(text: &str) -> Result<u64, String> {
    let number = parse_size::parse_size(text).ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a number of pixels above 0, such as 100M".to_owned())
}

impl ImageOptions {
    pub(super) fn decode_options(&self) -> DecodeOptions {
        DecodeOptions { max_pixels: self.pixels.max_image_pixels, exif_orientation: self.exif_orientation }
    }
}

/// Opens and reports the data set of `plans`.
pub(super) fn open_dataset(
    root: &Path,
    options: &TrainDataOptions,
    plans: &[RunPlan],
    ranks: &Ranks,
) -> Result<Dataset> {
    let exif_orientation = plans.first().is_some_and(|plan| plan.data.exif_orientation);
    if plans.iter().any(|plan| plan.data.exif_orientation != exif_orientation) {
        return Err(UsageError("all runs need the same data.exif_orientation".into()).into());
    }
    let quarter = || free_memory_bytes() / 4 / ranks.local().1 as u64;
    let dataset = Dataset::open_with(
        root,
        &DatasetOptions {
            cache_bytes: options.image_cache.unwrap_or_else(quarter),
            free_memory_bytes: Some(free_memory_bytes),
            decode: DecodeOptions { max_pixels: options.pixels.max_image_pixels, exif_orientation },
        },
    )?;
    note(&format!(
        "data set: {}, {} classes, {} training and {} validation images",
        printable(root),
        dataset.train.classes().len(),
        dataset.train.len(),
        dataset.val.len()
    ));
    [&dataset.train, &dataset.val].into_iter().for_each(|image_set| say_ignored(image_set));
    warn_of_one_class(&dataset.train);
    Ok(dataset)
}

/// Opens a split and reports what it leaves out.
pub(super) fn open_split(root: &Path, split: Split, images: &ImageOptions) -> Result<ImageSet> {
    let image_set = ImageSet::open(root, split)?.with_decode_options(images.decode_options());
    say_ignored(&image_set);
    warn_of_one_class(&image_set);
    Ok(image_set)
}

fn warn_of_one_class(image_set: &ImageSet) {
    if image_set.classes().len() == 1 {
        warning("warning: the data set has one class, so there is nothing to distinguish");
    }
}

/// Reports the files of a split that are not read, and the folder that serves as the split.
pub(super) fn say_ignored(image_set: &ImageSet) {
    let split = image_set.split().name();
    if let Some(folder) = image_set.unusual_folder() {
        note(&format!("data set: the folder {folder} serves as {split}"));
    }
    for (format, count) in image_set.unsupported() {
        warning(&format!("warning: {split}: ignored {count} {format} images: the format is not supported"));
    }
    if image_set.without_class() > 0 {
        let count = image_set.without_class();
        warning(&format!("warning: {split}: ignored {count} images outside of the class folders"));
    }
    if image_set.ignored() > 0 {
        note(&format!("data set: {split}: ignored {} files that are not images", image_set.ignored()));
    }
}

/// Lists the images whose format differs from their extension.
pub(super) fn say_misnamed(folder: &ImageSet) {
    let misnamed = folder.misnamed();
    for (path, format) in misnamed.iter().take(5) {
        note(&format!("note: {path} is a {format} file despite its extension and was decoded as such"));
    }
    if misnamed.len() > 5 {
        note(&format!("note: {} more images differ in format from their extensions", misnamed.len() - 5));
    }
}
