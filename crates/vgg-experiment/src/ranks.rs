//! What one rank of several finds out, and tells the others.

use serde::Serialize;
use serde::de::DeserializeOwned;
use vgg_tensor::RankGroup;

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
