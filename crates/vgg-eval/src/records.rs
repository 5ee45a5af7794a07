//! Evaluation of a split in its order, by one process or several ranks: a row of values for each image.

use std::ops::ControlFlow;
use std::sync::Arc;

use ndarray::Array2;
use serde::{Deserialize, Serialize};
use vgg_data::{Image, ImageSet, Interpolation, OnBadImage, Prefetcher, View, apply_views};
use vgg_tensor::ProcessGroup;

use crate::model::images_together;
use crate::protocol::WeightedView;
use crate::{Error, Partition, Result};

/// Maximum number of images in a batch; their views must have the same sizes.
const GROUP: usize = 32;
/// Approximate number of views that are prefetched.
const VIEWS_AHEAD: usize = 12 * GROUP;

/// Options for the evaluation of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluateOptions {
    /// Number of threads that decode and resize. Results do not depend on it.
    pub workers: usize,
    /// Whether an image that cannot be decoded is an error, or is skipped and listed.
    pub on_bad_image: OnBadImage,
    /// The part of the split to evaluate.
    pub part: Partition,
}

/// Results for the images of a split.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct EvalRecords {
    /// Values in row-major order.
    #[serde(skip)]
    values: Vec<f32>,
    /// True classes.
    pub(crate) labels: Vec<u32>,
    /// Paths relative to the data set.
    pub(crate) paths: Vec<String>,
    /// Path and reason of each skipped image.
    pub(crate) skipped: Vec<String>,
}

impl EvalRecords {
    /// Evaluates the images of a part. `rows_of_batch` gets the views of several images and returns their
    /// rows.
    pub(crate) fn evaluate_part(
        image_set: &Arc<ImageSet>,
        views: &[WeightedView],
        interpolation: Interpolation,
        options: EvaluateOptions,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
        mut rows_of_batch: impl FnMut(&[Vec<Image>]) -> Result<Array2<f32>>,
    ) -> Result<EvalRecords> {
        let all = options.part.range(image_set.len());
        let (decoder, n, decoder_views) = (image_set.clone(), all.len(), views.to_vec());
        let work = move |i: usize| {
            let path = decoder.root().join(&*decoder.path(i));
            apply_weighted_views(&*decoder.image(i)?, &decoder_views, interpolation)
                .map_err(|e| e.of_image(&path))
        };
        let ahead = (VIEWS_AHEAD / views.len()).clamp(options.workers + 1, 2 * GROUP.max(options.workers));
        let mut images = Prefetcher::new(options.workers, ahead, work)?;
        let mut rows = EvalRecords::default();
        let mut group: Vec<Vec<Image>> = Vec::new();
        let (mut submitted, mut taken) = (0, 0);
        loop {
            while images.has_room() && submitted < n {
                image_set.prefetch(all.start + submitted);
                images.submit(all.start + submitted)?;
                submitted += 1;
            }
            let view_pixels = match images.recv()?.transpose() {
                Ok(view_pixels) => view_pixels,
                Err(bad) if bad.is_bad_image() && options.on_bad_image == OnBadImage::Skip => {
                    rows.skipped.push(bad.to_string());
                    taken += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if closes(&group, views, view_pixels.as_deref()) {
                rows.values.extend(rows_of_batch(&group)?);
                group.clear();
                if progress(taken).is_break() {
                    return Err(Error::Interrupted);
                }
            }
            let Some(view_pixels) = view_pixels else { break };
            group.push(view_pixels);
            rows.labels.push(image_set.target(all.start + taken));
            rows.paths.push(image_set.path(all.start + taken).into_owned());
            taken += 1;
        }
        Ok(rows)
    }

    /// Gathers the records of all ranks, in rank order, on rank 0; `None` on the others. Interrupted ranks
    /// must call this too.
    ///
    /// # Errors
    /// The error in `own`; [`Error::Interrupted`] on all ranks if one was interrupted; [`Error::NoImages`] on
    /// rank 0 if there are no records.
    pub(crate) fn gather(
        own: Result<EvalRecords>,
        group: &dyn ProcessGroup,
        image_set: &ImageSet,
    ) -> Result<Option<EvalRecords>> {
        if group.size() == 1 {
            return own?.non_empty(image_set).map(Some);
        }
        let interrupted = matches!(own, Err(Error::Interrupted));
        let own = if interrupted { EvalRecords::default() } else { own? };
        let asked = group.all_gather(&[f64::from(u8::from(interrupted))])?;
        if asked.iter().any(|asked| *asked > 0.0) {
            return Err(Error::Interrupted);
        }
        let parts = group.gather_bytes_to_root(&serde_json::to_vec(&own).map_err(invalid_records)?)?;
        let values: Vec<u8> = own.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        drop(own);
        let values = group.gather_bytes_to_root(&values)?;
        if group.rank() > 0 {
            return Ok(None);
        }
        let mut all = EvalRecords::default();
        for (part, values) in parts.into_iter().zip(values) {
            let part: EvalRecords = serde_json::from_slice(&part).map_err(invalid_records)?;
            all.labels.extend(part.labels);
            all.paths.extend(part.paths);
            all.skipped.extend(part.skipped);
            all.values.extend(values.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)));
        }
        all.non_empty(image_set).map(Some)
    }

    /// The records, if there are any.
    ///
    /// # Errors
    /// [`Error::NoImages`] if there are none.
    pub(crate) fn non_empty(self, image_set: &ImageSet) -> Result<EvalRecords> {
        if self.labels.is_empty() {
            return Err(Error::NoImages { path: image_set.root().to_owned() });
        }
        Ok(self)
    }

    /// Takes the values as `[N, columns]`.
    pub(crate) fn take_values(&mut self, columns: usize) -> Result<Array2<f32>> {
        let values = std::mem::take(&mut self.values);
        Array2::from_shape_vec((self.labels.len(), columns), values).map_err(invalid_records)
    }
}

/// Checks that `what` is the same on all ranks.
///
/// # Errors
/// [`Error::Ranks`] on each rank that differs from rank 0.
pub(crate) fn same_on_all_ranks(group: &dyn ProcessGroup, what: &serde_json::Value) -> Result<()> {
    let own = what.to_string();
    if group.size() == 1 || group.all_gather_bytes(own.as_bytes())?[0] == own.as_bytes() {
        return Ok(());
    }
    let rank = group.rank();
    Err(Error::Ranks(format!(
        "rank {rank} has another network, data set or protocol than rank 0; all ranks need the same"
    )))
}

fn invalid_records(what: impl std::fmt::Display) -> Error {
    Error::Ranks(format!("invalid records of a rank: {what}; all ranks must run the same program"))
}

/// Whether to evaluate a group of images before adding `next`: it is full, the views of `next` have other
/// sizes, or there is no next image.
fn closes(group: &[Vec<Image>], views: &[WeightedView], next: Option<&[Image]>) -> bool {
    match (group.first(), next) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(first), Some(next)) => {
            group.len() >= images_together(first, views, GROUP) || !same_sizes(first, next)
        }
    }
}

/// Applies views to an image.
pub(crate) fn apply_weighted_views(
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
