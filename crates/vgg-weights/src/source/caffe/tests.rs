//! Tests of `caffe`.

use super::*;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 128 {
        bytes.push((value % 128) as u8 + 128);
        value /= 128;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(8 * field), varint(value)].concat()
}

fn bytes(field: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(8 * field + 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// `BlobProto` of the current schema: data 5, shape 7 with dim 1.
fn blob(shape: &[u64], values: &[f32]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|side| number(1, *side)).collect();
    [bytes(7, &dims), bytes(5, &floats(values))].concat()
}

/// `BlobProto` of 2014: num 1, channels 2, height 3, width 4, data 5.
fn old_blob(shape: [u64; 4], values: &[f32]) -> Vec<u8> {
    let [n, c, h, w] = shape;
    [number(1, n), number(2, c), number(3, h), number(4, w), bytes(5, &floats(values))].concat()
}

/// A layer of the current schema: name 1, type 2, blobs 7.
fn layer(name: &str, blobs: &[Vec<u8>]) -> Vec<u8> {
    let blobs: Vec<u8> = blobs.iter().flat_map(|blob| bytes(7, blob)).collect();
    bytes(100, &[bytes(1, name.as_bytes()), bytes(2, b"Convolution"), blobs].concat())
}

fn open(file: &[u8]) -> Result<CaffeModel> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.caffemodel");
    std::fs::write(&path, file).unwrap();
    CaffeModel::open(&path)
}

fn refused(file: &[u8]) -> String {
    open(file).err().unwrap().to_string()
}

/// Names, shapes and values of all blobs.
fn blobs(file: &[u8]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut model = open(file).unwrap();
    let read = |e: Entry| (e.name.clone(), e.shape, model.read(&e.name).unwrap());
    open(file).unwrap().entries().into_iter().map(read).collect()
}

fn expected(name: &str, shape: &[usize], values: &[f32]) -> (String, Vec<usize>, Vec<f32>) {
    (name.to_owned(), shape.to_vec(), values.to_vec())
}

