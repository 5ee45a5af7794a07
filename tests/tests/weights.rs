//! Weights of other libraries: the logits that those compute, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use vgg_layers::{Config, PoolRounding};
use vgg_tensor::{Device, Tensor};
use vgg_testkit::{assert_close, hashed};
use vgg_tests::fixture;
use vgg_weights::{Error, Library, LoadOptions, Loaded, Target, convert, load, load_with};

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
    let x = hashed("image1", 1.0, 2 * CROP * CROP * 3);
    let x = Tensor::from_slice(&x, [2, CROP, CROP, 3], loaded.network.device()).unwrap();
    loaded.network.infer(&x).unwrap().to_vec()
}

#[test]
fn every_library_has_its_own_logits() {
    let device = Device::cpu(2).unwrap();
    for (name, key, library, tolerance) in [
        ("torchvision.safetensors", "torchvision", Library::Torchvision, 1e-5),
        ("torchvision.pth", "torchvision", Library::Torchvision, 1e-5),
        ("legacy.pth", "torchvision", Library::Torchvision, 1e-5),
        ("channels_last.pth", "torchvision", Library::Torchvision, 1e-5),
        // Weights of eleven bits.
        ("half_parallel.pth", "torchvision", Library::Torchvision, 2e-3),
        ("torchvision_bn.pth", "torchvision_bn", Library::Torchvision, 1e-5),
        ("timm.safetensors", "timm", Library::Timm, 1e-5),
        ("keras.npz", "keras", Library::Keras, 1e-5),
        ("tensorflow.npz", "torchvision", Library::TensorFlow, 1e-5),
        ("present.caffemodel", "torchvision", Library::Caffe, 1e-5),
        ("old.caffemodel", "torchvision", Library::Caffe, 1e-5),
    ] {
        let loaded = load(&file(name), &device).unwrap_or_else(|e| panic!("{name}: {e}"));
        let spec = loaded.network.spec();
        assert_eq!(
            (loaded.library, spec.config, spec.classes, spec.head),
            (library, Config::A, 10, [16, 16]),
            "{name}"
        );
        assert_eq!((spec.crop, spec.width), (CROP, 1.0 / 64.0), "{name}");
        assert_close(&logits(&loaded), &reference(key), tolerance, name);
        assert!(!loaded.notes.is_empty());
    }
}

#[test]
fn customs_are_kept_with_the_weights_and_changes_are_said() {
    let device = Device::cpu(1).unwrap();
    let caffe = load(&file("old.caffemodel"), &device).unwrap();
    assert_eq!((caffe.metadata.mean_rgb, caffe.metadata.pixel_scale), ([123.68, 116.779, 103.939], 1.0));
    assert_eq!(caffe.network.spec().pool_rounding, PoolRounding::Ceil);
    assert!(caffe.notes.iter().any(|note| note.contains("B, G, R")), "{:?}", caffe.notes);
    let normalised = load(&file("torchvision_bn.pth"), &device).unwrap();
    assert_eq!(normalised.metadata.std_rgb, [0.229, 0.224, 0.225]);
    assert!(normalised.notes.iter().any(|note| note.contains("folded into 8 convolutions")));
    let keras = load(&file("keras.npz"), &device).unwrap();
    assert!(keras.notes.iter().any(|note| note.contains("H, W, C")));
    // A conversion of the authors' weights to torch's names does not say that it wants their pixels.
    let options = LoadOptions { pixels: Some("caffe-bgr".parse().unwrap()), partial: false };
    let told = load_with(&file("torchvision.pth"), &device, options).unwrap();
    assert_eq!(told.metadata.mean_rgb, caffe.metadata.mean_rgb);
    assert!(logits(&told) != reference("torchvision"));
}

#[test]
fn what_is_written_for_a_library_is_read_back() {
    let (device, dir) = (Device::cpu(2).unwrap(), tempfile::tempdir().unwrap());
    let original = load(&file("timm.safetensors"), &device).unwrap();
    for (name, target) in Target::ALL {
        let path = dir.path().join(name);
        let files = convert(&path, &original.network, &original.metadata, target).unwrap();
        assert!(files.iter().all(|file| file.is_file()));
        if name.starts_with("onnx") {
            continue;
        }
        let back = load(&path, &device).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Caffe has no place for how pixels are prepared.
        assert_eq!(back.metadata == original.metadata, name != "caffe", "{name}");
        assert_eq!(back.network.export(), original.network.export(), "{name}");
    }
    let prototxt = std::fs::read_to_string(dir.path().join("caffe.prototxt")).unwrap();
    assert!(prototxt.contains("num_output: 16") && prototxt.matches("\"Convolution\"").count() == 8);
}

#[test]
fn a_head_may_be_missing_where_it_is_allowed() {
    let (device, dir) = (Device::cpu(1).unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("features.safetensors");
    let network = load(&file("timm.safetensors"), &device).unwrap().network;
    let arrays: Vec<_> = network.export().into_iter().filter(|a| a.name.starts_with("conv")).collect();
    let tensors: Vec<_> = arrays
        .iter()
        .map(|a| vgg_files::TensorData {
            name: a.name.clone(),
            shape: a.shape.clone(),
            values: vgg_files::TensorValues::F32(&a.values),
        })
        .collect();
    vgg_files::write_with(&path, |out| vgg_files::write_tensors(out, &tensors, &Default::default())).unwrap();
    let pixels = Some("caffe-rgb".parse().unwrap());
    let whole = load_with(&path, &device, LoadOptions { pixels, partial: false }).err().unwrap().to_string();
    assert!(whole.contains("fc6 is missing; fc7 is missing; fc8 is missing"), "{whole}");
    let part = load_with(&path, &device, LoadOptions { pixels, partial: true }).unwrap();
    assert_eq!(part.missing, ["fc6", "fc7", "fc8"]);
    // Without a word on pixels, a file of ours is not complete.
    assert!(matches!(load(&path, &device), Err(Error::Metadata { .. })));
}

#[test]
fn a_pickle_is_never_executed() {
    let device = Device::cpu(1).unwrap();
    let refused = load(&file("evil.pth"), &device).err().unwrap().to_string();
    assert!(refused.contains("posix.system") && refused.contains("not executed"), "{refused}");
    assert!(!Path::new("/tmp/vgg-pickle-was-executed").exists());
}

#[test]
fn cut_and_damaged_files_are_refused() {
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
    // A weight that is no number.
    let mut bytes = std::fs::read(file("torchvision.safetensors")).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let path = dir.path().join("nan.safetensors");
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(load(&path, &device), Err(Error::NotFinite { .. })));
}

/// Flips, overwrites, cuts and repeats bytes at random: whatever comes out is read or refused, never a panic or more memory
/// than the file is worth.
#[test]
fn files_damaged_at_random_are_read_or_refused() {
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
            // What matters is at the ends: headers, pickles and directories.
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
            let _ = load_with(&path, &device, LoadOptions { pixels: None, partial: true });
        }
    }
}

#[test]
fn a_zip_bomb_is_not_unpacked() {
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
        "stray is superfluous",
        "fc7 is missing",
    ] {
        assert!(differences.iter().any(|d| d.contains(part)), "{part}: {differences:?}");
    }
}
