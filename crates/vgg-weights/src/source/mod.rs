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

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use vgg_files::TensorFile;

use self::archive::Archive;
use self::caffe::CaffeModel;
pub(crate) use self::caffe::METADATA_FIELD;
use self::npz::Npz;
pub(crate) use self::number::Number;
use self::onnx::OnnxModel;
use self::torch::Torch;
use crate::{Error, Result};

/// Maximum number of tensors in a file.
const MAX_TENSORS: usize = 1 << 12;

/// A file of named tensors.
pub(crate) enum Source {
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

impl Entry {
    fn without_wrappers(self) -> Entry {
        Entry { name: without_wrappers(&self.name), ..self }
    }
}

/// A tensor's name without the prefixes of modules that wrap a network: of PyTorch's `DataParallel` (also around a part
/// of it), `torch.compile` and Lightning.
pub(crate) fn without_wrappers(name: &str) -> String {
    const PREFIXES: [&str; 4] = ["module.", "_orig_mod.", "model.", "net."];
    let mut name = name;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name.replace(".module.", ".").replace("._orig_mod.", ".")
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
        let source = Source::of_content(path)?;
        let entries = source.entries();
        if entries.len() > MAX_TENSORS {
            return Err(corrupt(path, format!("it contains more than {MAX_TENSORS} tensors")));
        }
        let mut names = HashSet::new();
        for entry in &entries {
            if count(&entry.shape).is_none() {
                return Err(corrupt(path, format!("{} is too large: shape {:?}", entry.name, entry.shape)));
            }
            if !names.insert(&entry.name) {
                return Err(corrupt(path, format!("it has two tensors named {}", entry.name)));
            }
        }
        Ok(source)
    }

