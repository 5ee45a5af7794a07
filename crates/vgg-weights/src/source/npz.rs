//! Reading NumPy's `.npz` archives.

use std::collections::HashMap;

use super::archive::Archive;
use super::number::Number;
use super::{Entry, corrupt, count};
use crate::Result;

/// Maximum size of an array's header in bytes.
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
    /// Whether an archive contains NumPy arrays.
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
            return Err(corrupt(&self.archive.path, format!("no array named {name}")));
        };
        // `open` has checked the shape against the entry's size, and that size against the file's.
        let bytes = count(&array.shape).unwrap_or(0) * array.number.bytes();
        let bytes = self.archive.part(&format!("{name}.npy"), array.header_bytes as u64, bytes)?;
        Ok(array.number.floats(&bytes))
    }
}

/// Reads the header of an array and checks it against the size of its entry.
fn header(archive: &mut Archive, name: &str) -> Result<Array> {
    let path = archive.path.clone();
    let bad = |reason: String| corrupt(&path, format!("{name}: {reason}"));
    let size = archive.size(name)?;
    let start = archive.part(name, 0, size.min(12) as usize)?;
    if size < 12 || !start.starts_with(b"\x93NUMPY") {
        return Err(bad("not a NumPy array".into()));
    }
    // The header's length has two bytes in version 1 and four bytes in later versions.
    let (before, len) = if start[6] == 1 {
        (10, usize::from(u16::from_le_bytes([start[8], start[9]])))
    } else {
        (12, u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize)
    };
    if len > MAX_HEADER_BYTES || (before + len) as u64 > size {
        return Err(bad(format!("invalid header length {len}")));
    }
    let text = archive.part(name, before as u64, len)?;
    let (number, shape) = parse(&String::from_utf8_lossy(&text)).map_err(bad)?;
    let values = count(&shape).ok_or_else(|| bad(format!("the shape {shape:?} is too large")))?;
    let expected = (before + len) as u64 + values as u64 * number.bytes() as u64;
    if size != expected {
        return Err(bad(format!("it has {size} bytes, but its header requires {expected}")));
    }
    let name = name.trim_end_matches(".npy").to_owned();
    Ok(Array { name, number, shape, header_bytes: before + len })
}

