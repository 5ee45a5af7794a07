//! Small networks, images and data sets for the tests, and a reference evaluation by plain loops in f64.

#![allow(dead_code, reason = "not every test uses every helper")]

use std::path::Path;

use ndarray::Array2;
use vgg_data::{Geometry, Image, Interpolation, OnBadImage, write_png};
use vgg_eval::{DensePool, EvaluateOptions, Evaluation, Partition, Posteriors, Preprocessing, Protocol};
use vgg_layers::{Config, NamedTensor, Network, NetworkSpec};
use vgg_tensor::{Device, Tensor};
use vgg_testkit::pseudo_random;

/// Side of the crops of [`network`].
pub const CROP: usize = 32;

/// Different offsets and scales for each channel, so that tests detect exchanged channels.
pub const PREPROCESSING: Preprocessing =
    Preprocessing { offset: [-150.0, -120.0, -70.0], scale: [0.01, 0.02, 0.04] };

/// Tolerance of posteriors. Scores reach 10, and convolutions of a batch sum in another order than those of
/// one image, which changes scores by up to 1e-5 of the largest. Posteriors of different images differ by at
/// least ten times this.
pub const TOLERANCE: f64 = 1e-4;

/// An evaluation with flips, bilinear resizing and the mean of scores over the map.
pub fn evaluation(protocol: Protocol, test_scales: &[usize]) -> Evaluation {
    Evaluation {
        protocol,
        test_scales: test_scales.to_vec(),
        flip: true,
        interpolation: Interpolation::Bilinear,
        geometry: Geometry::Paper,
        dense_pool: DensePool::ScoreMean,
        pool_rounding: None,
    }
}

pub fn cpu() -> Device {
    Device::cpu(1).unwrap()
}

/// A network with pseudo-random weights and biases, each tensor derived from a hash of its name. Every filter
/// has mean zero, so that predictions depend on the contents of images, not only on their brightness.
pub fn network(classes: usize) -> Network {
    let spec =
        NetworkSpec { width: 0.125, classes, head: [8, 8], crop: CROP, ..NetworkSpec::paper(Config::A) };
    let mut network = Network::new(spec, &cpu()).unwrap();
    for (name, shape) in network.spec().file_shapes().unwrap() {
        let fan_in: usize = shape[1..].iter().product();
        let bound = if shape.len() == 1 { 0.1 } else { (9.0 / fan_in as f64).sqrt() as f32 };
        let mut values = pseudo_random(&name, bound, shape.iter().product());
        if shape.len() > 1 {
            for filter in values.chunks_exact_mut(fan_in) {
                let mean = filter.iter().sum::<f32>() / fan_in as f32;
                filter.iter_mut().for_each(|value| *value -= mean);
            }
        }
        network.load_tensor(&NamedTensor { name, shape, values }).unwrap();
    }
    network
}

/// An image of 8 x 8 blocks of pseudo-random colours, derived from a hash of its name. Rescaling preserves
/// such blocks, unlike single pseudo-random pixels.
pub fn image(name: &str, h: usize, w: usize) -> Image {
    let columns = w.div_ceil(8);
    let colours = pseudo_random(name, 128.0, h.div_ceil(8) * columns * 3);
    Image::from_shape_fn((h, w, 3), |(y, x, c)| {
        (colours[(y / 8 * columns + x / 8) * 3 + c] + 128.0 + (x % 8) as f32) as u8
    })
}

/// Writes [`image`]s of these names, such as `class/file.png`, and sizes as both splits of a data set.
pub fn write_set(root: &Path, files: &[(&str, (usize, usize))]) {
    for split in ["train", "val"] {
        for (name, size) in files {
            let path = root.join(split).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_png(&path, &image(name, size.0, size.1)).unwrap();
        }
    }
}

pub fn options(workers: usize) -> EvaluateOptions {
    EvaluateOptions { workers, on_bad_image: OnBadImage::Stop, part: Partition::WHOLE }
}

/// Posteriors of images `0`, `1` and so on.
pub fn posteriors(values: Array2<f32>, labels: &[u32]) -> Posteriors {
    let paths = (0..labels.len()).map(|i| i.to_string()).collect();
    Posteriors { values, labels: labels.to_vec(), paths, ..Posteriors::default() }
}

/// One view as a batch for a network, by the formula `(pixel + offset) * scale`.
pub fn batch_of_one(view: &Image, preprocessing: Preprocessing) -> Tensor {
    let (h, w, _) = view.dim();
    let mut values = Vec::new();
    for y in 0..h {
        for x in 0..w {
            for c in 0..3 {
                values.push((f32::from(view[[y, x, c]]) + preprocessing.offset[c]) * preprocessing.scale[c]);
            }
        }
    }
    Tensor::from_slice(&values, [1, h, w, 3], &cpu()).unwrap()
}

/// Softmax of scores.
pub fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// Posterior of one crop.
pub fn posterior_of_crop(network: &Network, crop: &Image, preprocessing: Preprocessing) -> Vec<f64> {
    let scores = network.infer(&batch_of_one(crop, preprocessing)).unwrap().to_vec();
    softmax(&scores.iter().map(|score| f64::from(*score)).collect::<Vec<_>>())
}

/// The cells of a map `[1, h, w, channels]`, row by row.
pub fn cells(map: &Tensor) -> Vec<Vec<f64>> {
    let channels = map.shape().dims()[3];
    let values: Vec<f64> = map.to_vec().into_iter().map(f64::from).collect();
    values.chunks_exact(channels).map(<[f64]>::to_vec).collect()
}

/// Mean of vectors.
pub fn mean(vectors: &[Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; vectors[0].len()];
    for vector in vectors {
        assert_eq!(vector.len(), sum.len());
        sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
    }
    sum.iter().map(|sum| sum / vectors.len() as f64).collect()
}

pub fn as_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// Largest difference of two vectors.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|value| value.is_finite()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