#[test]
fn current_schema_is_read() {
    let file = [
        bytes(1, b"VGG"),
        // input_dim and unknown fields of four and eight bytes are skipped.
        number(4, 224),
        [varint(8 * 900 + 5), vec![1; 4]].concat(),
        [varint(8 * 901 + 1), vec![1; 8]].concat(),
        layer("conv1_1", &[blob(&[1, 3, 1, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), blob(&[1], &[-0.5])]),
        layer("relu1_1", &[]),
        layer("fc8", &[blob(&[2, 1], &[7.0, 8.0])]),
    ]
    .concat();
    let all = [
        expected("conv1_1.0", &[1, 3, 1, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        expected("conv1_1.1", &[1], &[-0.5]),
        expected("fc8.0", &[2, 1], &[7.0, 8.0]),
    ];
    assert_eq!(blobs(&file), all);
    let message = open(&file).unwrap().read("fc8.1").unwrap_err().to_string();
    assert!(message.ends_with("no blob named fc8.1"), "{message}");
}

#[test]
fn v1_schema_is_read() {
    // Field 2 of the network, `layers`, with bottom 2, name 4, type 5 and blobs 6.
    let blobs_of_layer = [
        bytes(6, &old_blob([1, 3, 1, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        bytes(6, &old_blob([1, 1, 1, 1], &[-0.5])),
    ];
    let inner = [bytes(2, b"data"), blobs_of_layer.concat(), bytes(4, b"conv1_1"), number(5, 4)].concat();
    let all = [
        expected("conv1_1.0", &[1, 3, 1, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        expected("conv1_1.1", &[1, 1, 1, 1], &[-0.5]),
    ];
    assert_eq!(blobs(&bytes(2, &inner)), all);
}

#[test]
fn blob_shapes_and_values_are_read_in_every_encoding() {
    let packed = [bytes(7, &bytes(1, &[varint(1), varint(200)].concat())), bytes(5, &[0; 800])].concat();
    assert_eq!(blobs(&layer("a", &[packed]))[0].1, [1, 200]);
    // double_data is field 8.
    let doubles: Vec<u8> = [0.1f64, -2.5].iter().flat_map(|v| v.to_le_bytes()).collect();
    let double = [bytes(8, &doubles), bytes(7, &number(1, 2))].concat();
    assert_eq!(blobs(&layer("a", &[double])), [expected("a.0", &[2], &[0.1, -2.5])]);
    // `shape` takes precedence over legacy sides; absent legacy sides are left out; no sides mean one value.
    let both = [old_blob([2, 1, 1, 1], &[1.0, 2.0]), bytes(7, &number(1, 2))].concat();
    assert_eq!(blobs(&layer("a", &[both])), [expected("a.0", &[2], &[1.0, 2.0])]);
    let two_sides = [number(3, 1), number(4, 2), bytes(5, &floats(&[1.0, 2.0]))].concat();
    assert_eq!(blobs(&layer("a", &[two_sides])), [expected("a.0", &[1, 2], &[1.0, 2.0])]);
    assert_eq!(blobs(&layer("a", &[bytes(5, &floats(&[3.0]))])), [expected("a.0", &[], &[3.0])]);
    // diff 6 is skipped; a blob may be empty.
    let empty = [bytes(7, &number(1, 0)), bytes(6, &[0; 8])].concat();
    assert_eq!(blobs(&layer("a", &[empty])), [expected("a.0", &[0], &[])]);
    let eight: Vec<u64> = vec![1; 8];
    assert_eq!(blobs(&layer("a", &[blob(&eight, &[1.0])]))[0].1, [1; 8]);
}

#[test]
fn vgg_metadata_is_read() {
    let file = [bytes(21_000, br#"{"config":"\"A\"","crop":"64"}"#), layer("a", &[blob(&[1], &[1.0])])];
    let metadata = open(&file.concat()).unwrap().metadata;
    let expected = [("config", "\"A\""), ("crop", "64")];
    assert_eq!(metadata, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert!(open(&file[1]).unwrap().metadata.is_empty());
    let message = refused(&[bytes(21_000, b"[]"), file[1].clone()].concat());
    assert!(message.contains("metadata: "), "{message}");
    // At most 4 MiB are read.
    let filled = |length: usize| {
        let mut text = br#"{"crop":"64"}"#.to_vec();
        text.resize(length, b' ');
        [bytes(21_000, &text), file[1].clone()].concat()
    };
    assert_eq!(open(&filled(4 << 20)).unwrap().metadata["crop"], "64");
    let message = refused(&filled((4 << 20) + 1));
    assert!(message.ends_with("a string of 4194305 bytes is too long"), "{message}");
}

#[test]
fn damaged_files_are_rejected_with_a_reason() {
    let good = layer("a", &[blob(&[2], &[1.0, 2.0])]);
    let with = |blob: Vec<u8>| layer("a", &[blob]);
    let shape = bytes(7, &number(1, 2));
    let cut = "it ends inside a field; it may be truncated";
    for (file, reason) in [
        (bytes(1, b"VGG"), "it has no layers with weights"),
        (good[..good.len() - 1].to_vec(), cut),
        (with([&shape[..], &bytes(5, &floats(&[1.0]))].concat()), "a blob of shape [2] has 4 bytes"),
        (with([&shape[..], &bytes(5, &floats(&[1.0; 3]))].concat()), "a blob of shape [2] has 12 bytes"),
        (with(shape.clone()), "a blob of shape [2] has 0 bytes"),
        (with(blob(&[1 << 40, 1 << 40], &[])), "has 0 bytes"),
        (
            with([&shape[..], &bytes(5, &floats(&[1.0])), &bytes(5, &floats(&[2.0]))].concat()),
            "the values of a blob are in several fields",
        ),
        // data as single fields of four bytes.
        (with([varint(8 * 5 + 5), vec![0; 4]].concat()), "the values of a blob are not packed"),
        (with([varint(8 * 8 + 1), vec![0; 8]].concat()), "the values of a blob are not packed"),
        (with(blob(&[1; 9], &[1.0])), "the shape of a blob is invalid"),
        (with(bytes(7, &bytes(1, &[1; 9]))), "the shape of a blob is invalid"),
        // A packed side that extends beyond its shape.
        (with([bytes(7, &bytes(1, &[0x81])), number(1, 1)].concat()), "the shape of a blob is invalid"),
        (
            [good.clone(), varint(8 * 9 + 3)].concat(),
            "a field has wire type 3, which no supported format uses",
        ),
        ([good.clone(), varint(8 * 9 + 5), vec![0; 3]].concat(), cut),
        ([good.clone(), varint(8 * 9 + 1), vec![0; 7]].concat(), cut),
        ([good.clone(), varint(8 * 9 + 2), varint(u64::MAX)].concat(), cut),
        ([good.clone(), varint(8 * 9), vec![0x80]].concat(), "unexpected end of file"),
        ([good.clone(), varint(8 * 9), vec![0xff; 11]].concat(), "a varint has too many bytes"),
        (layer(&"n".repeat(1001), &[]), "a string of 1001 bytes is too long"),
    ] {
        let message = refused(&file);
        assert!(message.ends_with(reason), "{message} instead of {reason}");
    }
    // The same fields, complete.
    for rest in [
        [varint(8 * 9 + 5), vec![0; 4]].concat(),
        [varint(8 * 9 + 1), vec![0; 8]].concat(),
        [varint(8 * 9), varint(u64::MAX)].concat(),
        layer(&"n".repeat(1000), &[]),
    ] {
        assert!(open(&[good.clone(), rest].concat()).is_ok());
    }
}

#[test]
fn more_than_16384_blobs_are_rejected() {
    let blob = blob(&[1], &[1.0]);
    let halves = |count: usize| {
        let half = layer("a", &vec![blob.clone(); 1 << 13]);
        [half, layer("b", &vec![blob.clone(); count - (1 << 13)])].concat()
    };
    assert_eq!(open(&halves(1 << 14)).unwrap().entries().len(), 1 << 14);
    assert!(refused(&halves((1 << 14) + 1)).ends_with("it has too many blobs"));
}

#[test]
fn file_signature_is_a_name_or_a_layer() {
    for (start, may) in [
        (&[0x0a, 3][..], true),
        (&[0x12, 9], true),
        (&[0xa2, 0x06, 9], true),
        (&[0xa2, 0x07, 9], false),
        (&[0x08, 1], false),
        (&[0x80, 2], false),
        (&[], false),
    ] {
        assert_eq!(may_be(start), may, "{start:x?}");
    }
    // The tags of the fields name 1, layers 2 and layer 100.
    assert_eq!((varint(8 + 2), varint(16 + 2), varint(800 + 2)), (vec![0x0a], vec![0x12], vec![0xa2, 0x06]));
}