/// Parses dtype and shape of a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 64), }`.
fn parse(header: &str) -> std::result::Result<(Number, Vec<usize>), String> {
    let after = |key: &str| {
        let (_, rest) = header.split_once(key).ok_or_else(|| format!("the header has no {key}"))?;
        Ok::<&str, String>(rest.trim_start_matches([':', ' ']))
    };
    let number = match after("'descr'")?.split('\'').nth(1) {
        Some("<f2") => Number::F16,
        Some("<f4") => Number::F32,
        Some("<f8") => Number::F64,
        Some("<i8" | "<u8") => Number::Other(8),
        Some("<i4" | "<u4") => Number::Other(4),
        Some("|u1" | "|i1" | "|b1") => Number::Other(1),
        Some(other) => return Err(format!("dtype {other} is not supported")),
        None => return Err("the header has no valid 'descr'".into()),
    };
    if !after("'fortran_order'")?.starts_with("False") {
        return Err("the array is in Fortran order; save numpy.ascontiguousarray(array)".into());
    }
    let shape = after("'shape'")?;
    let inside = shape.strip_prefix('(').and_then(|s| s.split_once(')')).ok_or("the shape is not a tuple")?.0;
    let sides = inside.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape: Vec<usize> = sides
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| "the shape has an invalid size")?;
    if shape.len() > 8 { Err("the array has more than eight axes".into()) } else { Ok((number, shape)) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const F4: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";

    /// An array as NumPy saves it: magic, version, length of the header, header, values.
    fn npy(version: u8, header: &str, values: &[u8]) -> Vec<u8> {
        let length = header.len() as u32;
        let length = length.to_le_bytes();
        let length = if version == 1 { &length[..2] } else { &length[..] };
        [b"\x93NUMPY", &[version, 0][..], length, header.as_bytes(), values].concat()
    }

    fn open(arrays: &[(&str, &[u8])]) -> Result<Npz> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.npz");
        let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, bytes) in arrays {
            archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
        Npz::open(Archive::open(&path)?)
    }

    fn refused(bytes: &[u8]) -> String {
        open(&[("a.npy", bytes)]).err().unwrap().to_string()
    }

    #[test]
    fn arrays_of_every_float_type_are_read() {
        let singles: Vec<u8> =
            [1.5f32, -0.25, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let doubles: Vec<u8> = [0.1f64, -2.5].iter().flat_map(|v| v.to_le_bytes()).collect();
        let header = |descr: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")
        };
        let mut npz = open(&[
            ("block1/kernel.npy", &npy(1, F4, &singles)),
            ("readme.txt", b"not an array"),
            ("half.npy", &npy(2, &header("<f2", "(3,)"), &[0x00, 0x3e, 0x00, 0xb4, 0xff, 0x7b])),
            ("double.npy", &npy(3, &header("<f8", "(1, 2)"), &doubles)),
            ("scalar.npy", &npy(1, &header("<f4", "()"), &singles[..4])),
            ("step.npy", &npy(1, &header("<i8", "(1,)"), &[1, 0, 0, 0, 0, 0, 0, 0])),
        ])
        .unwrap();
        let entries: Vec<(String, Vec<usize>)> =
            npz.entries().into_iter().map(|e| (e.name, e.shape)).collect();
        let expected = [
            ("block1/kernel", vec![2, 3]),
            ("half", vec![3]),
            ("double", vec![1, 2]),
            ("scalar", vec![]),
            ("step", vec![1]),
        ];
        assert_eq!(entries, expected.map(|(name, shape)| (name.to_owned(), shape)));
        for (name, values) in [
            ("block1/kernel", &[1.5, -0.25, 3.0, 4.0, 5.0, 6.0][..]),
            ("half", &[1.5, -0.25, 65504.0]),
            ("double", &[0.1, -2.5]),
            ("scalar", &[1.5]),
            // Integers are not weights.
            ("step", &[]),
        ] {
            assert_eq!(npz.read(name).unwrap(), values, "{name}");
        }
        let message = npz.read("x").unwrap_err().to_string();
        assert!(message.ends_with("no array named x"), "{message}");
    }

    #[test]
    fn numpy_headers_are_parsed() {
        for (header, number, shape) in [
            (F4, Number::F32, vec![2, 3]),
            ("{'descr': '<f2', 'fortran_order': False, 'shape': (7,), }  \n", Number::F16, vec![7]),
            ("{'descr':'<f8','fortran_order':False,'shape':()}", Number::F64, vec![]),
            ("{'shape': (1, 2, 3), 'fortran_order': False, 'descr': '<i8'}", Number::Other(8), vec![1, 2, 3]),
            ("{'descr': '<u8', 'fortran_order': False, 'shape': (0,), }", Number::Other(8), vec![0]),
            ("{'descr': '<i4', 'fortran_order': False, 'shape': (1,), }", Number::Other(4), vec![1]),
            ("{'descr': '<u4', 'fortran_order': False, 'shape': (1,), }", Number::Other(4), vec![1]),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", Number::Other(1), vec![1]),
            ("{'descr': '|i1', 'fortran_order': False, 'shape': (1,), }", Number::Other(1), vec![1]),
            ("{'descr': '|b1', 'fortran_order': False, 'shape': (1,), }", Number::Other(1), vec![1]),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 8), }",
                Number::F32,
                vec![1, 1, 1, 1, 1, 1, 1, 8],
            ),
        ] {
            assert_eq!(parse(header), Ok((number, shape)), "{header}");
        }
    }

    #[test]
    fn unsupported_headers_are_rejected_with_a_reason() {
        for (header, reason) in [
            ("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", "dtype >f4 is not supported"),
            ("{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }", "dtype <c8 is not supported"),
            ("{'descr': 4, }", "the header has no valid 'descr'"),
            ("{'fortran_order': False, 'shape': (2,), }", "the header has no 'descr'"),
            ("{'descr': '<f4', 'shape': (2,), }", "the header has no 'fortran_order'"),
            ("{'descr': '<f4', 'fortran_order': False, }", "the header has no 'shape'"),
            (
                "{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }",
                "the array is in Fortran order; save numpy.ascontiguousarray(array)",
            ),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': 2, }", "the shape is not a tuple"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (2", "the shape is not a tuple"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "the shape has an invalid size"),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 1, 1), }",
                "the array has more than eight axes",
            ),
        ] {
            assert_eq!(parse(header), Err(reason.to_owned()), "{header}");
        }
    }

    #[test]
    fn arrays_of_the_wrong_length_are_rejected() {
        let values = [0; 24];
        let start = 10 + F4.len();
        assert!(open(&[("a.npy", &npy(1, F4, &values))]).is_ok());
        for (bytes, reason) in [
            (
                npy(1, F4, &values[..23]),
                format!("it has {} bytes, but its header requires {}", start + 23, start + 24),
            ),
            (
                npy(1, F4, &[0; 25]),
                format!("it has {} bytes, but its header requires {}", start + 25, start + 24),
            ),
            (npy(1, F4, &[])[..start - 1].to_vec(), format!("invalid header length {}", F4.len())),
            (b"\x93NUMPY\x01\x00\x00\x00\x00".to_vec(), "not a NumPy array".into()),
            (b"\x93NUMPX\x01\x00\x00\x00\x00\x00".to_vec(), "not a NumPy array".into()),
            (
                npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1048576, 1048576), }", &[]),
                "the shape [1048576, 1048576] is too large".into(),
            ),
        ] {
            let message = refused(&bytes);
            assert!(message.ends_with(&format!("a.npy: {reason}")), "{message}");
        }
        // Headers are padded with spaces; at most 65536 bytes are accepted.
        let header = |length: usize| format!("{F4}{}", " ".repeat(length - F4.len()));
        assert!(open(&[("a.npy", &npy(2, &header(65_536), &values))]).is_ok());
        assert!(refused(&npy(2, &header(65_537), &values)).ends_with("invalid header length 65537"));
    }

    #[test]
    fn an_archive_with_npy_entries_is_npz() {
        let dir = tempfile::tempdir().unwrap();
        for (name, is_in) in [("a.npy", true), ("a/b.npy", true), ("a.npz", false), ("data.pkl", false)] {
            let path = dir.path().join("w.zip");
            let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.finish().unwrap();
            assert_eq!(Npz::is_in(&Archive::open(&path).unwrap()), is_in, "{name}");
        }
    }
}
