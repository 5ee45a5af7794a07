//! Safetensors files. [`write_tensors`] writes deterministic bytes; [`TensorFile`] checks the header against
//! the length of the file before it allocates memory, and reads each tensor separately.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::error::{Error, Result, at};
use crate::open_regular;

/// Largest header that is read.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct TensorData<'a> {
    /// Name in the file.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: TensorValues<'a>,
}

/// Values of a tensor to write.
#[derive(Debug, Clone, Copy)]
pub enum TensorValues<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 64-bit integers.
    I64(&'a [i64]),
}

impl TensorValues<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            TensorValues::F32(_) => Dtype::F32,
            TensorValues::I64(_) => Dtype::I64,
        }
    }

    /// Writes the values in little-endian order, through a small buffer.
    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        match self {
            TensorValues::F32(v) => write_values(v, f32::to_le_bytes, out),
            TensorValues::I64(v) => write_values(v, i64::to_le_bytes, out),
        }
    }

    fn byte_len(&self) -> usize {
        match self {
            TensorValues::F32(v) => 4 * v.len(),
            TensorValues::I64(v) => 8 * v.len(),
        }
    }
}

fn write_values<T: Copy, const N: usize>(
    values: &[T],
    bytes: fn(T) -> [u8; N],
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(N * 16 * 1024);
    for chunk in values.chunks(16 * 1024) {
        buffer.clear();
        buffer.extend(chunk.iter().flat_map(|v| bytes(*v)));
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// Writes tensors, in the given order, and metadata in safetensors format. Equal input gives equal bytes.
///
/// # Errors
/// Errors of writing to `out`.
pub fn write_tensors(
    out: &mut dyn Write,
    tensors: &[TensorData],
    metadata: &BTreeMap<String, String>,
) -> std::io::Result<()> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::to_value(metadata)?);
    }
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.values.byte_len();
        let info = TensorInfo {
            dtype: tensor.values.dtype(),
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        header.insert(tensor.name.clone(), serde_json::to_value(info)?);
        start = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // The values start at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for tensor in tensors {
        tensor.values.write(out)?;
    }
    Ok(())
}

/// An open safetensors file whose header has been checked.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    header: Metadata,
}

