//! Safetensors files composed byte by byte: values that are read, and damaged files that are rejected.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;

use tempfile::TempDir;
use vgg_files::{Error, Result, TensorData, TensorFile, TensorValues, write_tensors};

/// A file of header length, header and values.
fn bytes_of(header: &str, values: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), values].concat()
}

/// Opens a file with these contents, which exists until the returned directory is dropped.
fn open(bytes: &[u8]) -> (TempDir, Result<TensorFile>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    (dir, TensorFile::open(&path))
}

/// The reason for which a file with these contents is rejected.
#[track_caller]
fn refusal(bytes: &[u8]) -> String {
    match open(bytes).1 {
        Err(Error::Corrupt { path, reason }) => {
            assert!(path.ends_with("x.safetensors"));
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_of_every_type_are_read() {
    // The names are neither in the order of the data nor in alphabetical order.
    let header = r#"{
        "double": {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]},
        "__metadata__": {"k": "v", "a": "ä"},
        "floats": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "integers": {"dtype": "I64", "shape": [2], "data_offsets": [16, 32]},
        "half": {"dtype": "F16", "shape": [1, 1, 1], "data_offsets": [32, 34]},
        "brain": {"dtype": "BF16", "shape": [], "data_offsets": [34, 36]},
        "bytes": {"dtype": "U8", "shape": [3], "data_offsets": [36, 39]},
        "empty": {"dtype": "F32", "shape": [0, 5], "data_offsets": [39, 39]},
        "small": {"dtype": "I32", "shape": [1], "data_offsets": [39, 43]}
    }"#;
    let values: [&[u8]; 7] = [
        // 1.5 and -2 as F32.
        &[0x00, 0x00, 0xc0, 0x3f, 0x00, 0x00, 0x00, 0xc0],
        // 1 as F64.
        &[0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf0, 0x3f],
        // -2 and 2^32 + 3 as I64.
        &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0, 1, 0, 0, 0],
        // 1 as F16 and as BF16.
        &[0x00, 0x3c],
        &[0x80, 0x3f],
        &[7, 8, 9],
        &[1, 2, 3, 4],
    ];
    let (_dir, file) = open(&bytes_of(header, &values.concat()));
    let mut file = file.unwrap();
    assert!(file.path().ends_with("x.safetensors"));
    let mut names = file.names();
    // An empty tensor has the offset of the next one.
    names.retain(|name| name != "empty");
    assert_eq!(names, ["floats", "double", "integers", "half", "brain", "bytes", "small"]);
    let metadata = BTreeMap::from([("a".to_owned(), "ä".to_owned()), ("k".to_owned(), "v".to_owned())]);
    assert_eq!(file.metadata(), metadata);
    let expected: [(&str, &str, &[usize], &[u8]); 8] = [
        ("floats", "F32", &[2, 1], values[0]),
        ("double", "F64", &[1], values[1]),
        ("integers", "I64", &[2], values[2]),
        ("half", "F16", &[1, 1, 1], values[3]),
        ("brain", "BF16", &[], values[4]),
        ("bytes", "another type", &[3], values[5]),
        ("empty", "F32", &[0, 5], &[]),
        ("small", "another type", &[1], values[6]),
    ];
    for (name, dtype, shape, bytes) in expected {
        assert_eq!(file.dtype(name), Some(dtype), "{name}");
        assert_eq!(file.shape(name), Some(shape), "{name}");
        assert_eq!(file.read_bytes(name).unwrap(), bytes, "{name}");
    }
    // Tensors can be read in any order, and more than once.
    assert_eq!(file.read_i64("integers").unwrap(), [-2, (1 << 32) + 3]);
    assert_eq!(file.read_f32("floats").unwrap(), [1.5, -2.0]);
    assert_eq!(file.read_f32("floats").unwrap(), [1.5, -2.0]);
    assert!(file.read_f32("empty").unwrap().is_empty());
}

