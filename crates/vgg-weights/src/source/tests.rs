//! Tests of `source`.

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
    let mut read =
        |name: &str, shape: &[usize]| source.read(&path, &Entry { name: name.into(), shape: shape.to_vec() });
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
fn safetensors_header_length_is_not_mistaken_for_caffe() {
    // A caffemodel also starts with byte 10 or 18, here the length of the header.
    for header in ["{}        ", "{}                "] {
        assert!(open(&safetensors(header, &[])).unwrap().is_safetensors());
    }
}

#[test]
fn duplicate_names_and_huge_shapes_are_rejected() {
    // Two layers of the same name, each with a blob `a.0`.
    let blob = [&[0x3a, 2, 0x08, 1, 0x2a, 4][..], &1f32.to_le_bytes()].concat();
    let layer = [&[0xa2, 0x06, 15, 0x0a, 1, b'a', 0x3a, 10][..], &blob].concat();
    assert!(open(&layer).unwrap().format() == "Caffe");
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
