//! Reading files of `torch.save`: a zip archive with a pickle and raw storages or, before PyTorch 1.6,
//! consecutive pickles and storages.

mod state_dict;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use self::state_dict::state_dict;
use super::archive::Archive;
use super::pickle::{Pickle, Storage, Tensor, Value};
use super::{Entry, corrupt, count, io};
use crate::Result;

/// Maximum size of a pickle in bytes, without storages; a thousand tensors take about a tenth of a MiB.
const MAX_PICKLE_BYTES: u64 = 16 << 20;

/// An open file.
pub(super) struct Torch {
    path: PathBuf,
    tensors: Vec<(String, Tensor)>,
    /// Which of several dictionaries the tensors are from.
    pub(super) notes: Vec<String>,
    storages: Storages,
}

enum Storages {
    /// Entries in a folder of the archive.
    Archive { archive: Box<Archive>, folder: String },
    /// Offsets in the file, by key.
    Legacy { file: File, places: HashMap<String, u64> },
}

impl Torch {
    /// Opens a zip archive.
    pub(super) fn open_archive(mut archive: Archive) -> Result<Torch> {
        let path = &archive.path.clone();
        let pickle =
            archive.names.iter().find(|name| name.ends_with("/data.pkl") || *name == "data.pkl").cloned();
        let Some(pickle) = pickle else {
            return Err(corrupt(path, "the zip archive contains neither data.pkl nor .npy arrays"));
        };
        if archive.names.iter().any(|name| name.ends_with("/constants.pkl")) {
            let what = "it is a TorchScript archive: save the module's state_dict() instead";
            return Err(corrupt(path, what));
        }
        let folder = pickle.trim_end_matches("data.pkl").to_owned();
        let order = format!("{folder}byteorder");
        if archive.names.contains(&order) && archive.read(&order, 16)? != b"little" {
            return Err(corrupt(path, "big-endian files are not supported"));
        }
        let bytes = archive.read(&pickle, MAX_PICKLE_BYTES)?;
        let (pickle, _) = Pickle::read(&bytes).map_err(|reason| corrupt(path, reason))?;
        let (tensors, notes) = state_dict(&pickle).map_err(|reason| corrupt(path, reason))?;
        check_extents(path, &tensors)?;
        for (name, tensor) in &tensors {
            let entry = format!("{folder}data/{}", tensor.storage.key);
            let size = archive.size(&entry)?;
            let expected = tensor.storage.len as u128 * tensor.storage.number.bytes() as u128;
            if u128::from(size) != expected {
                return Err(corrupt(
                    path,
                    format!("{name}: its storage has {size} bytes instead of {expected}"),
                ));
            }
        }
        Ok(Torch {
            path: path.to_owned(),
            tensors,
            notes,
            storages: Storages::Archive { archive: Box::new(archive), folder },
        })
    }

    /// Opens a file in the legacy format.
    pub(super) fn open_legacy(path: &Path) -> Result<Torch> {
        let mut file = File::open(path).map_err(|e| io(path, e))?;
        let length = file.metadata().map_err(|e| io(path, e))?.len();
        let mut start = Vec::new();
        file.by_ref().take(MAX_PICKLE_BYTES).read_to_end(&mut start).map_err(|e| io(path, e))?;
        let mut at = 0;
        let mut next = || -> Result<Pickle> {
            let (pickle, bytes) = Pickle::read(&start[at..]).map_err(|reason| corrupt(path, reason))?;
            at += bytes;
            Ok(pickle)
        };
        // Five pickles: magic number, protocol version, system information, object, keys of its storages.
        let (_, _, _) = (next()?, next()?, next()?);
        let (object, keys) = (next()?, next()?);
        let (tensors, notes) = state_dict(&object).map_err(|reason| corrupt(path, reason))?;
        check_extents(path, &tensors)?;
        let lens: HashMap<&str, &Storage> = object.storages().map(|s| (s.key.as_str(), s)).collect();
        let Value::List(keys_of_file) = keys.root() else {
            return Err(corrupt(path, "the keys of its storages are not a list"));
        };
        let (mut places, mut position) = (HashMap::new(), at as u64);
        for id in keys_of_file {
            let Value::Text(key) = keys.value(*id) else {
                return Err(corrupt(path, "the key of a storage is not a string"));
            };
            let mut len = [0; 8];
            file.seek(SeekFrom::Start(position)).map_err(|e| io(path, e))?;
            file.read_exact(&mut len).map_err(|e| io(path, e))?;
            // The object has the types of storages; a storage without a type cannot be skipped.
            let Some(storage) = lens.get(key.as_str()) else {
                return Err(corrupt(path, format!("storage {key} belongs to no tensor")));
            };
            if u64::from_le_bytes(len) != storage.len as u64 {
                return Err(corrupt(path, format!("the length of storage {key} does not match its tensors")));
            }
            places.insert(key.clone(), position + 8);
            let bytes = storage.len as u128 * storage.number.bytes() as u128;
            let end = u128::from(position) + 8 + bytes;
            if end > u128::from(length) {
                return Err(corrupt(path, format!("it ends inside storage {key}")));
            }
            position = end as u64;
        }
        if let Some((name, _)) = tensors.iter().find(|(_, t)| !places.contains_key(&t.storage.key)) {
            return Err(corrupt(path, format!("the storage of {name} is missing")));
        }
        Ok(Torch { path: path.to_owned(), tensors, notes, storages: Storages::Legacy { file, places } })
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.tensors.iter().map(|(name, t)| Entry { name: name.clone(), shape: t.shape.clone() }).collect()
    }