#[test]
fn errors_state_name_and_type() {
    let header = r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                     "b": {"dtype": "I64", "shape": [1], "data_offsets": [4, 12]}}"#;
    let (_dir, file) = open(&bytes_of(header, &[0; 12]));
    let mut file = file.unwrap();
    let reason = |error: Error| match error {
        Error::Corrupt { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert_eq!(reason(file.read_i64("a").unwrap_err()), "tensor a has type F32, not I64");
    assert_eq!(reason(file.read_f32("b").unwrap_err()), "tensor b has type I64, not F32");
    assert_eq!(reason(file.read_f32("c").unwrap_err()), "it has no tensor c");
    assert_eq!(reason(file.read_i64("c").unwrap_err()), "it has no tensor c");
    assert_eq!(reason(file.read_bytes("c").unwrap_err()), "it has no tensor c");
    assert_eq!((file.shape("c"), file.dtype("c")), (None, None));
}

#[test]
fn files_without_tensors_or_metadata_are_read() {
    let (_dir, file) = open(&bytes_of("{}", &[]));
    let file = file.unwrap();
    assert_eq!(file.names(), [""; 0]);
    assert_eq!(file.metadata(), BTreeMap::new());
}

#[test]
fn offsets_with_overlaps_or_gaps_are_rejected() {
    let two = |dtype: &str, first: [usize; 2], second: [usize; 2]| {
        format!(
            r#"{{"a": {{"dtype": "{dtype}", "shape": [2], "data_offsets": {first:?}}},
                "b": {{"dtype": "{dtype}", "shape": [2], "data_offsets": {second:?}}}}}"#
        )
    };
    let values = [0; 16];
    open(&bytes_of(&two("F32", [0, 8], [8, 16]), &values)).1.unwrap();
    open(&bytes_of(&two("F32", [8, 16], [0, 8]), &values)).1.unwrap();
    for (what, first, second) in [
        ("overlap", [0, 8], [4, 12]),
        ("the same place", [0, 8], [0, 8]),
        ("a gap", [0, 8], [12, 20]),
        ("a gap before the first", [4, 12], [12, 20]),
        ("too short", [0, 7], [7, 15]),
        ("too long", [0, 9], [9, 17]),
        ("end before start", [8, 0], [8, 16]),
        ("outside of the file", [0, 8], [1 << 40, (1 << 40) + 8]),
    ] {
        // The file has as many bytes as the offsets require: only the offsets are wrong.
        let values = vec![0; first[1].max(second[1]).min(100)];
        let reason = refusal(&bytes_of(&two("F32", first, second), &values));
        assert!(reason.starts_with("header: "), "{what}: {reason}");
    }
    // The type requires twice the size.
    let reason = refusal(&bytes_of(&two("F64", [0, 8], [8, 16]), &values));
    assert!(reason.starts_with("header: "), "{reason}");
}

#[test]
fn length_must_match_the_header() {
    let header = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#;
    let needed = 8 + header.len() + 8;
    open(&bytes_of(header, &[0; 8])).1.unwrap();
    for length in [0, 7, 9, 1000] {
        let reason = refusal(&bytes_of(header, &vec![0; length]));
        let found = 8 + header.len() + length;
        assert_eq!(reason, format!("it has {found} bytes, but its header requires {needed}"));
    }
}

