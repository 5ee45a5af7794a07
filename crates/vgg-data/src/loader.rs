//! [`Loader`]: batches of training images, prefetched by worker threads.

use std::sync::Arc;
use std::time::Duration;

use ndarray::{Array2, Array4};
use serde::{Deserialize, Serialize};

use crate::{
    AugmentConfig, BadImage, Batch, Error, ImageSet, KeyedRng, Partition, Permutation, Prefetcher, Purpose,
    Result,
};

/// What to do if an image cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadImage {
    /// Return the error, with path and reason.
    Stop,
    /// Leave the image out of its batch and list it in [`Batch::skipped`].
    Skip,
}

impl OnBadImage {
    /// All values with their names.
    pub const ALL: [(&'static str, OnBadImage); 2] = [("stop", OnBadImage::Stop), ("skip", OnBadImage::Skip)];
}

/// Settings of a [`Loader`].
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Augmentation of the images.
    pub augment: AugmentConfig,
    /// Mean RGB that is subtracted from the pixels, 0..255.
    pub mean_rgb: [f32; 3],
    /// Batch size over all ranks. The last batch of an epoch may be smaller.
    pub batch: usize,
    /// Seed of the order and the augmentation.
    pub seed: u64,
    /// What to do if an image cannot be decoded.
    pub on_bad_image: OnBadImage,
    /// Number of worker threads; 0 counts as 1. The batches do not depend on it.
    pub workers: usize,
    /// The part of each batch that this loader makes: its index is the rank, its count the world size.
    pub partition: Partition,
}

/// Loads batches of a data set. Their order and pixels depend only on the settings, the seed and the epoch.
pub struct Loader {
    image_set: Arc<ImageSet>,
    batches: Prefetcher<Job, Result<Batch>>,
    spare: Vec<Vec<u8>>,
    samples: usize,
    batch: usize,
    seed: u64,
    partition: Partition,
}

/// The order of the samples in one epoch, divided into batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochOrder {
    epoch: u64,
    order: Permutation,
    batch: usize,
    partition: Partition,
}

struct Job {
    epoch: u64,
    ids: Vec<usize>,
    /// Buffer of an earlier batch, reused because allocating a new one takes longer than filling it.
    pixels: Vec<u8>,
}

impl Loader {
    /// Starts the worker threads.
    ///
    /// # Errors
    /// [`Error::Config`] if the augmentation, the batch size or the rank is invalid.
    pub fn new(image_set: Arc<ImageSet>, config: LoaderConfig) -> Result<Loader> {
        config.augment.check()?;
        if config.batch == 0 {
            return Err(Error::Config("batch must be at least 1".into()));
        }
        if !config.partition.is_valid() {
            let Partition { index, count } = config.partition;
            return Err(Error::Config(format!(
                "rank {index} is not valid for world size {count}: ranks are 0 to world size - 1"
            )));
        }
        let (samples, batch) = (image_set.len(), config.batch);
        let (seed, partition) = (config.seed, config.partition);
        let workers = config.workers.max(1);
        let set = image_set.clone();
        let batches = Prefetcher::new(workers, workers + 2, move |job| make_batch(&set, &config, job))?;
        Ok(Loader { image_set, batches, spare: Vec::new(), samples, batch, seed, partition })
    }

    /// The order of the samples in an epoch, for this loader's rank.
    pub fn epoch_order(&self, epoch: u64) -> EpochOrder {
        EpochOrder::new(self.samples, self.batch, self.seed, epoch).for_partition(self.partition)
    }

    /// Calls `consume` with each batch of an epoch, in order from batch `first`, until it returns `false`.
    /// The second argument is the time spent waiting for the batch.
    ///
    /// # Errors
    /// Errors of `consume`; errors of [`ImageSet::image`] and [`AugmentConfig::apply`]; [`Error::Worker`] if
    /// a worker panicked.
    pub fn for_each<E: From<Error>>(
        &mut self,
        epoch: u64,
        first: usize,
        mut consume: impl FnMut(&Batch, Duration) -> std::result::Result<bool, E>,
    ) -> std::result::Result<(), E> {
        let plan = self.epoch_order(epoch);
        let result = self.run(&plan, first, &mut consume);
        // Discard the prefetched batches after an early exit, so that the next epoch does not receive them.
        while self.batches.under_way() > 0 {
            let _ = self.batches.recv();
        }
        result
    }