impl TensorFile {
    /// Opens a file and checks its header: the byte ranges of the tensors must cover the data without gaps or
    /// overlaps, and have the sizes that shapes and types require.
    ///
    /// # Errors
    /// [`Error::Missing`] if the file does not exist; [`Error::Io`] if it cannot be read; [`Error::Corrupt`]
    /// if the header is invalid or the length of the file differs from it.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let corrupt = |reason: String| Error::corrupt(path, reason);
        let mut file = open_regular(path).map_err(at("open", path))?;
        let length = file.metadata().map_err(at("read", path))?.len();
        let mut size = [0; 8];
        if length < 8 {
            return Err(corrupt(format!("{length} bytes are too few for a safetensors file")));
        }
        file.read_exact(&mut size).map_err(at("read", path))?;
        let header_len = u64::from_le_bytes(size);
        if header_len > MAX_HEADER_BYTES || header_len > length - 8 {
            return Err(corrupt(format!(
                "its header length, {header_len} bytes, exceeds 64 MiB or the length of the file, {length} bytes"
            )));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(at("read", path))?;
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|e| corrupt(format!("header: {e}")))?;
        // The sum of all sizes may overflow 64 bits.
        let expected = 8 + u128::from(header_len) + header.data_len() as u128;
        if u128::from(length) != expected {
            return Err(corrupt(format!("it has {length} bytes, but its header requires {expected}")));
        }
        Ok(TensorFile { path: path.to_owned(), file, data_start: 8 + header_len, header })
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors, in order of their data.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// Shape of a tensor; `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| info.shape.as_slice())
    }

    /// Data type of a tensor: `F16`, `BF16`, `F32`, `F64`, `I64` or `another type`; `None` if it does not
    /// exist.
    pub fn dtype(&self, name: &str) -> Option<&'static str> {
        Some(match self.header.info(name)?.dtype {
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::F32 => "F32",
            Dtype::F64 => "F64",
            Dtype::I64 => "I64",
            _ => "another type",
        })
    }

    /// Reads the bytes of a tensor of any type.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no tensor of this name; [`Error::Io`] if it cannot be read.
    pub fn read_bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        let Some(dtype) = self.header.info(name).map(|info| info.dtype) else {
            return Err(Error::corrupt(&self.path, format!("it has no tensor {name}")));
        };
        self.read(name, dtype)
    }

    /// The metadata (`__metadata__`).
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Reads a tensor of 32-bit floats.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no tensor of this name and type; [`Error::Io`] if it cannot be read.
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        let bytes = self.read(name, Dtype::F32)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Reads a tensor of 64-bit integers.
    ///
    /// # Errors
    /// As [`TensorFile::read_f32`].
    pub fn read_i64(&mut self, name: &str) -> Result<Vec<i64>> {
        let bytes = self.read(name, Dtype::I64)?;
        let mut word = [0; 8];
        Ok(bytes
            .chunks_exact(8)
            .map(|b| {
                word.copy_from_slice(b);
                i64::from_le_bytes(word)
            })
            .collect())
    }

    fn read(&mut self, name: &str, dtype: Dtype) -> Result<Vec<u8>> {
        let Some(info) = self.header.info(name) else {
            return Err(Error::corrupt(&self.path, format!("it has no tensor {name}")));
        };
        if info.dtype != dtype {
            let reason = format!("tensor {name} has type {}, not {dtype}", info.dtype);
            return Err(Error::corrupt(&self.path, reason));
        }
        let (start, end) = info.data_offsets;
        // `open` has checked the offsets against the length of the file, which limits the allocation.
        let mut bytes = vec![0; end - start];
        self.file.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(at("read", &self.path))?;
        self.file.read_exact(&mut bytes).map_err(at("read", &self.path))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(dir: &Path) -> PathBuf {
        let path = dir.join("x.safetensors");
        let tensors = [
            TensorData {
                name: "b".into(),
                shape: vec![2, 2],
                values: TensorValues::F32(&[1.0, 2.0, 3.0, 4.5]),
            },
            TensorData { name: "a".into(), shape: vec![3], values: TensorValues::I64(&[-1, 0, 7]) },
        ];
        let metadata = BTreeMap::from([("classes".to_owned(), "[\"cat\"]".to_owned())]);
        crate::write_with(&path, |out| write_tensors(out, &tensors, &metadata)).unwrap();
        path
    }

    #[test]
    fn written_tensors_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = TensorFile::open(&sample(dir.path())).unwrap();
        assert_eq!(file.names(), ["b", "a"]);
        assert_eq!(file.shape("b"), Some([2, 2].as_slice()));
        assert_eq!(file.read_f32("b").unwrap(), [1.0, 2.0, 3.0, 4.5]);
        assert_eq!(file.read_i64("a").unwrap(), [-1, 0, 7]);
        assert_eq!(file.metadata()["classes"], "[\"cat\"]");
        assert!(file.read_f32("a").unwrap_err().to_string().contains("I64"));
        assert!(file.read_f32("c").is_err());
    }

    #[test]
    fn safetensors_crate_reads_written_files() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = std::fs::read(sample(dir.path())).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("b").unwrap().shape(), [2, 2]);
    }

    #[test]
    fn truncated_files_and_huge_headers_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(matches!(TensorFile::open(&path), Err(Error::Corrupt { .. })), "cut at {cut}");
        }
        let mut huge = bytes.clone();
        huge[..8].copy_from_slice(&(2u64 << 30).to_le_bytes());
        std::fs::write(&path, &huge).unwrap();
        assert!(TensorFile::open(&path).unwrap_err().to_string().contains("2147483648"));
        std::fs::write(&path, [bytes.as_slice(), b"more"].concat()).unwrap();
        assert!(TensorFile::open(&path).is_err());
    }
}