    fn of_content(path: &Path) -> Result<Source> {
        if path.is_dir() {
            return Err(corrupt(path, "it is a directory"));
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
        if onnx::may_be(start) {
            return Ok(Source::Onnx(OnnxModel::open(path)?));
        }
        Err(corrupt(path, unknown_format(start)))
    }

    /// Metadata strings of the file, each a JSON value if vgg wrote it; empty for formats without metadata.
    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        match self {
            Source::Safetensors(file) => file.metadata(),
            Source::Caffe(file) => file.metadata.clone(),
            Source::Onnx(file) => file.metadata.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// Name of the format.
    pub(crate) fn format(&self) -> &'static str {
        match self {
            Source::Safetensors(_) => "safetensors",
            Source::Torch(_) => "torch",
            Source::Caffe(_) => "Caffe",
            Source::Npz(_) => "npz",
            Source::Onnx(_) => "ONNX",
        }
    }

    /// All tensors in file order.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        match self {
            Source::Safetensors(file) => {
                let entry = |name: String| Some(Entry { shape: file.shape(&name)?.to_vec(), name });
                file.names().into_iter().filter_map(entry).map(Entry::without_wrappers).collect()
            }
            Source::Torch(file) => file.entries(),
            Source::Caffe(file) => file.entries(),
            Source::Npz(file) => file.entries(),
            Source::Onnx(file) => file.entries(),
        }
    }

    /// Reads the values of a tensor in row-major order, converted to `f32`.
    pub(crate) fn read(&mut self, path: &Path, entry: &Entry) -> Result<Vec<f32>> {
        let values = self.values(&entry.name)?;
        // `Number::floats` returns no values for integers.
        if Some(values.len()) != count(&entry.shape) {
            return Err(corrupt(path, format!("{} does not contain floats", entry.name)));
        }
        Ok(values)
    }

    fn values(&mut self, name: &str) -> Result<Vec<f32>> {
        match self {
            Source::Safetensors(file) => {
                let own = file.names().into_iter().find(|own| without_wrappers(own) == name);
                let name = &own.unwrap_or_else(|| name.to_owned());
                let number = file.dtype(name).and_then(Number::of_safetensors);
                let number =
                    number.ok_or_else(|| corrupt(file.path(), format!("{name} does not contain floats")))?;
                Ok(number.floats(&file.read_bytes(name)?))
            }
            Source::Torch(file) => file.read(name),
            Source::Caffe(file) => file.read(name),
            Source::Npz(file) => file.read(name),
            Source::Onnx(file) => file.read(name),
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

/// Number of elements of a shape; `None` if it is 2^40 or more.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side)).filter(|n| *n < 1 << 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A safetensors file: length of the header, header, values.
    fn safetensors(header: &str, values: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), values].concat()
    }

    fn open(bytes: &[u8]) -> Result<Source> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        std::fs::write(&path, bytes).unwrap();
        Source::open(&path)
    }

    fn refused(bytes: &[u8]) -> String {
        open(bytes).err().unwrap().to_string()
    }

    #[test]
    fn safetensors_of_every_float_type_are_read() {
        let header = r#"{"__metadata__":{"crop":"64"},
            "half":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
            "brain":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]},
            "single":{"dtype":"F32","shape":[1,1],"data_offsets":[8,12]},
            "double":{"dtype":"F64","shape":[1],"data_offsets":[12,20]},
            "long":{"dtype":"I64","shape":[1],"data_offsets":[20,28]},
            "empty":{"dtype":"F32","shape":[0],"data_offsets":[28,28]}}"#;
        let mut values = vec![0x00, 0x3e, 0x00, 0xb4, 0xc0, 0x3f, 0x80, 0xbe];
        values.extend(1.25f32.to_le_bytes());
        values.extend(0.1f64.to_le_bytes());
        values.extend(7i64.to_le_bytes());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        std::fs::write(&path, safetensors(header, &values)).unwrap();
        let mut source = Source::open(&path).unwrap();
        assert_eq!((source.format(), source.metadata()["crop"].as_str()), ("safetensors", "64"));
        let mut read = |name: &str, shape: &[usize]| {
            source.read(&path, &Entry { name: name.into(), shape: shape.to_vec() })
        };
        assert_eq!(read("half", &[2]).unwrap(), [1.5, -0.25]);
        assert_eq!(read("brain", &[2]).unwrap(), [1.5, -0.25]);
        assert_eq!(read("single", &[1, 1]).unwrap(), [1.25]);
        assert_eq!(read("double", &[1]).unwrap(), [0.1]);
        assert_eq!(read("empty", &[0]).unwrap(), [0.0; 0]);
        for message in [read("long", &[1]), read("half", &[3])].map(|e| e.unwrap_err().to_string()) {
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            assert!(message.ends_with(" does not contain floats"), "{message}");
        }
        let shapes: BTreeMap<String, Vec<usize>> =
            source.entries().into_iter().map(|e| (e.name, e.shape)).collect();
        assert_eq!(shapes.len(), 6);
        assert_eq!(
            (shapes["single"].as_slice(), shapes["brain"].as_slice()),
            ([1, 1].as_slice(), [2].as_slice())
        );
    }

    #[test]
    fn unknown_file_signatures_are_rejected() {
        let unknown = "unknown file signature; expected safetensors, .pth, .caffemodel, .npz or .onnx";
        for start in [&b""[..], b"\x08\xff\x12\x03vgg", b"hello", b"PK\x05\x06"] {
            let message = refused(start);
            assert!(message.ends_with(unknown), "{}: {message}", start.escape_ascii());
        }
        for (start, words) in [
            (&b"\x80\x02}."[..], "it is a pickle, but not of torch.save"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
            (b"<!DOCTYPE html>", "it is a web page or an XML file"),
            (b"\x89HDF\r\n\x1a\n", "it is HDF5, as Keras writes"),
            (b"MATLAB 5.0 MAT-file", "it is a MATLAB file"),
            (b"\x93NUMPY\x01\0", "it is a single NumPy array"),
            (b"{\"weight_map\": {}}", "it is JSON"),
        ] {
            let message = refused(start);
            assert!(message.contains(words), "{message}");
        }
        let dir = tempfile::tempdir().unwrap();
        let message = Source::open(dir.path()).err().unwrap().to_string();
        assert!(message.ends_with("it is a directory"), "{message}");
        let missing = Source::open(&dir.path().join("x")).err().unwrap();
        assert!(matches!(missing, Error::File(vgg_files::Error::Missing { .. })));
    }

    #[test]
    fn prefixes_of_wrapping_modules_are_removed() {
        for (name, plain) in [
            ("features.0.weight", "features.0.weight"),
            ("module.features.0.weight", "features.0.weight"),
            ("module._orig_mod.features.0.weight", "features.0.weight"),
            ("model.features.module.0.weight", "features.0.weight"),
            ("_orig_mod.module.net.classifier.6.bias", "classifier.6.bias"),
        ] {
            assert_eq!(without_wrappers(name), plain);
        }
    }

    #[test]
    fn safetensors_header_length_is_not_mistaken_for_caffe() {
        // A caffemodel also starts with byte 10 or 18, here the length of the header.
        for header in ["{}        ", "{}                "] {
            assert!(matches!(open(&safetensors(header, &[])), Ok(Source::Safetensors(_))));
        }
    }

    #[test]
    fn duplicate_names_and_huge_shapes_are_rejected() {
        // Two layers of the same name, each with a blob `a.0`.
        let blob = [&[0x3a, 2, 0x08, 1, 0x2a, 4][..], &1f32.to_le_bytes()].concat();
        let layer = [&[0xa2, 0x06, 15, 0x0a, 1, b'a', 0x3a, 10][..], &blob].concat();
        assert!(matches!(open(&layer), Ok(Source::Caffe(_))));
        let message = refused(&layer.repeat(2));
        assert!(message.ends_with("it has two tensors named a.0"), "{message}");
        // A view of one value with stride 0: a PyTorch tensor may have any shape.
        let view = |side: u64| {
            let side = side.to_le_bytes();
            let storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01tQ";
            let shape = [&b"K\x00(\x8a\x08"[..], &side, b"t(K\x00t"].concat();
            let tensor = [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage[..], &shape, b"tR"].concat();
            let object = [b"\x80\x02}U\x01a", &tensor[..], b"s."].concat();
            let start = [b"\x80\x02\x8a\x0a", &[0x6c; 10][..], b".\x80\x02M\xe9\x03.\x80\x02}."].concat();
            let storages = [b"\x80\x02](U\x010e.\x01\0\0\0\0\0\0\0", &[0; 4][..]].concat();
            [start, object, storages].concat()
        };
        assert!(open(&view(1)).is_ok());
        for side in [2, (1 << 40) - 1, 1 << 40] {
            let message = refused(&view(side));
            assert!(message.ends_with("a extends beyond its storage"), "{message}");
        }
    }

    #[test]
    fn element_counts_are_limited() {
        for (shape, values) in [
            (&[][..], Some(1)),
            (&[2, 3, 4], Some(24)),
            (&[5, 0], Some(0)),
            (&[1 << 20, (1 << 20) - 1], Some((1 << 40) - (1 << 20))),
            (&[1 << 40], None),
            (&[1 << 33, 1 << 33], None),
        ] {
            assert_eq!(count(shape), values, "{shape:?}");
        }
    }

    #[test]
    fn io_errors_become_missing_corrupt_or_io() {
        let of = |kind: std::io::ErrorKind| io(Path::new("w"), kind.into());
        assert!(matches!(of(std::io::ErrorKind::NotFound), Error::File(vgg_files::Error::Missing { .. })));
        let eof = of(std::io::ErrorKind::UnexpectedEof);
        assert!(matches!(
            eof,
            Error::File(vgg_files::Error::Corrupt { reason, .. }) if reason == "unexpected end of file"
        ));
        assert!(matches!(
            of(std::io::ErrorKind::PermissionDenied),
            Error::File(vgg_files::Error::Io { action: "read", .. })
        ));
    }
}
