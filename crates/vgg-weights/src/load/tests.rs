//! Tests of `load`.

mod partial;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use vgg_error::printable;

use super::*;
use crate::{ChannelOrder, save};
use vgg_files::{TensorData, TensorValues};
use vgg_layers::{Config, NamedTensor, NetworkSpec};

/// Eight filters in every convolution; fc6's input is a 2x2 map.
fn spec() -> NetworkSpec {
    NetworkSpec { width: 1.0 / 64.0, classes: 3, head: [6, 5], crop: 64, ..NetworkSpec::paper(Config::A) }
}

/// Parameters with different values in every tensor.
fn arrays() -> Vec<NamedTensor> {
    let mut arrays = Vec::new();
    for (name, shape) in spec().file_shapes().unwrap() {
        let start = 211 * arrays.len();
        let value = |place: usize| ((place * 7919 + start) % 2003) as f32 / 1024.0 - 1.0;
        let values = (0..shape.iter().product()).map(value).collect();
        arrays.push(NamedTensor { name, shape, values });
    }
    arrays
}

fn find<'a>(arrays: &'a mut [NamedTensor], name: &str) -> &'a mut NamedTensor {
    arrays.iter_mut().find(|array| array.name == name).unwrap()
}

const NATIVE: [&str; 11] = [
    "conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2", "fc6", "fc7",
    "fc8",
];
const TORCHVISION: [&str; 11] = [
    "features.0",
    "features.3",
    "features.6",
    "features.8",
    "features.11",
    "features.13",
    "features.16",
    "features.18",
    "classifier.0",
    "classifier.3",
    "classifier.6",
];

