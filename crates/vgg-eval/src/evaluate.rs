//! Posteriors of splits and of single images, and dumps of views.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use vgg_data::{Image, ImageSet, OnBadImage};
use vgg_layers::unnamed_classes;
use vgg_tensor::ProcessGroup;

use crate::records::{EvalRecords, EvaluateOptions, apply_weighted_views, same_on_all_ranks};
use crate::{Error, EvalModel, Evaluation, ModelProvenance, Origin, Partition, Posteriors, Result};

/// The part of a split that a rank evaluates.
pub fn rank_partition(group: &dyn ProcessGroup) -> Partition {
    Partition { index: group.rank(), count: group.size() }
}

/// Matches a data set's classes with those of a network by name; otherwise labels would be wrong. The set may have
/// a part of the network's classes. A network with unnamed classes fits any set with as many.
///
/// # Errors
/// [`Error::Data`] with the classes that the network does not have; [`Error::Classes`] if the network's are unnamed
/// and differ in number.
pub fn match_classes(network: &[String], image_set: ImageSet) -> Result<ImageSet> {
    let dataset = image_set.classes().len();
    if network != unnamed_classes(network.len()) {
        return Ok(image_set.with_classes_of(network)?);
    }
    match network.len() == dataset {
        true => Ok(image_set),
        false => Err(Error::Classes { network: network.len(), dataset }),
    }
}