    fn run<E: From<Error>>(
        &mut self,
        plan: &EpochOrder,
        first: usize,
        consume: &mut impl FnMut(&Batch, Duration) -> std::result::Result<bool, E>,
    ) -> std::result::Result<(), E> {
        let mut numbers = first..plan.batches();
        loop {
            while self.batches.has_room()
                && let Some(i) = numbers.next()
            {
                let pixels = self.spare.pop().unwrap_or_default();
                let ids = plan.batch(i);
                ids.iter().for_each(|&id| self.image_set.prefetch(id));
                self.batches.submit(Job { epoch: plan.epoch, ids, pixels })?;
            }
            let Some(batch) = self.batches.recv()? else { return Ok(()) };
            let waited = self.batches.take_waited();
            let batch = batch?;
            let more = consume(&batch, waited)?;
            self.spare.push(batch.pixels.into_raw_vec_and_offset().0);
            if !more {
                return Ok(());
            }
        }
    }
}

impl EpochOrder {
    /// The order of `samples` samples in an epoch, in batches of `batch`.
    pub fn new(samples: usize, batch: usize, seed: u64, epoch: u64) -> EpochOrder {
        let mut order = KeyedRng::new(seed, epoch, 0, Purpose::Order);
        let order = Permutation::new(&mut order, samples);
        EpochOrder { epoch, order, batch, partition: Partition::WHOLE }
    }

    /// The same order, with each batch restricted to a part. The batch is the parts in order.
    pub fn for_partition(self, partition: Partition) -> EpochOrder {
        EpochOrder { partition, ..self }
    }

    /// Number of batches.
    pub fn batches(&self) -> usize {
        self.order.len().div_ceil(self.batch)
    }

    /// Sample indices of batch `i`, or of this part of it.
    pub fn batch(&self, i: usize) -> Vec<usize> {
        let start = i * self.batch;
        let all = (start + self.batch).min(self.order.len()).saturating_sub(start);
        self.partition.range(all).map(|place| self.order.at(start + place)).collect()
    }
}

fn make_batch(image_set: &ImageSet, config: &LoaderConfig, job: Job) -> Result<Batch> {
    let crop = config.augment.crop;
    let each = crop * crop * 3;
    let mut pixels = job.pixels;
    pixels.resize(job.ids.len() * each, 0);
    let mut offsets = Vec::with_capacity(job.ids.len() * 3);
    let (mut targets, mut ids, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for id in job.ids {
        let image = match image_set.image(id) {
            Ok(image) => image,
            Err(error) if config.on_bad_image == OnBadImage::Skip && error.is_bad_image() => {
                skipped.push(BadImage { id, error });
                continue;
            }
            Err(error) => return Err(error),
        };
        let (h, w, _) = image.view().dim();
        let drawn = config.augment.draw(config.seed, job.epoch, id as u64, h, w);
        config.augment.apply_into(image.view(), &drawn, &mut pixels[ids.len() * each..][..each])?;
        offsets.extend((0..3).map(|c| drawn.pca_jitter[c] - config.mean_rgb[c]));
        targets.push(image_set.target(id));
        ids.push(id);
    }
    let n = targets.len();
    pixels.truncate(n * each);
    let shape = |e: ndarray::ShapeError| Error::Config(format!("a batch of {n} crops of {crop}: {e}"));
    let pixels = Array4::from_shape_vec((n, crop, crop, 3), pixels).map_err(shape)?;
    let offset = Array2::from_shape_vec((n, 3), offsets).map_err(shape)?;
    Ok(Batch { pixels, offset, targets, ids, skipped })
}