/// Renames the layers to a library's names.
fn renamed(mut arrays: Vec<NamedTensor>, names: [&str; 11]) -> Vec<NamedTensor> {
    for array in &mut arrays {
        let (layer, part) = array.name.split_once('.').unwrap();
        let place = NATIVE.iter().position(|name| *name == layer).unwrap();
        array.name = format!("{}.{part}", names[place]);
    }
    arrays
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("w")
    }

    fn safetensors(&self, arrays: &[NamedTensor], metadata: &BTreeMap<String, String>) -> PathBuf {
        let tensors: Vec<TensorData> = arrays
            .iter()
            .map(|a| TensorData {
                name: a.name.clone(),
                shape: a.shape.clone(),
                values: TensorValues::F32(&a.values),
            })
            .collect();
        vgg_files::write_with(&self.path(), |out| vgg_files::write_tensors(out, &tensors, metadata)).unwrap();
        self.path()
    }

    /// Arrays as NumPy saves them.
    fn npz(&self, arrays: &[NamedTensor]) -> PathBuf {
        let mut archive = zip::ZipWriter::new(std::fs::File::create(self.path()).unwrap());
        for NamedTensor { name, shape, values } in arrays {
            archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
            let shape: String = shape.iter().map(|side| format!("{side},")).collect();
            let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n");
            archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
            archive.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
            archive.write_all(header.as_bytes()).unwrap();
            values.iter().for_each(|v| archive.write_all(&v.to_le_bytes()).unwrap());
        }
        archive.finish().unwrap();
        self.path()
    }
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn open(path: &Path, pixels: Option<Pixels>) -> Loaded {
    load_with(path, &Device::cpu(1).unwrap(), pixels).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(path: &Path) -> Error {
    load(path, &Device::cpu(1).unwrap()).err().unwrap()
}

fn metadata(pixels: Pixels) -> WeightsMetadata {
    let (mean_rgb, pixel_scale, std_rgb, train_scale) = pixels.convention();
    WeightsMetadata {
        spec: spec(),
        classes: ["unnamed0", "unnamed1", "unnamed2"].map(str::to_owned).to_vec(),
        channel_order: ChannelOrder::Rgb,
        pixel_scale,
        mean_rgb,
        std_rgb,
        train_scale,
        geometry: if pixels == Pixels::Torchvision { "torchvision" } else { "caffe" }.into(),
    }
}

const TORCH_PIXELS: &str = "preprocessing (torchvision convention): \
                            (RGB 0..255 - [123.675, 116.28, 103.53]) * 0.003921569 / [0.229, 0.224, 0.225]";
const CAFFE_PIXELS: &str = "(RGB 0..255 - [123.68, 116.779, 103.939]) * 1 / [1.0, 1.0, 1.0]";
const EXCHANGED: &str = "conv1_1: input channels converted from BGR to RGB";
const PERMUTED: &str = "fc6: inputs permuted from H, W, C to C, H, W";

/// conv1_1 in BGR order: the three planes of each filter reversed, by index.
fn blue_first(mut arrays: Vec<NamedTensor>) -> Vec<NamedTensor> {
    let first = find(&mut arrays, "conv1_1.weight");
    let old = first.values.clone();
    for (i, value) in first.values.iter_mut().enumerate() {
        let (filter, channel, place) = (i / 27, i / 9 % 3, i % 9);
        *value = old[filter * 27 + (2 - channel) * 9 + place];
    }
    arrays
}

#[test]
fn torchvision_names_are_read() {
    let folder = Folder::new();
    for head in [["classifier.0", "classifier.3"], ["classifier.1", "classifier.4"]] {
        let mut names = TORCHVISION;
        names[8..10].copy_from_slice(&head);
        let loaded = open(&folder.safetensors(&renamed(arrays(), names), &none()), None);
        assert_eq!(loaded.network.state_dict(), arrays());
        assert_eq!(loaded.metadata, metadata(Pixels::Torchvision));
        assert_eq!(loaded.library, Library::Torchvision);
        let file = "safetensors file with torchvision tensor names: config A, 3 classes";
        assert_eq!(loaded.notes, [file, TORCH_PIXELS]);
    }
    let path = folder.path();
    assert_eq!(read_metadata(&path).unwrap(), metadata(Pixels::Torchvision));
    assert_eq!(describe(&path).unwrap().1.len(), 2);
}

#[test]
fn pixel_convention_can_be_given_for_files_without_metadata() {
    let folder = Folder::new();
    let file = "safetensors file with torchvision tensor names: config A, 3 classes";
    let override_pixels = format!("preprocessing (as specified): {CAFFE_PIXELS}");
    let path = folder.safetensors(&renamed(arrays(), TORCHVISION), &none());
    let loaded = open(&path, Some(Pixels::CaffeRgb));
    assert_eq!(loaded.network.state_dict(), arrays());
    assert_eq!(loaded.metadata, metadata(Pixels::CaffeRgb));
    assert_eq!(loaded.notes, [file, &override_pixels]);
    let path = folder.safetensors(&renamed(blue_first(arrays()), TORCHVISION), &none());
    let loaded = open(&path, Some(Pixels::CaffeBgr));
    assert_eq!(loaded.network.state_dict(), arrays());
    assert_eq!(loaded.metadata, metadata(Pixels::CaffeBgr));
    assert_eq!(loaded.notes, [file, &override_pixels, EXCHANGED]);
    // A file with the paper's names and without metadata needs an explicit pixel convention.
    let path = folder.safetensors(&arrays(), &none());
    let loaded = open(&path, Some(Pixels::CaffeRgb));
    assert_eq!(loaded.network.state_dict(), arrays());
    assert_eq!(loaded.library, Library::Native);
    assert_eq!(
        loaded.notes,
        ["safetensors file with vgg tensor names: config A, 3 classes", &override_pixels]
    );
    let missing = format!("{}: metadata key classes is missing", printable(&path));
    assert_eq!(refused(&path).to_string(), missing);
}

#[test]
fn pixel_convention_is_rejected_for_files_with_metadata() {
    let folder = Folder::new();
    let metadata = metadata(Pixels::CaffeRgb);
    for names in [NATIVE, TORCHVISION] {
        let strings = metadata.to_strings().unwrap();
        let path = folder.safetensors(&renamed(arrays(), names), &strings);
        let loaded = open(&path, None);
        assert_eq!((&loaded.metadata, loaded.network.state_dict()), (&metadata, arrays()));
        let error = load_with(&path, &Device::cpu(1).unwrap(), Some(Pixels::CaffeBgr)).err().unwrap();
        assert!(matches!(error, Error::Metadata { path: p, key: "pixel_scale", .. } if p == path));
        let foreign = ["safetensors file with torchvision tensor names: config A, 3 classes"];
        let notes: &[&str] = if names == NATIVE { &[] } else { &foreign };
        assert_eq!(loaded.notes, notes);
    }
}

#[test]
fn timm_names_and_convolutional_heads_are_read() {
    let folder = Folder::new();
    let mut names = TORCHVISION;
    names[8..].copy_from_slice(&["pre_logits.fc1", "pre_logits.fc2", "head.fc"]);
    let mut file = renamed(arrays(), names);
    find(&mut file, "pre_logits.fc1.weight").shape = vec![6, 8, 2, 2];
    find(&mut file, "pre_logits.fc2.weight").shape = vec![5, 6, 1, 1];
    let loaded = open(&folder.safetensors(&file, &none()), None);
    assert_eq!(loaded.network.state_dict(), arrays());
    assert_eq!((loaded.library, loaded.metadata), (Library::Timm, metadata(Pixels::Torchvision)));
    let pixels = TORCH_PIXELS.replace("torchvision", "timm");
    assert_eq!(loaded.notes, ["safetensors file with timm tensor names: config A, 3 classes", &pixels]);
}

/// Permutes filters to `[R, S, C, K]`, transposes matrices, and permutes fc6's inputs to H, W, C.
fn channels_last(mut arrays: Vec<NamedTensor>) -> Vec<NamedTensor> {
    for array in arrays.iter_mut().filter(|array| array.name.ends_with(".weight")) {
        let file = array.clone();
        let inputs: usize = file.shape[1..].iter().product();
        let outputs = file.shape[0];
        // Positions per channel, in the map or the filter.
        let places = match file.shape.len() {
            4 => 9,
            _ if file.name.starts_with("fc6") => 4,
            _ => 1,
        };
        let channels = inputs / places;
        for (i, value) in array.values.iter_mut().enumerate() {
            let (place, channel, output) = (i / (channels * outputs), i / outputs % channels, i % outputs);
            *value = file.values[output * inputs + channel * places + place];
        }
        array.shape = if places == 9 { vec![3, 3, channels, outputs] } else { vec![inputs, outputs] };
    }
    arrays
}

#[test]
fn keras_arrays_are_permuted_and_converted_from_bgr() {
    let folder = Folder::new();
    let mut file = channels_last(blue_first(arrays()));
    for array in &mut file {
        let (layer, part) = array.name.split_once('.').unwrap();
        let of = match layer.strip_prefix("conv") {
            Some(places) => format!("block{}_conv{}", &places[..1], &places[2..]),
            None => ["fc1", "fc2", "predictions"][layer[2..].parse::<usize>().unwrap() - 6].to_owned(),
        };
        array.name = format!("{of}/{}:0", if part == "weight" { "kernel" } else { part });
    }
    let loaded = open(&folder.npz(&file), None);
    assert_eq!(loaded.network.state_dict(), arrays());
    assert_eq!((loaded.library, &loaded.metadata), (Library::Keras, &metadata(Pixels::CaffeBgr)));
    let names = "npz file with Keras tensor names: config A, 3 classes";
    let pixels = format!("preprocessing (Keras convention): {CAFFE_PIXELS}");
    assert_eq!(loaded.notes, [names, &pixels, EXCHANGED, PERMUTED]);
}

#[test]
fn tensorflow_arrays_are_permuted_and_kept_in_rgb() {
    let folder = Folder::new();
    let mut file = channels_last(arrays());
    for array in &mut file {
        array.name = array.name.replace(".weight", "_W").replace(".bias", "_b");
    }
    let loaded = open(&folder.npz(&file), None);
    assert_eq!(loaded.network.state_dict(), arrays());
    assert_eq!((loaded.library, &loaded.metadata), (Library::TensorFlow, &metadata(Pixels::CaffeRgb)));
    let names = "npz file with TensorFlow tensor names: config A, 3 classes";
    let pixels = format!("preprocessing (TensorFlow convention): {CAFFE_PIXELS}");
    assert_eq!(loaded.notes, [names, &pixels, PERMUTED]);
}

#[test]
fn batch_normalisation_is_folded_into_convolutions_without_bias() {
    let folder = Folder::new();
    let names = [0, 4, 8, 11, 15, 18, 22, 25].map(|number| format!("features.{number}"));
    let mut all = TORCHVISION;
    all.iter_mut().zip(&names).for_each(|(name, new)| *name = new);
    let mut file = renamed(arrays(), all);
    file.retain(|array| !(array.name.starts_with("features") && array.name.ends_with("bias")));
    let vector = |name: String, start: f32| NamedTensor {
        name,
        shape: vec![8],
        values: (0..8).map(|i| start + i as f32 / 8.0).collect(),
    };
    for number in [1, 5, 9, 12, 16, 19, 23, 26] {
        for (part, start) in [("weight", 0.5), ("bias", -1.0), ("running_mean", 2.0), ("running_var", 3.0)] {
            file.push(vector(format!("features.{number}.{part}"), start));
        }
        let counter = format!("features.{number}.num_batches_tracked");
        file.push(NamedTensor { name: counter, shape: vec![], values: vec![7.0] });
    }
    let loaded = open(&folder.safetensors(&file, &none()), None);
    let mut expected = arrays();
    for array in expected.iter_mut().filter(|array| array.name.starts_with("conv")) {
        let per_filter = array.values.len() / 8;
        let weight = array.name.ends_with("weight");
        for (i, value) in array.values.iter_mut().enumerate() {
            let start = (i / per_filter) as f64 / 8.0;
            let factor = (0.5 + start) / (3.0 + start + 1e-5).sqrt();
            let old = f64::from(*value);
            *value = (if weight { old * factor } else { -(2.0 + start) * factor - 1.0 + start }) as f32;
        }
    }
    assert_eq!(loaded.network.state_dict(), expected);
    assert_eq!(loaded.library, Library::Torchvision);
    let folded = "batch normalisation folded into 8 convolutions, for inference";
    assert_eq!(loaded.notes[1..], [TORCH_PIXELS, folded]);
    // Running statistics are required.
    file.retain(|array| array.name != "features.5.running_var");
    let Error::Tensors { differences, .. } = refused(&folder.safetensors(&file, &none())) else { panic!() };
    assert_eq!(differences, ["features.5.running_var is missing"]);
}

#[test]
fn every_mismatch_is_listed_in_order() {
    let folder = Folder::new();
    let mut file = renamed(arrays(), TORCHVISION);
    file.retain(|array| !array.name.starts_with("classifier.6") && array.name != "features.3.bias");
    let wider = find(&mut file, "features.0.weight");
    (wider.shape, wider.values) = (vec![8, 4, 3, 3], vec![0.5; 288]);
    let longer = find(&mut file, "features.6.bias");
    (longer.shape, longer.values) = (vec![9], vec![0.5; 9]);
    file.push(NamedTensor { name: "stray".into(), shape: vec![1], values: vec![0.5] });
    let path = folder.safetensors(&file, &none());
    let Error::Tensors { path: named, config, differences } = refused(&path) else { panic!() };
    assert_eq!((named, config), (path.clone(), "A"));
    let expected = [
        "fc8 is missing",
        "features.0.weight has shape [8, 4, 3, 3] instead of [8, 3, 3, 3]",
        "features.3.bias is missing",
        "features.6.bias has shape [9] instead of [8]",
        "stray is unexpected",
    ];
    assert_eq!(differences, expected);
    // Other differences are errors even where layers may be missing.
    assert!(matches!(read_metadata(&path), Err(Error::Tensors { .. })));
}
