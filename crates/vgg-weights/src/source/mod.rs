//! Named tensors in a file, of whatever format: found out from the content, read one at a time and within bounds.

mod archive;
mod caffe;
mod npz;
mod number;
mod pickle;
mod torch;
mod value;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use vgg_files::TensorFile;

use self::archive::Archive;
use self::caffe::CaffeModel;
pub(crate) use self::caffe::METADATA_FIELD;
use self::npz::Npz;
pub(crate) use self::number::Number;
use self::torch::Torch;
use crate::{Error, Result};

/// A file of named tensors.
pub(crate) enum Source {
    /// Ours, torchvision's and timm's.
    Safetensors(TensorFile),
    /// What `torch.save` writes, as a zip archive or as in old versions.
    Torch(Torch),
    /// Caffe's network with weights, of either version.
    Caffe(CaffeModel),
    /// NumPy's archive of arrays.
    Npz(Npz),
}

/// Name and shape of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

impl Source {
    /// Opens a file of any format.
    ///
    /// # Errors
    /// [`Error::File`] if it is missing, damaged or of no known format.
    pub(crate) fn open(path: &Path) -> Result<Source> {
        let source = Source::of_content(path)?;
        let entries = source.entries();
        for (i, entry) in entries.iter().enumerate() {
            if count(&entry.shape).is_none() {
                return Err(corrupt(path, format!("{} has the shape {:?}", entry.name, entry.shape)));
            }
            if entries[..i].iter().any(|other| other.name == entry.name) {
                return Err(corrupt(path, format!("it has two tensors {}", entry.name)));
            }
        }
        Ok(source)
    }

    fn of_content(path: &Path) -> Result<Source> {
        if path.is_dir() {
            return Err(corrupt(path, "it is a folder"));
        }
        let mut file = File::open(path).map_err(|e| io(path, e))?;
        let mut start = [0u8; 16];
        let mut length = 0;
        while length < start.len() {
            match file.read(&mut start[length..]).map_err(|e| io(path, e))? {
                0 => break,
                n => length += n,
            }
        }
        let start = &start[..length];
        file.seek(SeekFrom::Start(0)).map_err(|e| io(path, e))?;
        if start.starts_with(b"PK\x03\x04") {
            let archive = Archive::open(path)?;
            return Ok(if Npz::is_in(&archive) {
                Source::Npz(Npz::open(archive)?)
            } else {
                Source::Torch(Torch::open_archive(archive)?)
            });
        }
        if start.starts_with(&[0x80, 2, 0x8a, 10]) {
            return Ok(Source::Torch(Torch::open_legacy(path)?));
        }
        if start.len() > 8 && start[8] == b'{' {
            return Ok(Source::Safetensors(TensorFile::open(path)?));
        }
        if caffe::may_be(start) {
            return Ok(Source::Caffe(CaffeModel::open(path)?));
        }
        let known = "safetensors, .pth, .caffemodel or .npz";
        Err(corrupt(
            path,
            format!("it begins like no weights file that is known ({known}; ONNX is written, not read)"),
        ))
    }

    /// What the file says besides its tensors, each a JSON value, if it is of a format of ours.
    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        match self {
            Source::Safetensors(file) => file.metadata(),
            Source::Caffe(file) => file.metadata.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// What the format is called.
    pub(crate) fn format(&self) -> &'static str {
        match self {
            Source::Safetensors(_) => "safetensors",
            Source::Torch(_) => "torch",
            Source::Caffe(_) => "Caffe",
            Source::Npz(_) => "npz",
        }
    }

    /// All tensors in the file's order.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        match self {
            Source::Safetensors(file) => {
                let entry = |name: String| Some(Entry { shape: file.shape(&name)?.to_vec(), name });
                file.names().into_iter().filter_map(entry).collect()
            }
            Source::Torch(file) => file.entries(),
            Source::Caffe(file) => file.entries(),
            Source::Npz(file) => file.entries(),
        }
    }

    /// Values of a tensor in row-major order; floats of other sizes are converted.
    pub(crate) fn read(&mut self, path: &Path, entry: &Entry) -> Result<Vec<f32>> {
        let values = self.values(&entry.name)?;
        // Integers come out as nothing.
        if Some(values.len()) != count(&entry.shape) {
            return Err(corrupt(path, format!("{} does not hold floats", entry.name)));
        }
        Ok(values)
    }

    fn values(&mut self, name: &str) -> Result<Vec<f32>> {
        match self {
            Source::Safetensors(file) => {
                let number = file.dtype(name).and_then(Number::of_safetensors);
                let number =
                    number.ok_or_else(|| corrupt(file.path(), format!("{name} does not hold floats")))?;
                Ok(number.floats(&file.read_bytes(name)?))
            }
            Source::Torch(file) => file.read(name),
            Source::Caffe(file) => file.read(name),
            Source::Npz(file) => file.read(name),
        }
    }
}

/// A file that is not what it should be.
pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Error {
    vgg_files::Error::Corrupt { path: path.to_owned(), reason: reason.into() }.into()
}

/// An error of the system at a file that is read.
pub(crate) fn io(path: &Path, source: std::io::Error) -> Error {
    let path = path.to_owned();
    match source.kind() {
        std::io::ErrorKind::NotFound => vgg_files::Error::Missing { path }.into(),
        std::io::ErrorKind::UnexpectedEof => corrupt(&path, "it ends too early"),
        _ => vgg_files::Error::Io { action: "read", path, source }.into(),
    }
}

/// The number of values of a shape, if it is at most what memory could ever hold.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side)).filter(|n| *n < 1 << 40)
}
