//! A small network and images for it.

#![allow(dead_code, reason = "not every test uses every helper")]

use vgg_layers::{Config, Init, Network, NetworkSpec};
use vgg_tensor::{Device, Tensor};
use vgg_testkit::pseudo_random;

pub fn device() -> Device {
    Device::cpu(1).unwrap()
}

pub fn small(config: Config) -> NetworkSpec {
    NetworkSpec { width: 1.0 / 64.0, classes: 5, head: [24, 16], crop: 64, ..NetworkSpec::paper(config) }
}

pub fn network(config: Config) -> Network {
    Network::random(small(config), Init::He, 3, &device()).unwrap()
}

pub fn images(n: usize, h: usize, w: usize) -> Tensor {
    Tensor::from_slice(&pseudo_random("image", 1.0, n * h * w * 3), [n, h, w, 3], &device()).unwrap()
}
