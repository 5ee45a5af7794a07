//! An evaluation shared out over ranks.

use std::ops::ControlFlow;
use std::sync::Arc;

use ndarray::Array2;
use serde::{Deserialize, Serialize};
use vgg_data::ImageSet;
use vgg_tensor::RankGroup;

use crate::{Error, EvaluateOptions, Evaluation, Model, Posteriors, Preprocessing, Result, Shard, evaluate};

/// Posteriors of a whole split on every rank of a group, each of which evaluates a part: as [`evaluate`], whatever shard `options`
/// name. All ranks must call this. An evaluation that is interrupted on one of them is so on all.
///
/// # Errors
/// As [`evaluate`]; [`Error::Tensor`] if the ranks lose each other.
pub fn evaluate_on_ranks(
    group: &dyn RankGroup,
    model: (&Model, &str),
    folder: &Arc<ImageSet>,
    evaluation: &Evaluation,
    preprocessing: Preprocessing,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Posteriors> {
    let options = EvaluateOptions { shard: Shard::of_rank(group), ..options };
    let own = evaluate(model, folder, evaluation, preprocessing, options, progress);
    let whole = of_all(own, group)?;
    if whole.labels.is_empty() {
        return Err(Error::NoImages { path: folder.root().to_owned() });
    }
    Ok(whole)
}

impl Shard {
    /// The part of a rank.
    pub fn of_rank(group: &dyn RankGroup) -> Shard {
        Shard { number: group.rank() + 1, of: group.size() }
    }
}

/// Posteriors without what all ranks know, and without their values.
#[derive(Serialize, Deserialize)]
struct Part {
    labels: Vec<u32>,
    paths: Vec<String>,
    skipped: Vec<String>,
}

/// What all ranks have found together.
fn of_all(own: Result<Posteriors>, group: &dyn RankGroup) -> Result<Posteriors> {
    if group.size() == 1 {
        return own;
    }
    let interrupted = matches!(own, Err(Error::Interrupted));
    let own = if interrupted { None } else { Some(own?) };
    let asked = group.gather(&[f64::from(u8::from(interrupted))])?;
    let own = own.filter(|_| asked.iter().all(|asked| *asked == 0.0)).ok_or(Error::Interrupted)?;
    let classes = own.origin.classes.len();
    let mut whole = Posteriors { origin: own.origin, ..Posteriors::default() };
    whole.origin.shard = Shard::default();
    let part = Part { labels: own.labels, paths: own.paths, skipped: own.skipped };
    for part in group.gather_bytes(&serde_json::to_vec(&part).map_err(nonsense)?)? {
        let part: Part = serde_json::from_slice(&part).map_err(nonsense)?;
        whole.labels.extend(part.labels);
        whole.paths.extend(part.paths);
        whole.skipped.extend(part.skipped);
    }
    let values: Vec<u8> = own.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let values: Vec<f32> = group.gather_bytes(&values)?.iter().flat_map(|bytes| numbers(bytes)).collect();
    whole.values = Array2::from_shape_vec((whole.labels.len(), classes), values).map_err(nonsense)?;
    Ok(whole)
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value))
}

fn nonsense(what: impl std::fmt::Display) -> Error {
    Error::Config(format!("ranks do not understand each other: {what}; all must run the same program"))
}
