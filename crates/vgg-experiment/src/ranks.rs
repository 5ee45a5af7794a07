//! What one rank of several finds out, and tells the others; and what all find out together.

use serde::Serialize;
use serde::de::DeserializeOwned;
use vgg_eval::Posteriors;
use vgg_tensor::RankGroup;
use vgg_train::Validation;

use crate::{Error, Result};

/// What the first rank finds, on all: files may be in sight of one sooner than of another.
///
/// # Errors
/// Those of `find`, on the first rank alone, which must then end all; [`Error::Ranks`] on the others.
pub(crate) fn from_first<T: Serialize + DeserializeOwned>(
    group: &dyn RankGroup,
    find: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if group.size() == 1 {
        return find();
    }
    let nonsense = |e: serde_json::Error| {
        let reason = format!("the first rank said what another does not understand: {e}");
        Error::Ranks(vgg_tensor::Error::Group { reason })
    };
    let found = if group.rank() == 0 { Some(find()?) } else { None };
    let bytes = found.map_or(Ok(Vec::new()), |found| serde_json::to_vec(&found)).map_err(nonsense)?;
    serde_json::from_slice(&group.gather_bytes(&bytes)?[0]).map_err(nonsense)
}

/// What a validation comes to whose images were shared out; nothing, if a rank was asked to stop meanwhile.
pub(crate) fn shared_out(
    own: Option<&Posteriors>,
    group: &dyn RankGroup,
) -> vgg_tensor::Result<Option<Validation>> {
    let mine = own.map_or([f64::NAN; 4], |posteriors| {
        let (top1, top5) = (posteriors.top1_error(), posteriors.top5_error());
        [top1.wrong as f64, top5.wrong as f64, posteriors.loss() * top1.n as f64, top1.n as f64]
    });
    let all = group.gather(&mine)?;
    let sum = |what: usize| all.iter().skip(what).step_by(mine.len()).sum::<f64>();
    let n = sum(3);
    if n.is_nan() {
        return Ok(None);
    }
    let n = n.max(1.0);
    Ok(Some(Validation { top1_error: sum(0) / n, top5_error: sum(1) / n, loss: sum(2) / n }))
}
