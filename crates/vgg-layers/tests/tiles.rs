//! Large images are computed in tiles with the result of the whole image.

use vgg_layers::{Config, Init, Network, NetworkSpec, PoolRounding};
use vgg_tensor::{Device, Tensor};
use vgg_testkit::{assert_close, pseudo_random};

fn spec(config: Config) -> NetworkSpec {
    NetworkSpec { width: 0.06, classes: 5, head: [12, 10], crop: 64, ..NetworkSpec::paper(config) }
}

#[test]
fn tiles_give_the_result_of_the_whole_image() {
    let device = Device::cpu(2).unwrap();
    // Cut along one axis, along the other, and along both.
    let sizes = [(64, 700), (701, 70), (420, 399)];
    for (config, rounding) in [
        (Config::A, PoolRounding::Floor),
        (Config::ALrn, PoolRounding::Ceil),
        (Config::E, PoolRounding::Floor),
    ] {
        let network = Network::random(spec(config.clone()), Init::He, 3, &device).unwrap();
        let mut dense = network.into_fully_convolutional().unwrap();
        dense.set_pool_rounding(rounding);
        for (h, w) in sizes {
            let x = pseudo_random("image", 1.0, h * w * 3);
            let x = Tensor::from_slice(&x, [1, h, w, 3], &device).unwrap();
            let layers = ["conv1_1", "conv4_1", "pool5", "fc8"];
            let compute =
                |dense: &vgg_layers::DenseNetwork| layers.map(|layer| dense.activations(&x, layer).unwrap());
            dense.set_tile_pixels(1 << 20);
            let whole = compute(&dense);
            assert_eq!(dense.score_map(&x).unwrap().to_vec(), whole[3].to_vec());
            // Larger than the receptive field of most layers, and smaller than that of fc6.
            for tile_pixels in [64 * 640, 150 * 150] {
                dense.set_tile_pixels(tile_pixels);
                for ((layer, whole), tiled) in layers.iter().zip(&whole).zip(compute(&dense)) {
                    let what = format!("{config}, {h}x{w}, {layer}, tiles of {tile_pixels}");
                    assert_eq!(whole.shape(), tiled.shape(), "{what}");
                    assert_close(&tiled.to_vec(), &whole.to_vec(), 1e-4, &what);
                }
            }
        }
    }
}
