//! Posteriors files: their contents, and invalid files.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ndarray::{Array2, ShapeBuilder as _};
use serde_json::{Value, json};
use vgg_data::{Geometry, Interpolation};
use vgg_eval::{DensePool, Error, Evaluation, ModelProvenance, Origin, Partition, Posteriors, Protocol};
use vgg_files::{TensorData, TensorFile, TensorValues, write_tensors};
use vgg_layers::PoolRounding;

fn network(protocol: Protocol, weights: &str) -> ModelProvenance {
    let evaluation = Evaluation {
        protocol,
        test_scales: vec![256, 384],
        flip: protocol.flips(),
        interpolation: Interpolation::Bicubic,
        geometry: Geometry::Paper,
        dense_pool: DensePool::ProbMean,
        pool_rounding: (protocol == Protocol::Dense).then_some(PoolRounding::Ceil),
    };
    ModelProvenance { evaluation, weights: weights.to_owned() }
}

fn sample() -> Posteriors {
    // The values include a subnormal number, and one above 1 by rounding.
    let values = vec![0.1, 0.2, 0.7, 1.0, 1e-40, 0.0, 1.0005, f32::MIN_POSITIVE, 1.0 / 3.0, 0.25, 0.5, 0.125];
    Posteriors {
        values: Array2::from_shape_vec((4, 3), values).unwrap(),
        labels: vec![2, 0, 1, 1],
        paths: ["val/a/1.png", "val/a/2 \"x\".png", "val/b/ü.png", "val/b/9.png"].map(str::to_owned).to_vec(),
        skipped: vec!["cannot decode /d/val/b/0.png: the file is empty".into()],
        origin: Origin {
            networks: vec![network(Protocol::MultiCrop, "w1")],
            classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
            dataset: "hash".into(),
            part: Partition { index: 1, count: 3 },
        },
    }
}

fn bits(values: &Array2<f32>) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Metadata of the saved file, as JSON.
fn metadata(posteriors: &Posteriors) -> BTreeMap<String, Value> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.safetensors");
    posteriors.save(&path).unwrap();
    let texts = TensorFile::open(&path).unwrap().metadata();
    texts.into_iter().map(|(key, text)| (key, serde_json::from_str(&text).unwrap())).collect()
}

#[test]
fn saved_posteriors_load_bitwise_identical() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.safetensors");
    let saved = sample();
    saved.save(&path).unwrap();
    let loaded = Posteriors::load(&path).unwrap();
    assert_eq!((loaded.values.dim(), bits(&loaded.values)), (saved.values.dim(), bits(&saved.values)));
    assert_eq!((loaded.labels, loaded.paths), (saved.labels, saved.paths));
    assert_eq!((loaded.skipped, loaded.origin), (saved.skipped, saved.origin));
}

#[test]
fn values_are_saved_in_row_major_order_from_any_memory_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.safetensors");
    let by_rows = sample();
    let mut values = Array2::zeros((4, 3).f());
    values.assign(&by_rows.values);
    assert!(!values.is_standard_layout());
    Posteriors { values, ..by_rows.clone() }.save(&path).unwrap();
    let mut file = TensorFile::open(&path).unwrap();
    let stored: Vec<u32> = file.read_f32("posteriors").unwrap().iter().map(|v| v.to_bits()).collect();
    assert_eq!(stored, bits(&by_rows.values));
}

#[test]
fn a_file_has_the_documented_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.safetensors");
    sample().save(&path).unwrap();
    let mut file = TensorFile::open(&path).unwrap();
    assert_eq!(file.names().into_iter().collect::<BTreeSet<_>>().len(), 2);
    assert_eq!((file.shape("posteriors"), file.dtype("posteriors")), (Some(&[4, 3][..]), Some("F32")));
    assert_eq!((file.shape("labels"), file.dtype("labels")), (Some(&[4][..]), Some("I64")));
    assert_eq!(file.read_i64("labels").unwrap(), [2, 0, 1, 1]);
}