/// Computes the posteriors of a split, or of a part of it, in its order. `progress` receives the number of
/// completed images; if it breaks, the evaluation ends with [`Error::Interrupted`].
///
/// # Errors
/// - [`Error::Classes`] if network and data set have different numbers of classes.
/// - [`Error::Config`] if network and protocol do not match.
/// - [`Error::Data`] with the path of an image that cannot be read or is too large.
/// - [`Error::NoImages`] if every image was skipped.
pub fn evaluate(
    model: &EvalModel,
    image_set: &Arc<ImageSet>,
    evaluation: &Evaluation,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Posteriors> {
    let rows = posterior_rows(model, image_set, evaluation, options, progress)?;
    // A part of a small split may be empty.
    let may_be_empty = !options.part.is_whole() && options.part.range(image_set.len()).is_empty();
    let rows = if may_be_empty { rows } else { rows.non_empty(image_set)? };
    posteriors_of(rows, &model.weights_hash, image_set, evaluation, options.part)
}

/// [`evaluate`] for a whole split that is distributed over the ranks of a group; the part in `options` is
/// ignored. All ranks must call this: rank 0 gets the posteriors, the others `None`. One interrupt stops all.
///
/// # Errors
/// As [`evaluate`]; [`Error::Ranks`] on a rank with another network, data set or protocol than rank 0;
/// [`Error::Tensor`] if the connection to another rank is lost.
pub fn evaluate_on_ranks(
    group: &dyn ProcessGroup,
    model: &EvalModel,
    image_set: &Arc<ImageSet>,
    evaluation: &Evaluation,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Posteriors>> {
    same_on_all_ranks(group, &serde_json::json!([model.weights_hash, image_set.hash(), evaluation]))?;
    let options = EvaluateOptions { part: rank_partition(group), ..options };
    let own = posterior_rows(model, image_set, evaluation, options, progress);
    let rows = EvalRecords::gather(own, group, image_set)?;
    rows.map(|rows| posteriors_of(rows, &model.weights_hash, image_set, evaluation, Partition::WHOLE))
        .transpose()
}

fn posterior_rows(
    model: &EvalModel,
    image_set: &Arc<ImageSet>,
    evaluation: &Evaluation,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<EvalRecords> {
    let spec = model.spec();
    if spec.classes != image_set.classes().len() {
        return Err(Error::Classes { network: spec.classes, dataset: image_set.classes().len() });
    }
    let views = evaluation.views(spec.crop)?;
    let posteriors_of_batch =
        |images_views: &[Vec<Image>]| model.posteriors(images_views, &views, evaluation.dense_pool);
    EvalRecords::evaluate_part(
        image_set,
        &views,
        evaluation.interpolation,
        options,
        progress,
        posteriors_of_batch,
    )
}

fn posteriors_of(
    mut rows: EvalRecords,
    weights_hash: &str,
    image_set: &ImageSet,
    evaluation: &Evaluation,
    part: Partition,
) -> Result<Posteriors> {
    let classes = image_set.classes().to_vec();
    let networks = vec![ModelProvenance { evaluation: evaluation.clone(), weights: weights_hash.to_owned() }];
    let origin = Origin { networks, classes, dataset: image_set.hash().as_str().to_owned(), part };
    let values = rows.take_values(origin.classes.len())?;
    Ok(Posteriors { values, labels: rows.labels, paths: rows.paths, skipped: rows.skipped, origin })
}

/// Computes the posterior of one image.
///
/// # Errors
/// As [`evaluate`].
pub fn classify(model: &EvalModel, image: &Image, evaluation: &Evaluation) -> Result<Vec<f32>> {
    let views = evaluation.views(model.spec().crop)?;
    let view_pixels = apply_weighted_views(image, &views, evaluation.interpolation)?;
    let posterior = model.posteriors(&[view_pixels], &views, evaluation.dense_pool)?;
    Ok(posterior.into_raw_vec_and_offset().0)
}

/// Writes the views of every image as `DIR/IMAGE/VIEW.png`, numbered in the order of the split and of the
/// views, and `DIR/views.json` with the image's path, the test scale, region, flip and weight of each view.
///
/// Images that are skipped have no folder.
///
/// # Errors
/// As [`evaluate`]; [`Error::File`] or [`Error::Data`] if a file cannot be written.
pub fn dump_views(
    image_set: &ImageSet,
    evaluation: &Evaluation,
    crop: usize,
    options: EvaluateOptions,
    dir: &Path,
) -> Result<()> {
    let views = evaluation.views(crop)?;
    remove_old_views(dir)?;
    let mut list = Vec::new();
    for index in options.part.range(image_set.len()) {
        let path = image_set.path(index);
        let applied = image_set.image(index).and_then(|image| {
            apply_weighted_views(&image, &views, evaluation.interpolation)
                .map_err(|e| e.of_image(&image_set.root().join(&*path)))
        });
        let view_pixels = match applied {
            Err(bad) if bad.is_bad_image() && options.on_bad_image == OnBadImage::Skip => continue,
            other => other?,
        };
        let of_image = dir.join(index.to_string());
        std::fs::create_dir_all(&of_image).map_err(|e| vgg_data::Error::Io {
            action: "create",
            path: of_image.clone(),
            reason: e.to_string(),
        })?;
        for (number, (view, pixels)) in views.iter().zip(&view_pixels).enumerate() {
            let file = format!("{index}/{number}.png");
            vgg_data::write_png(&dir.join(&file), pixels)?;
            list.push(
                serde_json::json!({ "file": file, "image": path, "view": view.view, "weight": view.weight }),
            );
        }
    }
    Ok(vgg_files::write_json(&dir.join("views.json"), &list)?)
}

/// Removes the images that an earlier `views.json` lists.
fn remove_old_views(dir: &Path) -> Result<()> {
    let list = dir.join("views.json");
    // Without a valid list, nothing is known to be a view.
    let Ok(old) = vgg_files::read_json::<Vec<serde_json::Value>>(&list) else { return Ok(()) };
    for view in &old {
        let numbers = view["file"].as_str().and_then(|file| file.strip_suffix(".png")?.split_once('/'));
        let Some((image, number)) = numbers else { continue };
        if let (Ok(image), Ok(number)) = (image.parse::<usize>(), number.parse::<usize>()) {
            vgg_files::remove_file(&dir.join(format!("{image}/{number}.png")))?;
        }
    }
    Ok(vgg_files::remove_file(&list)?)
}
