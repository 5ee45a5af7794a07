//! Reading a `.caffemodel`: a `NetParameter` of caffe.proto with layers of the current or the V1 schema.
//! Opening a file records only the offsets of values; each tensor is read on demand.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::number::Number;
use super::wire::{Reader, Wire};
use super::{Entry, corrupt, count, io};
use crate::Result;

/// Maximum number of blobs in a file.
const MAX_BLOBS: usize = 1 << 14;

/// An open file.
pub(crate) struct CaffeModel {
    path: PathBuf,
    file: BufReader<File>,
    blobs: Vec<Blob>,
    /// vgg's metadata, which Caffe ignores; empty if there are none.
    pub(super) metadata: BTreeMap<String, String>,
}

/// Number of the `NetParameter` field, unknown to Caffe, that holds vgg's metadata as JSON.
pub(crate) const METADATA_FIELD: u32 = 21_000;
const MAX_METADATA_BYTES: u64 = 4 << 20;

/// A tensor of a layer.
struct Blob {
    /// Name of the layer and index of the blob: `conv1_1.0` is the weight, `conv1_1.1` the bias.
    name: String,
    shape: Vec<usize>,
    number: Number,
    place: u64,
    bytes: u64,
}

/// Whether a file may be a caffemodel: its first field is the name of the network or a layer.
pub(super) fn may_be(start: &[u8]) -> bool {
    matches!(start, [0x0a | 0x12, ..] | [0xa2, 0x06, ..])
}

impl CaffeModel {
    pub(super) fn open(path: &Path) -> Result<CaffeModel> {
        let file = File::open(path).map_err(|e| io(path, e))?;
        let length = file.metadata().map_err(|e| io(path, e))?.len();
        let mut reader = Reader { path, file: BufReader::new(file), at: 0 };
        let (mut blobs, mut metadata) = (Vec::new(), BTreeMap::new());
        while reader.at < length {
            let (field, value) = reader.field(length)?;
            match (field, value) {
                // Name 4 and blobs 6 of V1LayerParameter; name 1 and blobs 7 of LayerParameter.
                (2, Wire::Bytes(end)) => reader.layer(end, 4, 6, &mut blobs)?,
                (100, Wire::Bytes(end)) => reader.layer(end, 1, 7, &mut blobs)?,
                (field, Wire::Bytes(end)) if field == u64::from(METADATA_FIELD) => {
                    let text = reader.text(end, MAX_METADATA_BYTES)?;
                    metadata =
                        serde_json::from_str(&text).map_err(|e| corrupt(path, format!("metadata: {e}")))?;
                }
                (_, value) => reader.skip(&value)?,
            }
        }
        if blobs.is_empty() {
            return Err(corrupt(path, "it has no layers with weights"));
        }
        Ok(CaffeModel { path: path.to_owned(), file: reader.file, blobs, metadata })
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.blobs.iter().map(|b| Entry { name: b.name.clone(), shape: b.shape.clone() }).collect()
    }

    pub(super) fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let Some(blob) = self.blobs.iter().find(|blob| blob.name == name) else {
            return Err(corrupt(&self.path, format!("no blob named {name}")));
        };
        // `open` has checked the length against the file.
        let mut bytes = vec![0; blob.bytes as usize];
        self.file.seek(SeekFrom::Start(blob.place)).map_err(|e| io(&self.path, e))?;
        self.file.read_exact(&mut bytes).map_err(|e| io(&self.path, e))?;
        Ok(blob.number.floats(&bytes))
    }
}

impl Reader<'_> {
    /// Reads a layer's message, which ends at `end`, and appends its blobs.
    fn layer(&mut self, end: u64, name_field: u64, blobs_field: u64, blobs: &mut Vec<Blob>) -> Result<()> {
        let (mut name, mut own) = (String::new(), Vec::new());
        while self.at < end {
            match self.field(end)? {
                (field, Wire::Bytes(end)) if field == name_field => name = self.text(end, 1000)?,
                (field, Wire::Bytes(end)) if field == blobs_field => own.push(self.blob(end)?),
                (_, value) => self.skip(&value)?,
            }
            if blobs.len() + own.len() > MAX_BLOBS {
                return Err(corrupt(self.path, "it has too many blobs"));
            }
        }
        blobs.extend(
            own.into_iter().enumerate().map(|(i, blob)| Blob { name: format!("{name}.{i}"), ..blob }),
        );
        Ok(())
    }

    /// Reads a `BlobProto`; its legacy shape is num, channels, height and width.
    fn blob(&mut self, end: u64) -> Result<Blob> {
        let (mut old, mut shape) = ([None; 4], None);
        let mut values: Option<(Number, u64, u64)> = None;
        while self.at < end {
            match self.field(end)? {
                (field @ 1..=4, Wire::Varint(side)) => old[field as usize - 1] = Some(side as usize),
                (7, Wire::Bytes(end)) => shape = Some(self.shape(end)?),
                (field @ (5 | 8), Wire::Bytes(end)) => {
                    let number = if field == 5 { Number::F32 } else { Number::F64 };
                    if values.replace((number, self.at, end - self.at)).is_some() {
                        return Err(corrupt(self.path, "the values of a blob are in several fields"));
                    }
                    self.seek(end)?;
                }
                (5 | 8, _) => return Err(corrupt(self.path, "the values of a blob are not packed")),
                (_, value) => self.skip(&value)?,
            }
        }
        let shape = shape.unwrap_or_else(|| old.iter().flatten().copied().collect());
        let (number, place, bytes) = values.unwrap_or((Number::F32, self.at, 0));
        let expected = count(&shape).map(|n| n as u64 * number.bytes() as u64);
        if expected != Some(bytes) {
            return Err(corrupt(self.path, format!("a blob of shape {shape:?} has {bytes} bytes")));
        }
        Ok(Blob { name: String::new(), shape, number, place, bytes })
    }

    /// Reads a `BlobShape`, packed or not.
    fn shape(&mut self, end: u64) -> Result<Vec<usize>> {
        let mut shape = Vec::new();
        while self.at < end && shape.len() <= 8 {
            match self.field(end)? {
                (1, Wire::Varint(side)) => shape.push(side as usize),
                (1, Wire::Bytes(end)) => {
                    while self.at < end && shape.len() <= 8 {
                        shape.push(self.varint()? as usize);
                    }
                }
                (_, value) => self.skip(&value)?,
            }
        }
        if shape.len() > 8 || self.at > end {
            return Err(corrupt(self.path, "the shape of a blob is invalid"));
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests;
