//! NumPy's archive of arrays.

use std::collections::HashMap;

use super::archive::Archive;
use super::number::Number;
use super::{Entry, corrupt, count};
use crate::Result;

/// Bytes of an array's header, at most.
const MAX_HEADER_BYTES: usize = 1 << 16;

/// An open file.
pub(crate) struct Npz {
    archive: Archive,
    arrays: Vec<Array>,
    places: HashMap<String, usize>,
}

struct Array {
    name: String,
    number: Number,
    shape: Vec<usize>,
    /// Bytes before the values.
    header_bytes: usize,
}

impl Npz {
    /// Whether an archive holds arrays of NumPy's.
    pub(super) fn is_in(archive: &Archive) -> bool {
        archive.names.iter().any(|name| name.ends_with(".npy"))
    }

    pub(super) fn open(mut archive: Archive) -> Result<Npz> {
        let names: Vec<String> =
            archive.names.iter().filter(|name| name.ends_with(".npy")).cloned().collect();
        let arrays = names.iter().map(|name| header(&mut archive, name)).collect::<Result<Vec<_>>>()?;
        let places = arrays.iter().enumerate().map(|(i, array)| (array.name.clone(), i)).collect();
        Ok(Npz { archive, arrays, places })
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.arrays.iter().map(|a| Entry { name: a.name.clone(), shape: a.shape.clone() }).collect()
    }

    pub(super) fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let Some(array) = self.places.get(name).map(|i| &self.arrays[*i]) else {
            return Err(corrupt(&self.archive.path, format!("it has no array {name}")));
        };
        // `open` has checked the shape against the size of the entry, and that against the file.
        let bytes = count(&array.shape).unwrap_or(0) * array.number.bytes();
        let bytes = self.archive.part(&format!("{name}.npy"), array.header_bytes as u64, bytes)?;
        Ok(array.number.floats(&bytes))
    }
}

/// The header of an array, checked against the size of its entry.
fn header(archive: &mut Archive, name: &str) -> Result<Array> {
    let path = archive.path.clone();
    let bad = |reason: String| corrupt(&path, format!("{name}: {reason}"));
    let size = archive.size(name)?;
    let start = archive.part(name, 0, size.min(12) as usize)?;
    if size < 12 || !start.starts_with(b"\x93NUMPY") {
        return Err(bad("it is no array of NumPy's".into()));
    }
    // The length of the header has two bytes in version 1, and four later.
    let (before, len) = if start[6] == 1 {
        (10, usize::from(u16::from_le_bytes([start[8], start[9]])))
    } else {
        (12, u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize)
    };
    if len > MAX_HEADER_BYTES || (before + len) as u64 > size {
        return Err(bad(format!("its header should take {len} bytes")));
    }
    let text = archive.part(name, before as u64, len)?;
    let (number, shape) = parse(&String::from_utf8_lossy(&text)).map_err(bad)?;
    let values = count(&shape).ok_or_else(|| bad(format!("its shape {shape:?} is too large")))?;
    let expected = (before + len) as u64 + values as u64 * number.bytes() as u64;
    if size != expected {
        return Err(bad(format!("it has {size} bytes, but its header asks for {expected}")));
    }
    let name = name.trim_end_matches(".npy").to_owned();
    Ok(Array { name, number, shape, header_bytes: before + len })
}

/// Type and shape from a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3, 3, 64), }`.
fn parse(header: &str) -> std::result::Result<(Number, Vec<usize>), String> {
    let after = |key: &str| {
        let (_, rest) = header.split_once(key).ok_or_else(|| format!("its header has no {key}"))?;
        Ok::<&str, String>(rest.trim_start_matches([':', ' ']))
    };
    let number = match after("'descr'")?.split('\'').nth(1) {
        Some("<f2") => Number::F16,
        Some("<f4") => Number::F32,
        Some("<f8") => Number::F64,
        Some("<i8" | "<u8") => Number::Other(8),
        Some("<i4" | "<u4") => Number::Other(4),
        Some("|u1" | "|i1" | "|b1") => Number::Other(1),
        Some(other) => return Err(format!("values of type {other} are not read")),
        None => return Err("its header names no type of values".into()),
    };
    if !after("'fortran_order'")?.starts_with("False") {
        return Err("its values are in Fortran's order; save numpy.ascontiguousarray of it".into());
    }
    let shape = after("'shape'")?;
    let inside = shape.strip_prefix('(').and_then(|s| s.split_once(')')).ok_or("its header has no shape")?.0;
    let sides = inside.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape: Vec<usize> = sides
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| "its shape is no list of numbers")?;
    if shape.len() > 8 { Err("it has more than eight axes".into()) } else { Ok((number, shape)) }
}
