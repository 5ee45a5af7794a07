//! Image descriptors against PyTorch.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use vgg_data::{Geometry, Image, ImageSet, Interpolation, OnBadImage, Split, write_png};
use vgg_eval::{
    Aggregate, EvalModel, EvaluateOptions, FeatureConfig, Features, Partition, Preprocessing, features,
};
use vgg_files::TensorFile;
use vgg_layers::{Config, NetworkSpec};
use vgg_tensor::{Device, Precision, SingleProcess};
use vgg_testkit::{assert_close, pseudo_random};
use vgg_tests::{fixture, gpu, pseudo_random_network};

const SIZES: [(usize, usize); 3] = [(104, 136), (120, 104), (104, 104)];

fn config(layer: &str, test_scales: &[usize], aggregate: Aggregate, l2_normalise: bool) -> FeatureConfig {
    let test_scales = test_scales.to_vec();
    let layer = layer.to_owned();
    FeatureConfig {
        layer,
        test_scales,
        flip: true,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        aggregate,
        l2_normalise,
    }
}

/// Images of pseudo-random pixels, as in the reference script.
fn make_set(root: &Path) {
    for (i, (h, w)) in SIZES.into_iter().enumerate() {
        let values = pseudo_random(&format!("pixels{i}"), 1.0, h * w * 3);
        let bytes = values.into_iter().map(|v| ((v + 1.0) * 128.0) as u8).collect();
        for split in ["train", "val"] {
            let folder = root.join(split).join(format!("class{i}"));
            std::fs::create_dir_all(&folder).unwrap();
            let image = Image::from_shape_vec((h, w, 3), Clone::clone(&bytes)).unwrap();
            write_png(&folder.join("image.png"), &image).unwrap();
        }
    }
}

fn run(root: &Path, config: &FeatureConfig, device: &Device) -> vgg_eval::Result<Features> {
    // The number of classes of network and data set need not agree.
    let spec = NetworkSpec {
        width: 1.0 / 16.0,
        classes: 10,
        head: [16, 16],
        crop: 64,
        ..NetworkSpec::paper(Config::D)
    };
    let network = pseudo_random_network(spec, device).into_fully_convolutional()?;
    let folder = Arc::new(ImageSet::open(root, Split::Val).unwrap());
    let options = EvaluateOptions { workers: 2, on_bad_image: OnBadImage::Stop, part: Partition::WHOLE };
    let preprocessing = Preprocessing { offset: [-120.0, -110.0, -100.0], scale: [0.02; 3] };
    let model = EvalModel::dense(network, preprocessing, "weights");
    let found =
        features(&SingleProcess, &model, &folder, config, options, &mut |_| ControlFlow::Continue(()));
    found.map(Option::unwrap)
}

#[test]
fn descriptors_are_pytorchs() {
    let dir = tempfile::tempdir().unwrap();
    make_set(dir.path());
    let json = std::fs::read(fixture("features.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let devices = [Some(Device::cpu(2).unwrap()), gpu(Precision::F32)];
    for device in devices.into_iter().flatten() {
        for (key, config) in [
            ("pool5-raw", config("pool5", &[104], Aggregate::Mean, false)),
            ("fc6-raw", config("fc6", &[104], Aggregate::Stack, false)),
            ("fc7-raw", config("fc7", &[104], Aggregate::Mean, false)),
            ("fc7-mean", config("fc7", &[80, 104], Aggregate::Mean, true)),
            ("fc7-stack", config("fc7", &[80, 104], Aggregate::Stack, true)),
        ] {
            let ours = run(dir.path(), &config, &device).unwrap();
            assert_eq!(ours.labels, [0, 1, 2]);
            let rows = reference[key].as_array().unwrap();
            assert_eq!((rows.len(), ours.values.nrows()), (3, 3));
            for (i, row) in rows.iter().enumerate() {
                let expected: Vec<f32> =
                    row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
                // Up to fifteen layers in f32 against f64; measured 2.0e-6.
                assert_close(&ours.values.row(i).to_vec(), &expected, 2e-5, &format!("{key}, image {i}"));
            }
        }
    }
}

#[test]
fn convolution_layer_is_taken_before_its_pool() {
    let dir = tempfile::tempdir().unwrap();
    make_set(dir.path());
    let device = Device::cpu(1).unwrap();
    let of = |layer: &str| run(dir.path(), &config(layer, &[64], Aggregate::Mean, false), &device).unwrap();
    let (conv, pool) = (of("conv5_3"), of("pool5"));
    assert_eq!((conv.values.dim(), pool.values.dim()), ((3, 32), (3, 32)));
    // The square image has maps of even sides: a maximum over four values is at least their mean.
    let (conv, pool) = (conv.values.row(2).to_vec(), pool.values.row(2).to_vec());
    assert!(conv.iter().zip(&pool).all(|(c, p)| c <= p) && conv != pool);
    let unknown = run(dir.path(), &config("fc9", &[64], Aggregate::Mean, true), &device);
    assert!(unknown.unwrap_err().to_string().contains("no layer fc9"));
    let small = run(dir.path(), &config("fc7", &[32], Aggregate::Mean, true), &device);
    assert!(small.unwrap_err().to_string().contains("smaller than the network's crop"));
}

#[test]
fn features_file_has_its_metadata() {
    let dir = tempfile::tempdir().unwrap();
    make_set(dir.path());
    let config = config("fc7", &[64, 80], Aggregate::Stack, true);
    let found = run(dir.path(), &config, &Device::cpu(1).unwrap()).unwrap();
    let path = dir.path().join("f.safetensors");
    found.save(&path).unwrap();
    let mut file = TensorFile::open(&path).unwrap();
    assert_eq!(file.shape("features"), Some(&[3, 32][..]));
    assert_eq!(file.read_f32("features").unwrap(), found.values.into_raw_vec_and_offset().0);
    assert_eq!(file.read_i64("labels").unwrap(), [0, 1, 2]);
    let said = |key: &str| -> serde_json::Value { serde_json::from_str(&file.metadata()[key]).unwrap() };
    assert_eq!(serde_json::from_value::<FeatureConfig>(said("config")).unwrap(), config);
    let paths = ["val/class0/image.png", "val/class1/image.png", "val/class2/image.png"];
    assert_eq!(said("paths"), serde_json::json!(paths));
    assert_eq!(said("classes"), serde_json::json!(["class0", "class1", "class2"]));
    assert_eq!((said("skipped"), said("weights")), (serde_json::json!([]), "weights".into()));
    assert!(said("dataset").as_str().is_some_and(|hash| hash.len() >= 32));
}
