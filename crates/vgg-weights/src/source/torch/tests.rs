//! Tests of `torch`.

use std::io::Write as _;

use super::super::number::Number;
use super::*;

/// A reference to a storage: class, key and number of values.
type Mention<'a> = (&'a str, &'a str, u8);

fn text(text: &str) -> Vec<u8> {
    [&[b'U', text.len() as u8][..], text.as_bytes()].concat()
}

fn tuple(numbers: &[u8]) -> Vec<u8> {
    [b"(", &numbers.iter().flat_map(|n| [b'K', *n]).collect::<Vec<_>>()[..], b"t"].concat()
}

/// `_rebuild_tensor_v2(storage, offset, shape, stride, False, None)`.
fn tensor(mention: Mention, offset: u8, shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let (class, key, len) = mention;
    let class = format!("ctorch\n{class}\n");
    let storage = [&b"("[..], &text("storage"), class.as_bytes(), &text(key), &text("cpu"), &[b'K', len]];
    let arguments = [&[b'K', offset][..], &tuple(shape), &tuple(stride), b"\x89N"].concat();
    [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage.concat()[..], b"tQ", &arguments, b"tR"].concat()
}

/// The opcodes of a dictionary.
fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> =
        items.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"}(", &items[..], b"u"].concat()
}

