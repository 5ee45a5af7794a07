//! Evaluation of a network on a data set.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use vgg_data::{ImageSet, OnBadImage, Split};
use vgg_eval::{EvalReport, EvaluateOptions, Evaluation, Partition, Posteriors};

use crate::{Pretrained, Result, system};

/// Evaluates a network on the validation images of a data set: dense, at the network's training scale, on the
/// best device.
///
/// `dataset` is a folder with `val/<class>/*`, or prepared shards. An image that cannot be decoded is an
/// error.
///
/// # Errors
/// Those of [`Pretrained::open`] and [`evaluate_split`].
pub fn evaluate(weights: impl AsRef<Path>, dataset: impl AsRef<Path>) -> Result<EvalReport> {
    let network = Pretrained::open(weights)?;
    let split = ImageSet::open(dataset.as_ref(), Split::Val)?;
    let evaluation = network.dense_evaluation();
    Ok(evaluate_split(network, split, &evaluation, OnBadImage::Stop)?.0)
}

/// Evaluates a network on a split, which may have a part of its classes, under any protocol. Returns the errors and the posteriors.
///
/// # Errors
/// [`crate::Error::Eval`] if the classes of network and data set differ, or the protocol does not fit the
/// network; [`crate::Error::Data`] with the path of an image that cannot be read.
pub fn evaluate_split(
    network: Pretrained,
    split: ImageSet,
    evaluation: &Evaluation,
    on_bad_image: OnBadImage,
) -> Result<(EvalReport, Posteriors)> {
    let split = &Arc::new(vgg_eval::match_classes(&network.metadata.classes, split)?);
    let weights = network.hash()?;
    let preprocessing = network.preprocessing();
    let config = network.metadata.spec.config;
    let device = network.network.device().clone();
    let model = evaluation.prepare(network.network, preprocessing, weights.as_str())?;
    let options = EvaluateOptions { workers: system::cores(), on_bad_image, part: Partition::WHOLE };
    let start = Instant::now();
    let posteriors =
        vgg_eval::evaluate(&model, split, evaluation, options, &mut |_| ControlFlow::Continue(()))?;
    let report = EvalReport {
        evaluation: evaluation.clone(),
        errors: posteriors.errors(),
        config,
        split: split.split().name().to_owned(),
        images_per_s: posteriors.labels.len() as f64 / start.elapsed().as_secs_f64(),
        weights: weights.as_str().to_owned(),
        dataset: split.hash().as_str().to_owned(),
        device: device.to_string(),
        ranks: 1,
    };
    Ok((report, posteriors))
}
