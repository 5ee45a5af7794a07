//! Reading named tensors from files of every supported format. The format is detected from the content;
//! tensors are read one at a time, with limits on sizes.

mod archive;
mod caffe;
mod npz;
mod number;
mod onnx;
mod pickle;
mod torch;
mod value;
mod wire;
mod wrappers;

use std::collections::{BTreeMap, HashSet};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use vgg_files::{TensorFile, open_regular};

use self::archive::Archive;
use self::caffe::CaffeModel;
pub(crate) use self::caffe::METADATA_FIELD;
use self::npz::Npz;
pub(crate) use self::number::Number;
use self::onnx::OnnxModel;
use self::torch::Torch;
use self::wrappers::Wrapper;
use crate::{Error, Result};

/// Maximum number of tensors in a file.
const MAX_TENSORS: usize = 1 << 12;

/// A file of named tensors.
pub(crate) struct Source {
    file: SourceFile,
    tensors: Vec<SourceTensor>,
    /// Names in the file of the tensors that do not belong to the network.
    pub(crate) ignored: Vec<String>,
    /// Which of several networks in the file this is.
    pub(crate) notes: Vec<String>,
}

/// A tensor of a file: its name in the file, and its name and shape without the modules that wrap the network.
struct SourceTensor {
    own: String,
    entry: Entry,
}

/// An open file, by format.
enum SourceFile {
    /// Files of vgg, torchvision and timm.
    Safetensors(TensorFile),
    /// The output of `torch.save`, as a zip archive or in the legacy format.
    Torch(Torch),
    /// A `.caffemodel` of the current or the V1 schema.
    Caffe(CaffeModel),
    /// A NumPy archive.
    Npz(Npz),
    /// An ONNX model.
    Onnx(OnnxModel),
}

/// Name and shape of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

/// What a file of no supported format is, by its first bytes, and what to do.
fn unknown_format(start: &[u8]) -> String {
    let known: [(&[u8], &str); 5] = [
        (b"\x89HDF\r\n", "HDF5, as Keras writes: save the arrays with numpy.savez instead"),
        (b"MATLAB 5.0 MAT", "a MATLAB file: save the arrays with numpy.savez instead"),
        (b"\x93NUMPY", "a single NumPy array or dictionary: save the arrays with numpy.savez instead"),
        (b"{", "JSON, such as the index of weights in several files, and contains no tensors"),
        (b"\x80", "a pickle, but not of torch.save: save the arrays with numpy.savez instead"),
    ];
    let found = known.iter().find(|(signature, _)| start.starts_with(signature)).map(|(_, what)| *what);
    match found.or_else(|| vgg_files::not_the_file(start)) {
        Some(what) => format!("it is {what}"),
        None => "unknown file signature; expected safetensors, .pth, .caffemodel, .npz or .onnx".to_owned(),
    }
}

impl Source {
    /// Opens a file of any format.
    ///
    /// # Errors
    /// [`Error::File`] if the file is missing, damaged or of an unknown format.
    pub(crate) fn open(path: &Path) -> Result<Source> {
        let file = SourceFile::of_content(path)?;
        let entries = file.entries();
        if entries.len() > MAX_TENSORS {
            return Err(corrupt(path, format!("it contains more than {MAX_TENSORS} tensors")));
        }
        let may_be_wrapped = matches!(file, SourceFile::Safetensors(_) | SourceFile::Torch(_));
        let wrapper = may_be_wrapped.then(|| Wrapper::of(entries.iter().map(|entry| entry.name.as_str())));
        let mut source = Source { notes: file.notes(), file, tensors: Vec::new(), ignored: Vec::new() };
        let mut names = HashSet::new();
        for Entry { name: own, shape } in entries {
            if count(&shape).is_none() {
                return Err(corrupt(path, format!("{own} is too large: shape {shape:?}")));
            }
            let name = wrapper.as_ref().map_or_else(|| Some(own.clone()), |wrapper| wrapper.inside(&own));
            let Some(name) = name else {
                source.ignored.push(own);
                continue;
            };
            if !names.insert(name.clone()) {
                return Err(corrupt(path, format!("it has two tensors named {name}")));
            }
            source.tensors.push(SourceTensor { own, entry: Entry { name, shape } });
        }
        if !source.ignored.is_empty() {
            source.notes.extend(wrapper.map(|wrapper| wrapper.note(&source.ignored)));
        }
        Ok(source)
    }

    /// Metadata strings of the file, each a JSON value if vgg wrote it; empty for formats without metadata.
    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        match &self.file {
            SourceFile::Safetensors(file) => file.metadata(),
            SourceFile::Caffe(file) => file.metadata.clone(),
            SourceFile::Onnx(file) => file.metadata.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// Name of the format.
    pub(crate) fn format(&self) -> &'static str {
        match self.file {
            SourceFile::Safetensors(_) => "safetensors",
            SourceFile::Torch(_) => "torch",
            SourceFile::Caffe(_) => "Caffe",
            SourceFile::Npz(_) => "npz",
            SourceFile::Onnx(_) => "ONNX",
        }
    }