    pub(super) fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let Some((_, tensor)) = self.tensors.iter().find(|(n, _)| n == name) else {
            return Err(corrupt(&self.path, format!("no tensor named {name}")));
        };
        let tensor = tensor.clone();
        let Some(needed) = extent(&tensor) else {
            return Err(corrupt(&self.path, format!("{name} extends beyond its storage")));
        };
        let size = tensor.storage.number.bytes();
        let (skip, bytes) = ((tensor.offset * size) as u64, needed * size);
        let buffer = match &mut self.storages {
            Storages::Archive { archive, folder } => {
                archive.part(&format!("{folder}data/{}", tensor.storage.key), skip, bytes)?
            }
            Storages::Legacy { file, places } => {
                let mut buffer = vec![0; bytes];
                let place = places[&tensor.storage.key] + skip;
                file.seek(SeekFrom::Start(place)).map_err(|e| io(&self.path, e))?;
                file.read_exact(&mut buffer).map_err(|e| io(&self.path, e))?;
                buffer
            }
        };
        Ok(gather(&tensor, tensor.storage.number.floats(&buffer)))
    }
}

/// Number of storage values from a tensor's offset to its last value; `None` if the tensor extends beyond its
/// storage or has more values than it.
fn extent(tensor: &Tensor) -> Option<usize> {
    let values = count(&tensor.shape)?;
    if values == 0 {
        return Some(0);
    }
    let last = tensor
        .shape
        .iter()
        .zip(&tensor.stride)
        .try_fold(0usize, |last, (side, stride)| last.checked_add((side - 1).checked_mul(*stride)?))?;
    let fits = tensor.offset.checked_add(last)? < tensor.storage.len && values <= tensor.storage.len;
    // The sum may overflow if the tensor does not fit.
    fits.then(|| last + 1)
}

/// Checks that every tensor lies in its storage: a view with stride 0 could claim any size.
fn check_extents(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    match tensors.iter().find(|(_, tensor)| extent(tensor).is_none()) {
        Some((name, _)) => Err(corrupt(path, format!("{name} extends beyond its storage"))),
        None => Ok(()),
    }
}

/// Reorders strided values to row-major order.
fn gather(tensor: &Tensor, values: Vec<f32>) -> Vec<f32> {
    let len: usize = tensor.shape.iter().product();
    let mut row_major = 1;
    let contiguous = tensor.shape.iter().zip(&tensor.stride).rev().all(|(side, stride)| {
        let fits = *side == 1 || *stride == row_major;
        row_major *= side;
        fits
    });
    if contiguous || values.is_empty() {
        return values;
    }
    let mut out = Vec::with_capacity(len);
    let mut index = vec![0usize; tensor.shape.len()];
    for _ in 0..len {
        out.push(values[index.iter().zip(&tensor.stride).map(|(i, s)| i * s).sum::<usize>()]);
        for (i, side) in index.iter_mut().zip(&tensor.shape).rev() {
            *i += 1;
            if *i < *side {
                break;
            }
            *i = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests;