#[test]
fn overflowing_sizes_are_rejected() {
    let huge = 1u64 << 60;
    let refused = |header: &str| {
        let reason = refusal(&bytes_of(header, &[]));
        assert!(reason.starts_with("header: ") || reason.contains("header requires"), "{reason}");
    };
    // Overflow of the number of values, of the size of a tensor, and of the sum of sizes.
    refused(&format!(r#"{{"a": {{"dtype": "F32", "shape": [{huge}, 16], "data_offsets": [0, 0]}}}}"#));
    refused(&format!(r#"{{"a": {{"dtype": "F32", "shape": [{huge}], "data_offsets": [0, 0]}}}}"#));
    let size = (1u64 << 61) - 1;
    let tensors: Vec<String> = (0..8)
        .map(|i| {
            let offsets = [i * size, (i + 1) * size];
            format!(r#""{i}": {{"dtype": "U8", "shape": [{size}], "data_offsets": {offsets:?}}}"#)
        })
        .collect();
    refused(&format!("{{{}}}", tensors.join(", ")));
}

#[test]
fn invalid_headers_are_rejected() {
    for (what, header) in [
        ("nothing", ""),
        ("no JSON", "{"),
        ("a list", "[]"),
        ("more after it", "{} {}"),
        ("metadata that are no text", r#"{"__metadata__": {"a": 1}}"#),
        ("an unknown type", r#"{"a": {"dtype": "F31", "shape": [0], "data_offsets": [0, 0]}}"#),
        ("no shape", r#"{"a": {"dtype": "F32", "data_offsets": [0, 0]}}"#),
        ("no offsets", r#"{"a": {"dtype": "F32", "shape": [0]}}"#),
        ("a negative side", r#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}"#),
    ] {
        let reason = refusal(&bytes_of(header, &[]));
        assert!(reason.starts_with("header: "), "{what}: {reason}");
    }
    let reason = refusal(&[&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat());
    assert!(reason.starts_with("header: "), "not UTF-8: {reason}");
}

#[test]
fn header_longer_than_the_file_or_64_mib_is_rejected_before_reading() {
    for length in [0, 1, 7] {
        assert_eq!(refusal(&vec![0; length]), format!("{length} bytes are too few for a safetensors file"));
    }
    let claims = |header: u64, length: u64| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let mut file = File::create(&path).unwrap();
        file.write_all(&header.to_le_bytes()).unwrap();
        // The rest is a hole of zeros, which are not JSON.
        file.set_len(length).unwrap();
        match TensorFile::open(&path).unwrap_err() {
            Error::Corrupt { reason, .. } => reason,
            other => panic!("{other}"),
        }
    };
    let too_long = |header: u64, length: u64| {
        format!("its header length, {header} bytes, exceeds 64 MiB or the length of the file, {length} bytes")
    };
    assert_eq!(claims(3, 10), too_long(3, 10));
    assert!(claims(2, 10).starts_with("header: "));
    assert_eq!(claims(u64::MAX, 100), too_long(u64::MAX, 100));
    let most = 64 << 20;
    assert_eq!(claims(most + 1, most + 1000), too_long(most + 1, most + 1000));
    assert!(claims(most, most + 1000).starts_with("header: "));
}

#[test]
fn missing_file_is_error_missing() {
    let dir = tempfile::tempdir().unwrap();
    let error = TensorFile::open(&dir.path().join("none")).unwrap_err();
    assert!(matches!(&error, Error::Missing { path } if path.ends_with("none")), "{error}");
}

#[test]
fn written_bytes_match_the_format() {
    let tensors = [
        TensorData {
            name: "b".into(),
            shape: vec![2, 1],
            values: TensorValues::F32(&[1.5, f32::NEG_INFINITY]),
        },
        TensorData { name: "a".into(), shape: vec![1], values: TensorValues::I64(&[-2]) },
        TensorData { name: "none".into(), shape: vec![0], values: TensorValues::I64(&[]) },
    ];
    let metadata = BTreeMap::from([("k".to_owned(), "\"v\"".to_owned())]);
    let mut bytes = Vec::new();
    write_tensors(&mut bytes, &tensors, &metadata).unwrap();
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    // The values start at a multiple of eight bytes.
    assert_eq!(length % 8, 0);
    let (header, values) = rest.split_at(length);
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let expected = serde_json::json!({
        "__metadata__": { "k": "\"v\"" },
        "b": { "dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8] },
        "a": { "dtype": "I64", "shape": [1], "data_offsets": [8, 16] },
        "none": { "dtype": "I64", "shape": [0], "data_offsets": [16, 16] },
    });
    assert_eq!(header, expected);
    let expected =
        [[0x00, 0x00, 0xc0, 0x3f, 0x00, 0x00, 0x80, 0xff], [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]];
    assert_eq!(values, expected.concat());
    // Equal input gives equal bytes; without metadata there is no `__metadata__`.
    let mut again = Vec::new();
    write_tensors(&mut again, &tensors, &metadata).unwrap();
    assert!(again == bytes);
    let mut bare = Vec::new();
    write_tensors(&mut bare, &[], &BTreeMap::new()).unwrap();
    assert_eq!(bare, b"\x08\0\0\0\0\0\0\0{}      ");
}

#[test]
fn long_tensors_are_written_completely() {
    // More than two write buffers, and not a multiple of them.
    let length = 2 * 16 * 1024 + 3;
    let floats: Vec<f32> = (0..length).map(|i| i as f32).collect();
    let integers: Vec<i64> = (0..length as i64).map(|i| i - 7).collect();
    let tensors = [
        TensorData { name: "f".into(), shape: vec![length], values: TensorValues::F32(&floats) },
        TensorData { name: "i".into(), shape: vec![length], values: TensorValues::I64(&integers) },
    ];
    let mut bytes = Vec::new();
    write_tensors(&mut bytes, &tensors, &BTreeMap::new()).unwrap();
    let values = &bytes[bytes.len() - 12 * length..];
    for i in 0..length {
        assert_eq!(values[4 * i..][..4], (i as f32).to_le_bytes(), "float {i}");
        assert_eq!(values[4 * length + 8 * i..][..8], (i as i64 - 7).to_le_bytes(), "integer {i}");
    }
    let (_dir, file) = open(&bytes);
    let mut file = file.unwrap();
    assert!(file.read_f32("f").unwrap() == floats);
    assert!(file.read_i64("i").unwrap() == integers);
}

#[test]
fn write_errors_are_returned() {
    struct Fails(usize);
    impl Write for Fails {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let n = bytes.len().min(self.0);
            self.0 -= n;
            if n == 0 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(n) }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let tensor = TensorData { name: "a".into(), shape: vec![2], values: TensorValues::F32(&[1.0, 2.0]) };
    let write = |out: &mut dyn Write| write_tensors(out, std::slice::from_ref(&tensor), &BTreeMap::new());
    let mut whole = Vec::new();
    write(&mut whole).unwrap();
    for room in 0..whole.len() {
        let error = write(&mut Fails(room)).expect_err("the output has too little space");
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{room} bytes");
    }
    write(&mut Fails(whole.len())).unwrap();
}