#[test]
fn metadata_of_one_network_have_its_evaluation_and_weights() {
    let evaluation = json!({
        "protocol": "multi-crop",
        "test_scales": [256, 384],
        "flip": true,
        "interpolation": "bicubic",
        "dense_pool": "prob-mean",
    });
    let expected = [
        ("classes", json!(["a", "b", "c"])),
        ("dataset", json!("hash")),
        ("networks", json!([{ "evaluation": evaluation, "weights": "w1" }])),
        ("paths", json!(["val/a/1.png", "val/a/2 \"x\".png", "val/b/ü.png", "val/b/9.png"])),
        ("evaluation", evaluation),
        ("part", json!("2/3")),
        ("skipped", json!(["cannot decode /d/val/b/0.png: the file is empty"])),
        ("weights", json!("w1")),
    ];
    let expected: BTreeMap<String, Value> =
        expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    assert_eq!(metadata(&sample()), expected);
}

#[test]
fn metadata_of_several_networks_have_only_the_list() {
    let mut posteriors = sample();
    posteriors.origin.networks = vec![network(Protocol::Centre, "w1"), network(Protocol::Dense, "w2")];
    let metadata = metadata(&posteriors);
    let keys: Vec<&str> = metadata.keys().map(String::as_str).collect();
    assert_eq!(keys, ["classes", "dataset", "networks", "part", "paths", "skipped"]);
    let networks = &metadata["networks"];
    assert_eq!(networks[0]["evaluation"]["flip"], json!(false));
    assert_eq!((&networks[0]["weights"], &networks[1]["weights"]), (&json!("w1"), &json!("w2")));
    assert_eq!(networks[1]["evaluation"]["pool_rounding"], json!("ceil"));
}

/// The parts of a file; [`valid`] makes a valid one.
struct Parts {
    shape: Vec<usize>,
    values: Vec<f32>,
    labels: Vec<i64>,
    metadata: BTreeMap<String, String>,
}