    pub(crate) fn is_onnx(&self) -> bool {
        matches!(self.file, SourceFile::Onnx(_))
    }

    pub(crate) fn is_safetensors(&self) -> bool {
        matches!(self.file, SourceFile::Safetensors(_))
    }

    /// The tensors of the network, in file order.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.tensors.iter().map(|tensor| tensor.entry.clone()).collect()
    }

    /// Reads the values of a tensor in row-major order, converted to `f32`.
    pub(crate) fn read(&mut self, path: &Path, entry: &Entry) -> Result<Vec<f32>> {
        let own = self.tensors.iter().find(|tensor| tensor.entry.name == entry.name);
        let own = own.map_or(&entry.name, |tensor| &tensor.own);
        let values = self.file.values(own)?;
        // `Number::floats` returns no values for integers.
        if Some(values.len()) != count(&entry.shape) {
            return Err(corrupt(path, format!("{} does not contain floats", entry.name)));
        }
        Ok(values)
    }
}

impl SourceFile {
    fn of_content(path: &Path) -> Result<SourceFile> {
        let mut file = open_regular(path).map_err(|e| io(path, e))?;
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
                SourceFile::Npz(Npz::open(archive)?)
            } else {
                SourceFile::Torch(Torch::open_archive(archive)?)
            });
        }
        if start.starts_with(&[0x80, 2, 0x8a, 10]) {
            return Ok(SourceFile::Torch(Torch::open_legacy(path)?));
        }
        if start.len() > 8 && start[8] == b'{' {
            return Ok(SourceFile::Safetensors(TensorFile::open(path)?));
        }
        if caffe::may_be(start) {
            return Ok(SourceFile::Caffe(CaffeModel::open(path)?));
        }
        if onnx::may_be(start) {
            return Ok(SourceFile::Onnx(OnnxModel::open(path)?));
        }
        Err(corrupt(path, unknown_format(start)))
    }

    /// Which of several networks in the file the tensors are of.
    fn notes(&self) -> Vec<String> {
        match self {
            SourceFile::Torch(file) => file.notes.clone(),
            _ => Vec::new(),
        }
    }

    /// All tensors in file order.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        match self {
            SourceFile::Safetensors(file) => {
                let entry = |name: String| Some(Entry { shape: file.shape(&name)?.to_vec(), name });
                file.names().into_iter().filter_map(entry).collect()
            }
            SourceFile::Torch(file) => file.entries(),
            SourceFile::Caffe(file) => file.entries(),
            SourceFile::Npz(file) => file.entries(),
            SourceFile::Onnx(file) => file.entries(),
        }
    }

    /// Reads the values of a tensor by its name in the file.
    fn values(&mut self, name: &str) -> Result<Vec<f32>> {
        match self {
            SourceFile::Safetensors(file) => {
                let number = file.dtype(name).and_then(Number::of_safetensors);
                let number =
                    number.ok_or_else(|| corrupt(file.path(), format!("{name} does not contain floats")))?;
                Ok(number.floats(&file.read_bytes(name)?))
            }
            SourceFile::Torch(file) => file.read(name),
            SourceFile::Caffe(file) => file.read(name),
            SourceFile::Npz(file) => file.read(name),
            SourceFile::Onnx(file) => file.read(name),
        }
    }
}

/// The error for a file with invalid contents.
pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Error {
    vgg_files::Error::Corrupt { path: path.to_owned(), reason: reason.into() }.into()
}

/// The error for a failed open or read.
pub(crate) fn io(path: &Path, source: std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, Unsupported};
    let path = path.to_owned();
    match source.kind() {
        std::io::ErrorKind::NotFound => vgg_files::Error::Missing { path }.into(),
        std::io::ErrorKind::UnexpectedEof => corrupt(&path, "unexpected end of file"),
        // Not from the system, but from a reader of archives: the contents are damaged.
        InvalidData | InvalidInput | Other | Unsupported if source.raw_os_error().is_none() => {
            corrupt(&path, source.to_string())
        }
        _ => vgg_files::Error::Io { action: "read", path, source }.into(),
    }
}

/// Whether a tensor is a counter of PyTorch's batch normalisation or weight averaging, which inference does not need.
pub(crate) fn is_counter(name: &str) -> bool {
    name == "n_averaged" || name.ends_with(".num_batches_tracked")
}

/// Number of elements of a shape; `None` if it is 2^40 or more.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side)).filter(|n| *n < 1 << 40)
}

#[cfg(test)]
mod tests;
