//! From a network and images to posteriors.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use ndarray::Array2;
use vgg_data::{Filter, Image, ImageSet, OnBadImage, Prefetcher, View, apply_views};

use crate::model::images_together;
use crate::protocol::WeightedView;
use crate::{Error, Evaluation, Model, Network, Posteriors, Preprocessing, Result, Shard};

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
    pub shard: Shard,
}

/// Posteriors of a split, or of a shard of it, in its order. `progress` hears how many images are done; when it breaks, the
/// evaluation ends with [`Error::Interrupted`]. `weights_hash` tells the networks of posterior files apart.
///
/// # Errors
/// [`Error::Classes`] if network and data set do not fit, [`Error::Config`] if network and protocol do not;
/// [`Error::Data`] with the path of an image that cannot be read or is too large; [`Error::NoImages`].
pub fn evaluate(
    (model, weights_hash): (&Model, &str),
    folder: &Arc<ImageSet>,
    evaluation: &Evaluation,
    preprocessing: Preprocessing,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Posteriors> {
    let spec = model.spec();
    if spec.classes != folder.classes().len() {
        return Err(Error::Classes { network: spec.classes, dataset: folder.classes().len() });
    }
    let views = evaluation.views(spec.crop)?;
    let all = options.shard.range(folder.len());
    let (decoder, filter, n, shown_views) = (folder.clone(), evaluation.filter, all.len(), views.clone());
    let work = move |i: usize| {
        let path = decoder.root().join(&*decoder.path(i));
        show(&*decoder.image(i)?, &shown_views, filter).map_err(|e| e.of_image(&path))
    };
    let ahead = (VIEWS_AHEAD / views.len()).clamp(options.workers + 1, 2 * GROUP.max(options.workers));
    let mut images = Prefetcher::new(options.workers, ahead, work);
    let mut values = Vec::with_capacity(n * spec.classes);
    let mut out = Posteriors::default();
    out.origin.classes = folder.classes().to_vec();
    out.origin.dataset = folder.hash().as_str().to_owned();
    out.origin.shard = options.shard;
    out.origin.networks.push(Network { protocol: evaluation.clone(), weights: weights_hash.to_owned() });
    let mut group: Vec<Vec<Image>> = Vec::new();
    let (mut submitted, mut taken) = (0, 0);
    loop {
        while images.has_room() && submitted < n {
            folder.will_need(all.start + submitted);
            images.submit(all.start + submitted)?;
            submitted += 1;
        }
        let shown = match images.take()?.transpose() {
            Ok(shown) => shown,
            Err(bad) if bad.is_bad_image() && options.on_bad_image == OnBadImage::Skip => {
                out.skipped.push(bad.to_string());
                taken += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if closes(&group, &views, shown.as_deref()) {
            values.extend(model.posteriors(&group, &views, evaluation.dense_pool, preprocessing)?);
            group.clear();
            if progress(taken).is_break() {
                return Err(Error::Interrupted);
            }
        }
        let Some(shown) = shown else { break };
        group.push(shown);
        out.labels.push(folder.target(all.start + taken));
        out.paths.push(folder.path(all.start + taken).into_owned());
        taken += 1;
    }
    // A shard of a small split may be empty.
    if out.labels.is_empty() && (n > 0 || options.shard == Shard::default()) {
        return Err(Error::NoImages { path: folder.root().to_owned() });
    }
    let shape = (out.labels.len(), spec.classes);
    out.values = Array2::from_shape_vec(shape, values).map_err(|e| Error::Config(e.to_string()))?;
    Ok(out)
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

/// Posterior of one image.
///
/// # Errors
/// As [`evaluate`].
pub fn classify(
    model: &Model,
    image: &Image,
    evaluation: &Evaluation,
    preprocessing: Preprocessing,
) -> Result<Vec<f32>> {
    let views = evaluation.views(model.spec().crop)?;
    let shown = show(image, &views, evaluation.filter)?;
    let posterior = model.posteriors(&[shown], &views, evaluation.dense_pool, preprocessing)?;
    Ok(posterior.into_raw_vec_and_offset().0)
}

/// Writes what a network is shown of every image: `DIR/NUMBER/VIEW.png`, in the order of the split and of the views, and
/// `DIR/views.json` with the image's path, test side, region, flip and weight of each.
///
/// # Errors
/// As [`evaluate`]; [`Error::File`] if something cannot be written.
pub fn dump_views(
    folder: &ImageSet,
    evaluation: &Evaluation,
    (crop, shard): (usize, Shard),
    dir: &Path,
) -> Result<()> {
    let views = evaluation.views(crop)?;
    let mut list = Vec::new();
    for index in shard.range(folder.len()) {
        let path = folder.path(index);
        let shown = show(&*folder.image(index)?, &views, evaluation.filter)
            .map_err(|e| e.of_image(&folder.root().join(&*path)))?;
        let of_image = dir.join(index.to_string());
        std::fs::create_dir_all(&of_image).map_err(|e| vgg_data::Error::Io {
            action: "create",
            path: of_image.clone(),
            reason: e.to_string(),
        })?;
        for (number, (view, pixels)) in views.iter().zip(&shown).enumerate() {
            let file = format!("{index}/{number}.png");
            vgg_data::write_png(&dir.join(&file), pixels)?;
            list.push(
                serde_json::json!({ "file": file, "image": path, "view": view.view, "weight": view.weight }),
            );
        }
    }
    Ok(vgg_files::write_json(&dir.join("views.json"), &list)?)
}

/// The views of an image.
fn show(image: &Image, views: &[WeightedView], filter: Filter) -> vgg_data::Result<Vec<Image>> {
    let views: Vec<View> = views.iter().map(|weighted| weighted.view).collect();
    apply_views(image, &views, filter)
}

fn same_sizes(a: &[Image], b: &[Image]) -> bool {
    a.iter().map(Image::dim).eq(b.iter().map(Image::dim))
}
