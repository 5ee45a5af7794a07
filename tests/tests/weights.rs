//! Weights of other libraries: their logits, and files that are refused.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use vgg_layers::{Config, LayerSelection, Network, NetworkSpec, PoolRounding};
use vgg_tensor::{Device, Tensor};
use vgg_testkit::{assert_close, pseudo_random};
use vgg_tests::fixture;
use vgg_weights::{
    Error, Library, Loaded, Target, convert, load, load_layers, load_up_to, load_with, read_metadata,
};

const CROP: usize = 64;

fn file(name: &str) -> PathBuf {
    fixture("weights").join(name)
}

fn reference(key: &str) -> Vec<f32> {
    let json = std::fs::read(fixture("weights.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let rows = reference[key].as_array().unwrap().iter();
    rows.flat_map(|row| row.as_array().unwrap()).map(|v| v.as_f64().unwrap() as f32).collect()
}

fn logits(loaded: &Loaded) -> Vec<f32> {
    let x = pseudo_random("image1", 1.0, 2 * CROP * CROP * 3);
    let x = Tensor::from_slice(&x, [2, CROP, CROP, 3], loaded.network.device()).unwrap();
    loaded.network.infer(&x).unwrap().to_vec()
}

#[test]
fn every_library_has_its_expected_logits() {
    let device = Device::cpu(2).unwrap();
    for (name, key, library, tolerance) in [
        ("torchvision.safetensors", "torchvision", Library::Torchvision, 1e-5),
        ("torchvision.pth", "torchvision", Library::Torchvision, 1e-5),
        ("legacy.pth", "torchvision", Library::Torchvision, 1e-5),
        ("channels_last.pth", "torchvision", Library::Torchvision, 1e-5),
        // Weights in half precision, with eleven significant bits.
        ("half_parallel.pth", "torchvision", Library::Torchvision, 2e-3),
        ("torchvision_bn.pth", "torchvision_bn", Library::Torchvision, 1e-5),
        ("timm.safetensors", "timm", Library::Timm, 1e-5),
        ("keras.npz", "keras", Library::Keras, 1e-5),
        ("tensorflow.npz", "torchvision", Library::TensorFlow, 1e-5),
        ("present.caffemodel", "torchvision", Library::Caffe, 1e-5),
        ("old.caffemodel", "torchvision", Library::Caffe, 1e-5),
        ("torchvision.onnx", "torchvision", Library::Onnx, 1e-5),
        ("torchvision_bn.onnx", "torchvision_bn", Library::Onnx, 1e-5),
    ] {
        let loaded = load(&file(name), &device).unwrap_or_else(|e| panic!("{name}: {e}"));
        let spec = loaded.network.spec();
        assert_eq!(
            (loaded.library, spec.config.clone(), spec.classes, spec.head),
            (library, Config::A, 10, [16, 16]),
            "{name}"
        );
        assert_eq!((spec.crop, spec.width), (CROP, 1.0 / 64.0), "{name}");
        assert_close(&logits(&loaded), &reference(key), tolerance, name);
        assert!(!loaded.notes.is_empty());
    }
}

#[test]
fn conventions_are_kept_and_conversions_are_reported() {
    let device = Device::cpu(1).unwrap();
    let caffe = load(&file("old.caffemodel"), &device).unwrap();
    assert_eq!((caffe.metadata.mean_rgb, caffe.metadata.pixel_scale), ([123.68, 116.779, 103.939], 1.0));
    assert_eq!(caffe.network.spec().pool_rounding, PoolRounding::Ceil);
    assert!(caffe.notes.iter().any(|note| note.contains("BGR")), "{:?}", caffe.notes);
    let normalised = load(&file("torchvision_bn.pth"), &device).unwrap();
    assert_eq!(normalised.metadata.std_rgb, [0.229, 0.224, 0.225]);
    assert!(normalised.notes.iter().any(|note| note.contains("folded into 8 convolutions")));
    let keras = load(&file("keras.npz"), &device).unwrap();
    assert!(keras.notes.iter().any(|note| note.contains("H, W, C")));
    // Conversions of the authors' weights to PyTorch names do not state their pixel preprocessing.
    let told = load_with(&file("torchvision.pth"), &device, Some("caffe-bgr".parse().unwrap())).unwrap();
    assert_eq!(told.metadata.mean_rgb, caffe.metadata.mean_rgb);
    assert!(logits(&told) != reference("torchvision"));
}

#[test]
fn converted_files_are_read_back() {
    let (device, dir) = (Device::cpu(2).unwrap(), tempfile::tempdir().unwrap());
    let original = load(&file("timm.safetensors"), &device).unwrap();
    let mut read_back = 0;
    for (name, target) in Target::ALL {
        let path = dir.path().join(name);
        let files = convert(&path, &original.network, &original.metadata, target).unwrap();
        assert!(files.iter().all(|file| file.is_file()));
        read_back += 1;
        let back = load(&path, &device).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(back.metadata, original.metadata, "{name}");
        assert_eq!(back.network.state_dict(), original.network.state_dict(), "{name}");
    }
    assert_eq!(read_back, 6, "native, torchvision, timm, caffe, and both forms of ONNX");
    let prototxt = std::fs::read_to_string(dir.path().join("caffe.prototxt")).unwrap();
    assert!(prototxt.contains("num_output: 16") && prototxt.matches("\"Convolution\"").count() == 8);
}

#[test]
fn layers_can_be_loaded_from_files_without_a_head() {
    let (device, dir) = (Device::cpu(1).unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("features.safetensors");
    let network = load(&file("timm.safetensors"), &device).unwrap().network;
    let arrays: Vec<_> = network.state_dict().into_iter().filter(|a| a.name.starts_with("conv")).collect();
    let mut tensors: Vec<_> = arrays
        .iter()
        .map(|a| vgg_files::TensorData {
            name: a.name.clone(),
            shape: a.shape.clone(),
            values: vgg_files::TensorValues::F32(&a.values),
        })
        .collect();
    vgg_files::write_with(&path, |out| vgg_files::write_tensors(out, &tensors, &Default::default())).unwrap();
    let whole = load_with(&path, &device, Some("caffe-rgb".parse().unwrap())).err().unwrap().to_string();
    assert!(whole.contains("fc6 is missing; fc7 is missing; fc8 is missing"), "{whole}");
    // A native file without pixel metadata is incomplete.
    assert!(matches!(load(&path, &device), Err(Error::Metadata { .. })));
    // torchvision's names imply a convention; existing layers can be loaded.
    let path = dir.path().join("torchvision.safetensors");
    for tensor in &mut tensors {
        let (layer, part) = tensor.name.split_once('.').unwrap();
        let place =
            arrays.iter().filter(|a| a.name.ends_with("weight")).position(|a| a.name.starts_with(layer));
        tensor.name = format!("features.{}.{part}", [0, 3, 6, 8, 11, 13, 16, 18][place.unwrap()]);
    }
    vgg_files::write_with(&path, |out| vgg_files::write_tensors(out, &tensors, &Default::default())).unwrap();
    let convolutions = load_up_to(&path, "pool5", &device).unwrap();
    assert_eq!(convolutions.network.state_dict()[..arrays.len()], arrays);
    let head = load_up_to(&path, "fc7", &device).err().unwrap();
    assert!(matches!(&head, Error::Absent { layers, .. } if *layers == ["fc6", "fc7"]), "{head}");
    let mut other = Network::new(NetworkSpec { classes: 7, ..network.spec().clone() }, &device).unwrap();
    let report = load_layers(&path, &LayerSelection::Layers(vec!["conv1_1".into()]), &mut other).unwrap();
    assert_eq!(report.loaded, ["conv1_1"]);
    assert_eq!(other.state_dict()[0], network.state_dict()[0]);
    let head = load_layers(&path, &LayerSelection::Layers(vec!["fc7".into()]), &mut other);
    assert!(matches!(head, Err(Error::Absent { layers, .. }) if layers == ["fc7"]));
}

/// A head of NaN, as in torchvision's weights of the features alone, does not matter below it.
#[test]
fn layers_that_are_not_needed_may_be_nan() {
    let (device, dir) = (Device::cpu(1).unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("nan.safetensors");
    let mut file = vgg_files::TensorFile::open(&file("torchvision.safetensors")).unwrap();
    let arrays: Vec<(String, Vec<usize>, Vec<f32>)> = (file.names().into_iter())
        .map(|name| {
            let mut values = file.read_f32(&name).unwrap();
            if name.starts_with("classifier") {
                values.fill(f32::NAN);
            }
            (name.clone(), file.shape(&name).unwrap().to_vec(), values)
        })
        .collect();
    let tensors: Vec<_> = (arrays.iter())
        .map(|(name, shape, values)| vgg_files::TensorData {
            name: name.clone(),
            shape: shape.clone(),
            values: vgg_files::TensorValues::F32(values),
        })
        .collect();
    vgg_files::write_with(&path, |out| vgg_files::write_tensors(out, &tensors, &Default::default())).unwrap();
    assert!(load_up_to(&path, "conv5_2", &device).is_ok());
    for refused in [load(&path, &device), load_up_to(&path, "fc6", &device)] {
        let message = refused.err().unwrap().to_string();
        assert!(message.contains("fc6.weight contains a non-finite value"), "{message}");
    }
}

#[test]
fn pickles_are_never_executed() {
    let device = Device::cpu(1).unwrap();
    let refused = load(&file("evil.pth"), &device).err().unwrap().to_string();
    assert!(refused.contains("is an object of posix.system, not a tensor"), "{refused}");
    assert!(!Path::new("/tmp/vgg-pickle-was-executed").exists());
}

/// Writes a legacy torch file with a dictionary of these items and storages of these lengths.
fn legacy_file(path: &Path, items: &[u8], storages: &[(&str, usize)]) {
    let mut bytes =
        [&b"\x80\x02\x8a\x0a"[..], &[0x6c; 10], b".", b"\x80\x02M\xe9\x03.", b"\x80\x02}."].concat();
    bytes.extend([b"\x80\x02}(", items, b"u.", b"\x80\x02]("].concat());
    storages.iter().for_each(|(key, _)| bytes.extend(text(key)));
    bytes.extend(b"e.");
    for (_, len) in storages {
        bytes.extend((*len as u64).to_le_bytes());
        bytes.extend(vec![0; 4 * len]);
    }
    std::fs::write(path, bytes).unwrap();
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A name, and a tensor `[len / stride]` of a storage that claims to have `len` values.
fn item(name: &str, key: &str, len: i64, stride: i64) -> Vec<u8> {
    let number = |n: i64| [&b"\x8a\x08"[..], &n.to_le_bytes()].concat();
    let storage = [
        &b"("[..],
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text(key),
        &text("cpu"),
        &number(len),
        b"tQ",
    ];
    let tensor = [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage.concat()[..], &number(0), b"("];
    let shape = [number(len / stride), b"t(".to_vec(), number(stride), b"t\x89NtR".to_vec()].concat();
    [text(name), tensor.concat(), shape].concat()
}

#[test]
fn tensors_larger_than_the_file_are_refused() {
    let (device, dir) = (Device::cpu(1).unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("x.pth");
    let refused = |what: &str| {
        let message = load(&path, &device).err().unwrap().to_string();
        assert!(message.contains(what), "{message}");
    };
    // One storage is mentioned twice, first with a large length.
    let alias = [item("a", "1", 1 << 36, 1 << 33), item("b", "1", 8, 1)].concat();
    legacy_file(&path, &alias, &[("1", 8)]);
    refused("storage 1 has two types or lengths");
    legacy_file(&path, &item("a", "1", 1 << 36, 1), &[("1", 8)]);
    refused("the length of storage 1 does not match its tensors");
    // A key that every reference would copy.
    legacy_file(&path, &item("a", &"k".repeat(1 << 20), 8, 1), &[("1", 8)]);
    refused("a persistent id does not refer to a storage");
    legacy_file(&path, &item("a", "1", i64::MAX, 1), &[("1", 8)]);
    refused("a extends beyond its storage");
}

#[test]
fn integer_weights_are_refused() {
    let (device, dir) = (Device::cpu(1).unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("x.npz");
    let keras = std::fs::File::open(file("keras.npz")).unwrap();
    let mut from = zip::ZipArchive::new(keras).unwrap();
    let mut to = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for i in 0..from.len() {
        let mut entry = from.by_index(i).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        let name = entry.name().unwrap().into_owned();
        if name.contains("block2_conv1/kernel") {
            let at = bytes.windows(3).position(|part| part == b"<f4").unwrap();
            bytes[at..at + 3].copy_from_slice(b"<i4");
        }
        to.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        to.write_all(&bytes).unwrap();
    }
    to.finish().unwrap();
    let message = load(&path, &device).err().unwrap().to_string();
    assert!(message.contains("block2_conv1/kernel does not contain floats"), "{message}");
}

#[test]
fn truncated_and_damaged_files_are_refused() {
    let (device, dir) = (Device::cpu(1).unwrap(), tempfile::tempdir().unwrap());
    for name in [
        "torchvision.safetensors",
        "torchvision.pth",
        "legacy.pth",
        "keras.npz",
        "present.caffemodel",
        "old.caffemodel",
    ] {
        let bytes = std::fs::read(file(name)).unwrap();
        let path = dir.path().join(name);
        for cut in [0, 1, 7, 20, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1000, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(load(&path, &device).is_err(), "{name} cut at {cut}");
        }
    }
    // A NaN weight.
    let mut bytes = std::fs::read(file("torchvision.safetensors")).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let path = dir.path().join("nan.safetensors");
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(load(&path, &device), Err(Error::NotFinite { .. })));
}

/// Flips, overwrites, truncates and repeats bytes at random: the file is read or refused, without a panic and
/// without more memory than its size justifies.
#[test]
fn randomly_damaged_files_are_read_or_refused() {
    let (device, dir) = (Device::cpu(1).unwrap(), tempfile::tempdir().unwrap());
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let path = dir.path().join("damaged");
    for entry in std::fs::read_dir(fixture("weights")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for _ in 0..60 {
            let mut damaged = bytes.clone();
            // Headers, pickles and directories are at the ends.
            let mut place = |len: usize| match random(3) {
                0 => random(len.min(600)),
                1 => len - 1 - random(len.min(2500)),
                _ => random(len),
            };
            for _ in 0..4 {
                let at = place(damaged.len());
                damaged[at] = [0, 0xff, 0x7f, b'(', b'}', damaged[at].wrapping_add(1)][place(6) % 6];
            }
            if place(4) == 0 {
                damaged.truncate(place(bytes.len()).max(1));
            }
            std::fs::write(&path, &damaged).unwrap();
            let _ = (read_metadata(&path), load(&path, &device));
        }
    }
}

#[test]
fn zip_bombs_are_not_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["archive/data.pkl", "archive/data/0", "conv1_1_W.npy"] {
        let path = dir.path().join("bomb");
        let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        let options =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        archive.start_file(name, options).unwrap();
        for _ in 0..64 {
            archive.write_all(&vec![0; 1 << 20]).unwrap();
        }
        archive.finish().unwrap();
        let refused = load(&path, &Device::cpu(1).unwrap()).err().unwrap().to_string();
        assert!(refused.contains("weights hardly compress"), "{name}: {refused}");
    }
}

#[test]
fn all_differences_are_listed() {
    let (device, dir) = (Device::cpu(1).unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("x.safetensors");
    let values = vec![0.5; 5000];
    let tensor = |name: &str, shape: &[usize]| vgg_files::TensorData {
        name: name.into(),
        shape: shape.to_vec(),
        values: vgg_files::TensorValues::F32(&values[..shape.iter().product()]),
    };
    let mut tensors = vec![tensor("classifier.0.weight", &[16, 33]), tensor("stray", &[3])];
    for (i, number) in [0, 3, 6, 8, 11, 13, 16, 18].into_iter().enumerate() {
        tensors.push(tensor(&format!("features.{number}.weight"), &[8, if i == 0 { 3 } else { 8 }, 3, 3]));
        tensors.push(tensor(&format!("features.{number}.bias"), &[if number == 6 { 9 } else { 8 }]));
    }
    vgg_files::write_with(&path, |out| vgg_files::write_tensors(out, &tensors, &Default::default())).unwrap();
    let Err(Error::Tensors { differences, .. }) = load(&path, &device) else { panic!() };
    for part in [
        "classifier.0.weight has shape [16, 33]",
        "features.6.bias has shape [9]",
        "stray is unexpected",
        "fc7 is missing",
    ] {
        assert!(differences.iter().any(|d| d.contains(part)), "{part}: {differences:?}");
    }
}