fn valid() -> Parts {
    let metadata = [
        ("paths", r#"["x","y"]"#),
        ("classes", r#"["a","b","c"]"#),
        ("dataset", r#""hash""#),
        ("part", r#""1/2""#),
        ("networks", "[]"),
    ];
    Parts {
        shape: vec![2, 3],
        values: vec![0.5, 0.25, 0.25, 0.0, 1.0, 0.0],
        labels: vec![2, 0],
        metadata: metadata.into_iter().map(|(key, text)| (key.to_owned(), text.to_owned())).collect(),
    }
}

impl Parts {
    fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("p.safetensors");
        let posteriors = TensorData {
            name: "posteriors".into(),
            shape: self.shape.clone(),
            values: TensorValues::F32(&self.values),
        };
        let labels = TensorData {
            name: "labels".into(),
            shape: vec![self.labels.len()],
            values: TensorValues::I64(&self.labels),
        };
        vgg_files::write_with(&path, |out| write_tensors(out, &[posteriors, labels], &self.metadata))
            .unwrap();
        path
    }

    fn set(&mut self, key: &str, text: &str) {
        self.metadata.insert(key.to_owned(), text.to_owned());
    }
}

/// Loads the valid file with a change.
fn load(change: impl FnOnce(&mut Parts)) -> vgg_eval::Result<Posteriors> {
    let dir = tempfile::tempdir().unwrap();
    let mut parts = valid();
    change(&mut parts);
    Posteriors::load(&parts.write(dir.path()))
}

/// Asserts that a file with this change is rejected with its path and a reason that contains this word.
#[track_caller]
fn assert_refused(word: &str, change: impl FnOnce(&mut Parts)) {
    match load(change).map(|posteriors| posteriors.values) {
        Err(error @ Error::Posteriors { .. }) => {
            let message = error.to_string();
            assert!(message.contains("p.safetensors") && message.contains(word), "{message}");
        }
        other => panic!("{other:?} is not a posteriors file error with {word}"),
    }
}

#[test]
fn a_valid_file_is_loaded() {
    let loaded = load(|_| {}).unwrap();
    assert_eq!(loaded.values, ndarray::array![[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]);
    assert_eq!((loaded.labels, loaded.origin.part), (vec![2, 0], Partition { index: 0, count: 2 }));
}

#[test]
fn absent_metadata_except_paths_have_defaults() {
    let loaded = load(|parts| parts.metadata.retain(|key, _| key == "paths")).unwrap();
    assert_eq!((loaded.origin, loaded.skipped.len()), (Origin::default(), 0));
    assert_refused("paths", |parts| drop(parts.metadata.remove("paths")));
    assert_refused("paths", |parts| parts.set("paths", "x, y"));
}

#[test]
fn malformed_metadata_are_rejected() {
    assert_refused("networks", |parts| parts.set("networks", r#"[{"weights":"w"}]"#));
    assert_refused("classes", |parts| parts.set("classes", "{}"));
    assert_refused("dataset", |parts| parts.set("dataset", "hash"));
    assert_refused("part", |parts| parts.set("part", "[1, 2]x"));
}

#[test]
fn labels_outside_the_classes_are_rejected() {
    for label in [3, -1, i64::MAX, i64::MIN, 1 << 32] {
        assert_refused("label", |parts| parts.labels[1] = label);
    }
    assert_eq!(load(|parts| parts.labels[1] = 2).unwrap().labels, [2, 2]);
}

#[test]
fn different_numbers_of_posteriors_labels_and_paths_are_rejected() {
    assert_refused("number", |parts| parts.labels.push(0));
    assert_refused("number", |parts| parts.labels.truncate(1));
    assert_refused("number", |parts| parts.set("paths", r#"["x"]"#));
    assert_refused("number", |parts| parts.set("paths", r#"["x","y","z"]"#));
    assert_refused("number", |parts| {
        parts.shape[0] = 3;
        parts.values.extend([0.0, 0.0, 1.0]);
    });
}

#[test]
fn number_of_class_names_must_equal_columns() {
    assert_refused("classes", |parts| parts.set("classes", r#"["a","b"]"#));
    assert_refused("classes", |parts| parts.set("classes", r#"["a","b","c","d"]"#));
    assert!(load(|parts| parts.set("classes", "[]")).unwrap().origin.classes.is_empty());
}

#[test]
fn posteriors_outside_zero_to_one_are_rejected() {
    for value in [1.002, -1e-6, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 5] {
            assert_refused("posterior", |parts| parts.values[at] = value);
        }
    }
    // A sum of rounded weights may be slightly above 1.
    assert_eq!(load(|parts| parts.values[4] = 1.0005).unwrap().values[[1, 1]], 1.0005);
}

#[test]
fn invalid_parts_are_rejected() {
    for (number, of) in [(0, 1), (3, 2), (1, 0), (0, 0), (1, 65_537)] {
        let text = format!("\"{number}/{of}\"");
        assert_refused(&format!("{number}/{of}"), |parts| parts.set("part", &text));
    }
    let last = load(|parts| parts.set("part", "\"65536/65536\"")).unwrap();
    assert_eq!(last.origin.part, Partition { index: 65_535, count: 65_536 });
}

#[test]
fn posteriors_with_other_numbers_of_axes_are_rejected() {
    assert_refused("[N, classes]", |parts| parts.shape = vec![6]);
    assert_refused("[N, classes]", |parts| parts.shape = vec![2, 3, 1]);
}

#[test]
fn files_without_the_required_tensors_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.safetensors");
    let write = |name: &str, values: TensorValues| {
        let tensor = TensorData { name: name.to_owned(), shape: vec![2, 3], values };
        let metadata = valid().metadata;
        vgg_files::write_with(&path, |out| write_tensors(out, std::slice::from_ref(&tensor), &metadata))
            .unwrap();
        Posteriors::load(&path).unwrap_err()
    };
    assert!(matches!(write("features", TensorValues::F32(&[0.0; 6])), Error::Posteriors { .. }));
    // No labels, and posteriors of another type.
    assert!(matches!(write("posteriors", TensorValues::F32(&[0.0; 6])), Error::File(_)));
    assert!(matches!(write("posteriors", TensorValues::I64(&[0; 6])), Error::File(_)));
    let missing = Posteriors::load(&dir.path().join("q.safetensors")).unwrap_err();
    assert!(matches!(&missing, Error::File(_)) && missing.to_string().contains("q.safetensors"), "{missing}");
}
