//! A data set shared by runs: both splits, opened once, and the statistics of the training pixels.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vgg_data::{DecodeOptions, ImageSet, PixelStatistics, Prefetcher, Split};
use vgg_error::printable;
use vgg_files::{Hash, hash_bytes, read_checksummed_json, write_checksummed_json};
use vgg_tensor::ProcessGroup;

use crate::ranks::from_first;
use crate::{Error, Result, RunPlan};

/// Both splits of a data set.
pub struct Dataset {
    /// Training images.
    pub train: Arc<ImageSet>,
    /// Images for validation and testing.
    pub val: Arc<ImageSet>,
    /// Hash of both splits: of names, sizes and classes of all images for folders; of classes, index, names and
    /// contents for shards.
    pub hash: Hash,
}

/// How a [`Dataset`] is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct DatasetOptions {
    /// Largest size of the decoded images in memory, for both splits together, in bytes.
    pub cache_bytes: u64,
    /// Returns the free memory in bytes. If given, the cache shrinks when memory is scarce.
    pub free_memory_bytes: Option<fn() -> u64>,
    /// How images are decoded.
    pub decode: DecodeOptions,
}

/// Contents of a file `statistics-<hash>.json`.
#[derive(Serialize, Deserialize)]
struct KeptStatistics {
    /// Hash of the data set.
    dataset: Hash,
    /// Statistics of the training pixels.
    statistics: PixelStatistics,
}

impl Dataset {
    /// Opens both splits. Up to `cache_bytes` of decoded images are kept in memory, shared by all runs.
    ///
    /// # Errors
    /// [`crate::Error::Data`] if a folder is missing or the splits have different classes.
    pub fn open(root: &Path, cache_bytes: u64) -> Result<Dataset> {
        Dataset::open_with(root, &DatasetOptions { cache_bytes, ..DatasetOptions::default() })
    }

    /// As [`Dataset::open`], with more options.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_with(root: &Path, options: &DatasetOptions) -> Result<Dataset> {
        let open = |split| Ok::<_, Error>(ImageSet::open(root, split)?.with_decode_options(options.decode));
        let (train, val) = (open(Split::Train)?, open(Split::Val)?);
        let hash = hash_bytes(format!("{}\n{}", train.hash(), val.hash()).as_bytes());
        // Every validation image is read as often as every training image, so the cache is divided by the
        // number of images.
        let share = options.cache_bytes / (train.len() + val.len()).max(1) as u64;
        let with_cache = |set: ImageSet| {
            let bytes = share * set.len() as u64;
            Arc::new(match options.free_memory_bytes {
                Some(free_bytes) => set.with_shrinking_cache(bytes, free_bytes),
                None => set.with_cache(bytes),
            })
        };
        Ok(Dataset { train: with_cache(train), val: with_cache(val), hash })
    }

    /// Name of the data set's folder, for reports.
    pub fn name(&self) -> String {
        let name = self.train.root().file_name();
        name.map_or_else(|| printable(&self.train.root()).to_string(), |n| n.to_string_lossy().into_owned())
    }

    /// Checks the images against the settings of a run.
    ///
    /// # Errors
    /// [`Error::Plan`] if images that were downscaled in preparation would be enlarged, or the data set was opened with
    /// another `exif_orientation`.
    pub(crate) fn check_plan(&self, plan: &RunPlan) -> Result<()> {
        if self.train.decode_options().exif_orientation != plan.data.exif_orientation {
            let what = "the data set was opened with another EXIF orientation than data.exif_orientation";
            return Err(Error::Plan(what.into()));
        }
        let largest = plan.data.train_scale[1];
        match self.train.smallest_side() {
            Some(side) if side < largest && !plan.data.enlarge => Err(Error::Plan(format!(
                "the prepared images were reduced to a smallest side of {side}, but train_scale goes up to {largest}: \
                 prepare them again with a smallest side of {largest}, or set data.enlarge = true"
            ))),
            _ => Ok(()),
        }
    }

    /// Statistics of all training pixels. Rank 0 of `group` computes them once and stores them in the folder
    /// `cache` for later runs. Images that cannot be decoded are skipped; training applies its own policy to
    /// them. `progress` receives the number of finished images.
    ///
    /// # Errors
    /// [`crate::Error::Data`] if an image is missing or none can be decoded; [`crate::Error::File`] if
    /// the result cannot be stored.
    pub fn statistics(
        &self,
        cache: &Path,
        workers: usize,
        group: &dyn ProcessGroup,
        progress: &mut dyn FnMut(usize),
    ) -> Result<PixelStatistics> {
        match self.train.statistics() {
            Some(known) => Ok(known),
            None => from_first(group, || self.kept_statistics(cache, workers, progress)),
        }
    }

    fn kept_statistics(
        &self,
        cache: &Path,
        workers: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<PixelStatistics> {
        let path = cache.join(format!("statistics-{}.json", self.hash.short()));
        match read_checksummed_json::<KeptStatistics>(&path) {
            Ok(kept) if kept.dataset == self.hash => return Ok(kept.statistics),
            Ok(_) => {
                let reason = "it has the statistics of another data set; remove it".into();
                return Err(vgg_files::Error::Corrupt { path, reason }.into());
            }
            Err(e) if e.is_missing() => (),
            Err(e) => return Err(e.into()),
        }
        let folder = self.train.clone();
        let of_image = move |index: usize| -> vgg_data::Result<PixelStatistics> {
            let mut one = PixelStatistics::default();
            one.add(&*folder.image(index)?);
            Ok(one)
        };
        let mut jobs = Prefetcher::new(workers, 4 * workers, of_image)?;
        let (mut next, mut done, mut sum) = (0, 0, PixelStatistics::default());
        let mut first_bad = None;
        loop {
            while jobs.has_room() && next < self.train.len() {
                jobs.submit(next)?;
                next += 1;
            }
            match jobs.recv()? {
                None => break,
                Some(Ok(one)) => sum.merge(&one),
                Some(Err(e)) if e.is_bad_image() => drop(first_bad.get_or_insert(e)),
                Some(Err(e)) => return Err(e.into()),
            }
            done += 1;
            progress(done);
        }
        if sum.pixels == 0 {
            let path = self.train.root().to_owned();
            let first = first_bad.map(|e| format!(": {e}")).unwrap_or_default();
            let reason = format!("no training image can be decoded{first}");
            return Err(vgg_data::Error::Layout { path, reason }.into());
        }
        write_checksummed_json(&path, &KeptStatistics { dataset: self.hash.clone(), statistics: sum })?;
        Ok(sum)
    }
}
