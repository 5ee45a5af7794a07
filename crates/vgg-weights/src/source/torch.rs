//! What `torch.save` writes: a zip archive with a pickle and raw storages, or, before version 1.6, pickles and storages one
//! after the other.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::pickle::{Pickle, Storage, Tensor, Value};
use super::{Entry, corrupt, count, io};
use crate::Result;

/// Bytes of a pickle without its storages, at most: the names of a thousand tensors are a tenth of a MiB.
const MAX_PICKLE_BYTES: u64 = 16 << 20;
/// Tensors of a file, at most.
const MAX_TENSORS: usize = 1 << 12;

/// An open file.
pub(crate) struct Torch {
    path: PathBuf,
    tensors: Vec<(String, Tensor)>,
    storages: Storages,
}

enum Storages {
    /// Below this folder of the archive.
    Archive { archive: Box<Archive>, folder: String },
    /// By key, at these places of the file.
    Legacy { file: File, places: HashMap<String, u64> },
}

impl Torch {
    /// Opens a zip archive.
    pub(super) fn open_archive(mut archive: Archive) -> Result<Torch> {
        let path = &archive.path.clone();
        let pickle =
            archive.names.iter().find(|name| name.ends_with("/data.pkl") || *name == "data.pkl").cloned();
        let Some(pickle) = pickle else {
            return Err(corrupt(path, "it is a zip archive without data.pkl and without .npy arrays"));
        };
        let folder = pickle.trim_end_matches("data.pkl").to_owned();
        let order = format!("{folder}byteorder");
        if archive.names.contains(&order) && archive.read(&order, 16)? != b"little" {
            return Err(corrupt(path, "its numbers are big-endian"));
        }
        let bytes = archive.read(&pickle, MAX_PICKLE_BYTES)?;
        let (pickle, _) = Pickle::read(&bytes).map_err(|reason| corrupt(path, reason))?;
        let tensors = tensors(&pickle).map_err(|reason| corrupt(path, reason))?;
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
            storages: Storages::Archive { archive: Box::new(archive), folder },
        })
    }

    /// Opens a file of an old version.
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
        // A magic number, the version of the protocol, sizes of the system's types, the object, keys of its storages.
        let (_, _, _) = (next()?, next()?, next()?);
        let (object, keys) = (next()?, next()?);
        let tensors = tensors(&object).map_err(|reason| corrupt(path, reason))?;
        let lens: HashMap<&str, &Storage> = object.storages().map(|s| (s.key.as_str(), s)).collect();
        let Value::List(keys_of_file) = keys.root() else {
            return Err(corrupt(path, "the keys of its storages are no list"));
        };
        let (mut places, mut position) = (HashMap::new(), at as u64);
        for id in keys_of_file {
            let Value::Text(key) = keys.value(*id) else {
                return Err(corrupt(path, "the key of a storage is no text"));
            };
            let mut len = [0; 8];
            file.seek(SeekFrom::Start(position)).map_err(|e| io(path, e))?;
            file.read_exact(&mut len).map_err(|e| io(path, e))?;
            // What the object does not name cannot be skipped without knowing its type.
            let Some(storage) = lens.get(key.as_str()) else {
                return Err(corrupt(path, format!("storage {key} belongs to no tensor")));
            };
            if u64::from_le_bytes(len) != storage.len as u64 {
                return Err(corrupt(path, format!("storage {key} is not as long as its tensors say")));
            }
            places.insert(key.clone(), position + 8);
            let bytes = storage.len as u128 * storage.number.bytes() as u128;
            let end = u128::from(position) + 8 + bytes;
            if end > u128::from(length) {
                return Err(corrupt(path, format!("it ends within storage {key}")));
            }
            position = end as u64;
        }
        if let Some((name, _)) = tensors.iter().find(|(_, t)| !places.contains_key(&t.storage.key)) {
            return Err(corrupt(path, format!("the storage of {name} is missing")));
        }
        Ok(Torch { path: path.to_owned(), tensors, storages: Storages::Legacy { file, places } })
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.tensors.iter().map(|(name, t)| Entry { name: name.clone(), shape: t.shape.clone() }).collect()
    }

    pub(super) fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let Some((_, tensor)) = self.tensors.iter().find(|(n, _)| n == name) else {
            return Err(corrupt(&self.path, format!("it has no tensor {name}")));
        };
        let tensor = tensor.clone();
        let Some(needed) = extent(&tensor) else {
            return Err(corrupt(&self.path, format!("{name} reaches beyond its storage")));
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

/// How many values from its offset on a tensor reaches; `None` if that is beyond its storage, or it is larger than that.
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
    // Where it does not fit, the sum may overflow.
    fits.then(|| last + 1)
}

/// The values in row-major order, from memory in the order of the strides.
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

/// The tensors of a dictionary, or of the dictionary under `state_dict` or `model` in it; a prefix of `module.` is what
/// torch's parallel wrappers add.
fn tensors(pickle: &Pickle) -> std::result::Result<Vec<(String, Tensor)>, String> {
    let entries = |value: &Value| match value {
        Value::Dict(items) => Some(items.clone()),
        _ => None,
    };
    let text = |id: usize| match pickle.value(id) {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    };
    let mut items = entries(pickle.root()).ok_or("it holds no dictionary of tensors")?;
    let inner = items.iter().find(|(key, _)| matches!(text(*key), Some("state_dict" | "model")));
    if let Some(inner) = inner.and_then(|(_, value)| entries(pickle.value(*value))) {
        items = inner;
    }
    // A storage is what its first mention says, in every mention.
    let mut storages: HashMap<&str, &Storage> = HashMap::new();
    for storage in pickle.storages() {
        if *storages.entry(&storage.key).or_insert(storage) != storage {
            return Err(format!("storage {} is of two kinds", storage.key));
        }
    }
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for (key, value) in items {
        if let (Some(name), Value::Tensor(tensor)) = (text(key), pickle.value(value)) {
            tensors.push((name.trim_start_matches("module.").to_owned(), tensor.clone()));
        }
        if tensors.len() > MAX_TENSORS {
            return Err(format!("it holds more than {MAX_TENSORS} tensors"));
        }
    }
    if tensors.is_empty() {
        return Err("it holds no tensors".into());
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests;
