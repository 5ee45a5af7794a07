//! A split gone through in its order: a row of numbers for each image, found by one process or by several ranks.

use std::ops::ControlFlow;
use std::sync::Arc;

use ndarray::Array2;
use serde::{Deserialize, Serialize};
use vgg_data::{Image, ImageSet, Interpolation, OnBadImage, Prefetcher, View, apply_views};
use vgg_tensor::ProcessGroup;

use crate::model::images_together;
use crate::protocol::WeightedView;
use crate::{Error, Partition, Result};

/// Images that go through the network together, at most, if their views have one size.
const GROUP: usize = 32;
/// Views that are ready before the network takes them, about.
const VIEWS_AHEAD: usize = 12 * GROUP;

/// How a split is gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluateOptions {
    /// Threads that decode and resize. Without influence on any result.
    pub workers: usize,
    /// What to do about an image that cannot be decoded: stop, or leave it out and list it.
    pub on_bad_image: OnBadImage,
    /// Which part of the split.
    pub shard: Partition,
}

/// What was found of images.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct EvalRecords {
    /// One row after another.
    #[serde(skip)]
    values: Vec<f32>,
    /// True classes.
    pub(crate) labels: Vec<u32>,
    /// Paths below the data set.
    pub(crate) paths: Vec<String>,
    /// Path and reason of images that were left out.
    pub(crate) skipped: Vec<String>,
}

impl EvalRecords {
    /// Rows of the images of a shard, of which `of_group` is given several at a time, each as its views.
    pub(crate) fn of(
        folder: &Arc<ImageSet>,
        views: &[WeightedView],
        interpolation: Interpolation,
        options: EvaluateOptions,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
        mut of_group: impl FnMut(&[Vec<Image>]) -> Result<Array2<f32>>,
    ) -> Result<EvalRecords> {
        let all = options.shard.range(folder.len());
        let (decoder, n, shown_views) = (folder.clone(), all.len(), views.to_vec());
        let work = move |i: usize| {
            let path = decoder.root().join(&*decoder.path(i));
            show(&*decoder.image(i)?, &shown_views, interpolation).map_err(|e| e.of_image(&path))
        };
        let ahead = (VIEWS_AHEAD / views.len()).clamp(options.workers + 1, 2 * GROUP.max(options.workers));
        let mut images = Prefetcher::new(options.workers, ahead, work);
        let mut rows = EvalRecords::default();
        let mut group: Vec<Vec<Image>> = Vec::new();
        let (mut submitted, mut taken) = (0, 0);
        loop {
            while images.has_room() && submitted < n {
                folder.prefetch(all.start + submitted);
                images.submit(all.start + submitted)?;
                submitted += 1;
            }
            let shown = match images.take()?.transpose() {
                Ok(shown) => shown,
                Err(bad) if bad.is_bad_image() && options.on_bad_image == OnBadImage::Skip => {
                    rows.skipped.push(bad.to_string());
                    taken += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if closes(&group, views, shown.as_deref()) {
                rows.values.extend(of_group(&group)?);
                group.clear();
                if progress(taken).is_break() {
                    return Err(Error::Interrupted);
                }
            }
            let Some(shown) = shown else { break };
            group.push(shown);
            rows.labels.push(folder.target(all.start + taken));
            rows.paths.push(folder.path(all.start + taken).into_owned());
            taken += 1;
        }
        Ok(rows)
    }

    /// What all ranks have found together, in their order, on the first of them; nothing on the others. One that was interrupted takes
    /// part, too.
    ///
    /// # Errors
    /// What is wrong with `own`; [`Error::NoImages`] on the first, if there are none.
    pub(crate) fn of_all(
        own: Result<EvalRecords>,
        group: &dyn ProcessGroup,
        folder: &ImageSet,
    ) -> Result<Option<EvalRecords>> {
        if group.size() == 1 {
            return own?.of_some(folder).map(Some);
        }
        let interrupted = matches!(own, Err(Error::Interrupted));
        let own = if interrupted { EvalRecords::default() } else { own? };
        let asked = group.all_gather(&[f64::from(u8::from(interrupted))])?;
        if asked.iter().any(|asked| *asked > 0.0) {
            return Err(Error::Interrupted);
        }
        let parts = group.gather_bytes_to_root(&serde_json::to_vec(&own).map_err(nonsense)?)?;
        let values: Vec<u8> = own.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        drop(own);
        let values = group.gather_bytes_to_root(&values)?;
        if group.rank() > 0 {
            return Ok(None);
        }
        let mut all = EvalRecords::default();
        for (part, values) in parts.into_iter().zip(values) {
            let part: EvalRecords = serde_json::from_slice(&part).map_err(nonsense)?;
            all.labels.extend(part.labels);
            all.paths.extend(part.paths);
            all.skipped.extend(part.skipped);
            all.values.extend(values.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)));
        }
        all.of_some(folder).map(Some)
    }

    /// Itself, if there is any.
    ///
    /// # Errors
    /// [`Error::NoImages`].
    pub(crate) fn of_some(self, folder: &ImageSet) -> Result<EvalRecords> {
        if self.labels.is_empty() {
            return Err(Error::NoImages { path: folder.root().to_owned() });
        }
        Ok(self)
    }

    /// The rows `[N, columns]`, taken out.
    pub(crate) fn take_values(&mut self, columns: usize) -> Result<Array2<f32>> {
        let values = std::mem::take(&mut self.values);
        Array2::from_shape_vec((self.labels.len(), columns), values).map_err(nonsense)
    }
}

/// # Errors
/// [`Error::Config`] on ranks that were told to look at something else than the first.
pub(crate) fn same_on_all_ranks(group: &dyn ProcessGroup, what: &serde_json::Value) -> Result<()> {
    let own = what.to_string();
    if group.size() == 1 || group.all_gather_bytes(own.as_bytes())?[0] == own.as_bytes() {
        return Ok(());
    }
    let rank = group.rank();
    Err(Error::Config(format!(
        "rank {rank} has another network, data set or protocol than the first: all must be given the same"
    )))
}

fn nonsense(what: impl std::fmt::Display) -> Error {
    Error::Config(format!("ranks do not understand each other: {what}; all must run the same program"))
}

/// Whether a group of images goes through the network before `next` is taken: it is full, or the views of `next` have
/// other sizes, or there is no next.
fn closes(group: &[Vec<Image>], views: &[WeightedView], next: Option<&[Image]>) -> bool {
    match (group.first(), next) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(first), Some(next)) => {
            group.len() >= images_together(first, views, GROUP) || !same_sizes(first, next)
        }
    }
}

/// The views of an image.
pub(crate) fn show(
    image: &Image,
    views: &[WeightedView],
    interpolation: Interpolation,
) -> vgg_data::Result<Vec<Image>> {
    let views: Vec<View> = views.iter().map(|weighted| weighted.view).collect();
    apply_views(image, &views, interpolation)
}

fn same_sizes(a: &[Image], b: &[Image]) -> bool {
    a.iter().map(Image::dim).eq(b.iter().map(Image::dim))
}