fn pickle(object: &[u8]) -> Vec<u8> {
    [b"\x80\x02", object, b"."].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn zip(path: &Path, entries: &[(&str, &[u8])]) {
    let mut archive = zip::ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in entries {
        archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// A legacy file: magic number, protocol, system information, object, keys, and storages with their lengths.
fn legacy(object: &[u8], keys: &[u8], storages: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let magic = [&b"\x8a\x0a"[..], &[0x6c; 10]].concat();
    let pickles = [&magic[..], b"M\xe9\x03", b"}", object, keys].map(pickle).concat();
    let storages = storages.iter().flat_map(|(len, bytes)| [&len.to_le_bytes()[..], bytes].concat());
    pickles.into_iter().chain(storages).collect()
}

fn keys(names: &[&str]) -> Vec<u8> {
    [b"](", &names.iter().flat_map(|name| text(name)).collect::<Vec<_>>()[..], b"e"].concat()
}

const F32: Mention = ("FloatStorage", "0", 6);
const F64: Mention = ("DoubleStorage", "1", 2);

/// A matrix, its transpose, its last column, and two doubles.
fn object() -> Vec<u8> {
    dict(&[
        ("a", tensor(F32, 0, &[2, 3], &[3, 1])),
        ("b", tensor(F32, 0, &[3, 2], &[1, 3])),
        ("c", tensor(F32, 2, &[2], &[3])),
        ("d", tensor(F64, 1, &[], &[])),
        ("e", tensor(F64, 0, &[2], &[1])),
        ("epoch", b"K\x05".to_vec()),
    ])
}

const VALUES: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

fn doubles() -> Vec<u8> {
    [0.1f64, -2.5].iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn check_object(mut torch: Torch) {
    let entries: Vec<(String, Vec<usize>)> = torch.entries().into_iter().map(|e| (e.name, e.shape)).collect();
    let expected = [("a", vec![2, 3]), ("b", vec![3, 2]), ("c", vec![2]), ("d", vec![]), ("e", vec![2])];
    assert_eq!(entries, expected.map(|(name, shape)| (name.to_owned(), shape)));
    for (name, values) in [
        ("a", &VALUES[..]),
        ("b", &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
        ("c", &[3.0, 6.0]),
        ("d", &[-2.5]),
        ("e", &[0.1, -2.5]),
    ] {
        assert_eq!(torch.read(name).unwrap(), values, "{name}");
    }
    let message = torch.read("x").unwrap_err().to_string();
    assert!(message.ends_with("no tensor named x"), "{message}");
}

#[test]
fn archive_tensors_are_read_by_offset_and_strides() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let (object, f32s, f64s) = (pickle(&object()), floats(&VALUES), doubles());
    for folder in ["archive/", "w/", ""] {
        let [data, first, second, order] =
            ["data.pkl", "data/0", "data/1", "byteorder"].map(|name| format!("{folder}{name}"));
        let entries: [(&str, &[u8]); 4] =
            [(&second, &f64s), (&data, &object), (&first, &f32s), (&order, b"little")];
        zip(&path, &entries);
        check_object(Torch::open_archive(Archive::open(&path).unwrap()).unwrap());
        // Before PyTorch 2.1, archives had no `byteorder`.
        zip(&path, &entries[..3]);
        check_object(Torch::open_archive(Archive::open(&path).unwrap()).unwrap());
    }
}

#[test]
fn legacy_tensors_are_read_by_offset_and_strides() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let storages = [(2, doubles()), (6, floats(&VALUES))];
    std::fs::write(&path, legacy(&object(), &keys(&["1", "0"]), &storages)).unwrap();
    check_object(Torch::open_legacy(&path).unwrap());
}

#[test]
fn damaged_archives_are_rejected_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let refused = |entries: &[(&str, &[u8])]| {
        zip(&path, entries);
        Torch::open_archive(Archive::open(&path).unwrap()).err().unwrap().to_string()
    };
    let (object, f32s, f64s) = (pickle(&object()), floats(&VALUES), doubles());
    let reason = refused(&[("a/data", &object)]);
    assert!(reason.ends_with("the zip archive contains neither data.pkl nor .npy arrays"), "{reason}");
    let entries: [(&str, &[u8]); 3] = [("a/data.pkl", &object), ("a/data/0", &f32s), ("a/data/1", &f64s)];
    let reason = refused(&[entries[0], entries[1], entries[2], ("a/byteorder", b"big")]);
    assert!(reason.ends_with("big-endian files are not supported"), "{reason}");
    let reason = refused(&entries[..2]);
    assert!(reason.contains("a/data/1"), "{reason}");
    // Too few values, and too many.
    for bytes in [&f32s[..20], &[&f32s[..], &[0; 4]].concat()] {
        let reason = refused(&[entries[0], ("a/data/0", bytes), entries[2]]);
        let expected = format!("a: its storage has {} bytes instead of 24", bytes.len());
        assert!(reason.ends_with(&expected), "{reason}");
    }
}

#[test]
fn damaged_legacy_files_are_rejected_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let refused = |object: &[u8], keys: &[u8], storages: &[(u64, Vec<u8>)]| {
        std::fs::write(&path, legacy(object, keys, storages)).unwrap();
        Torch::open_legacy(&path).err().unwrap().to_string()
    };
    let one = dict(&[("a", tensor(F32, 0, &[6], &[1]))]);
    let storage = (6, floats(&VALUES));
    for (keys, storages, reason) in [
        (b"}".to_vec(), vec![storage.clone()], "the keys of its storages are not a list"),
        (b"](K\x01e".to_vec(), vec![storage.clone()], "the key of a storage is not a string"),
        (keys(&["5"]), vec![storage.clone()], "storage 5 belongs to no tensor"),
        (keys(&["0"]), vec![(5, storage.1.clone())], "the length of storage 0 does not match its tensors"),
        (keys(&["0"]), vec![(6, floats(&VALUES[..5]))], "it ends inside storage 0"),
        (keys(&["0"]), vec![], "unexpected end of file"),
        (keys(&[]), vec![storage.clone()], "the storage of a is missing"),
    ] {
        let message = refused(&one, &keys, &storages);
        assert!(message.ends_with(reason), "{message}");
    }
    let two_kinds =
        dict(&[("a", tensor(F32, 0, &[6], &[1])), ("b", tensor(("DoubleStorage", "0", 6), 0, &[6], &[1]))]);
    let message = refused(&two_kinds, &keys(&["0"]), &[storage]);
    assert!(message.ends_with("storage 0 has two types or lengths"), "{message}");
}

fn names(object: &[u8]) -> std::result::Result<Vec<String>, String> {
    let (pickle, _) = Pickle::read(&pickle(object)).unwrap();
    state_dict(&pickle).map(|(tensors, _)| tensors.into_iter().map(|(name, _)| name).collect())
}

fn notes(object: &[u8]) -> Vec<String> {
    let (pickle, _) = Pickle::read(&pickle(object)).unwrap();
    state_dict(&pickle).unwrap().1
}

#[test]
fn nested_state_dict_and_model_are_read() {
    let one = || tensor(F32, 0, &[6], &[1]);
    let inner = dict(&[("x", one()), ("y", one())]);
    let expected = || Ok(vec!["x".to_owned(), "y".to_owned()]);
    for key in ["state_dict", "model", "model_state_dict", "net", "params"] {
        let object = dict(&[("epoch", b"K\x05".to_vec()), (key, inner.clone()), ("z", one())]);
        assert_eq!(names(&object), expected(), "{key}");
    }
    // Deeper, and in a tuple: `({"checkpoint": {"model": {"state_dict": ..}}}, 5)`.
    let deep = dict(&[("checkpoint", dict(&[("model", dict(&[("state_dict", inner.clone())]))]))]);
    assert_eq!(names(&deep), expected());
    assert_eq!(names(&[b"(", &deep[..], b"K\x05t"].concat()), expected());
    // Of several, the first of those with the most tensors; averaged weights have a counter.
    let averaged = dict(&[("n_averaged", one()), ("x2", one()), ("y2", one())]);
    let best = dict(&[("a", one())]);
    let object = dict(&[("best", best), ("model", inner.clone()), ("ema", dict(&[("model", averaged)]))]);
    assert_eq!(names(&object), expected());
    assert_eq!(notes(&object), ["weights of `model`; not used: `ema.model`"]);
    assert!(notes(&inner).is_empty());
}

#[test]
fn values_that_are_not_tensors_are_ignored() {
    let one = || tensor(F32, 0, &[6], &[1]);
    // Other objects beside the tensors, and in the place of one.
    let namespace = b"cargparse\nNamespace\n)\x81".to_vec();
    assert_eq!(names(&dict(&[("args", namespace.clone()), ("x", one())])), Ok(vec!["x".to_owned()]));
    let message = names(&dict(&[("fc.weight", namespace.clone()), ("x", one())])).unwrap_err();
    assert_eq!(message, "fc.weight is an object of argparse.Namespace, not a tensor");
    let message = names(&namespace).unwrap_err();
    assert!(message.contains("a whole object of argparse.Namespace, which was not loaded"), "{message}");
    let module = b"cmynet\nNet\n)\x81".to_vec();
    let message = names(&dict(&[("args", namespace), ("model", module)])).unwrap_err();
    assert!(message.starts_with("model is a whole object of mynet.Net, which was not loaded"), "{message}");
    // A tensor may itself be called `model`.
    assert_eq!(names(&dict(&[("model", one())])), Ok(vec!["model".to_owned()]));
    assert_eq!(names(b"]"), Err("it is not a dictionary of tensors".to_owned()));
    assert_eq!(names(b"}"), Err("it contains no tensors".to_owned()));
    // Values that are not tensors, and keys that are not strings, are ignored.
    let object = dict(&[("x", one()), ("step", b"K\x05".to_vec())]);
    assert_eq!(names(&[&object[..], b"K\x01", &one(), b"s"].concat()), Ok(vec!["x".to_owned()]));
}

#[test]
fn more_than_4096_tensors_are_rejected() {
    let one = tensor(F32, 0, &[6], &[1]);
    // One tensor, memoised and fetched again for each name.
    let many = |count: usize| {
        let items: Vec<u8> = (0..count).flat_map(|_| b"U\x01xh\x01".to_vec()).collect();
        [&one[..], b"q\x010}(", &items, b"u"].concat()
    };
    assert_eq!(names(&many(4096)).map(|names| names.len()), Ok(4096));
    assert_eq!(names(&many(4097)), Err("it contains more than 4096 tensors".to_owned()));
}

fn view(len: usize, offset: usize, shape: &[usize], stride: &[usize]) -> Tensor {
    let storage = Storage { number: Number::F32, key: "0".into(), len };
    Tensor { storage, offset, shape: shape.to_vec(), stride: stride.to_vec() }
}

#[test]
fn extent_ends_at_the_last_value_of_a_view() {
    for (tensor, reach) in [
        (view(6, 0, &[2, 3], &[3, 1]), Some(6)),
        (view(6, 0, &[3, 2], &[1, 3]), Some(6)),
        // Every other value of six, from the second on: 1, 3 and 5.
        (view(6, 1, &[3], &[2]), Some(5)),
        (view(6, 2, &[3], &[2]), None),
        (view(6, 5, &[], &[]), Some(1)),
        (view(6, 6, &[], &[]), None),
        (view(6, 6, &[0], &[1]), Some(0)),
        (view(6, 1, &[2, 3], &[3, 1]), None),
        // One value repeated by stride 0: as many times as the storage has values, and more.
        (view(6, 0, &[2, 3], &[0, 0]), Some(1)),
        (view(6, 0, &[7], &[0]), None),
        // Products and sums beyond 64 bits.
        (view(6, 0, &[2], &[usize::MAX - 1]), None),
        (view(6, 0, &[2], &[usize::MAX]), None),
        (view(6, 2, &[2], &[usize::MAX - 1]), None),
        (view(6, 0, &[3], &[usize::MAX / 2 + 1]), None),
        (view(6, 0, &[2, 2], &[usize::MAX, usize::MAX]), None),
        (view(6, 0, &[1 << 20, 1 << 21], &[0, 0]), None),
    ] {
        assert_eq!(extent(&tensor), reach, "{tensor:?}");
    }
}

#[test]
fn strided_values_are_gathered_in_row_major_order() {
    let gathered = |shape: &[usize], stride: &[usize], values: &[f32]| {
        gather(&view(values.len(), 0, shape, stride), values.to_vec())
    };
    let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
    assert_eq!(gathered(&[3, 4], &[4, 1], &values), values);
    assert_eq!(gathered(&[2, 3], &[1, 2], &values[..6]), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
    // [K, C, R, S] = [2, 3, 1, 2] in channels_last memory format: strides [6, 1, 6, 3].
    let channels_last = [0., 3., 1., 4., 2., 5., 6., 9., 7., 10., 8., 11.];
    assert_eq!(gathered(&[2, 3, 1, 2], &[6, 1, 6, 3], &values), channels_last);
    // The stride of an axis of size 1 is ignored.
    assert_eq!(gathered(&[1, 4], &[99, 1], &values[..4]), values[..4]);
    // Rows with a gap between them.
    assert_eq!(gathered(&[2, 2], &[4, 1], &values[..6]), [0.0, 1.0, 4.0, 5.0]);
    assert_eq!(gathered(&[3], &[0], &values[..1]), [0.0; 3]);
}
