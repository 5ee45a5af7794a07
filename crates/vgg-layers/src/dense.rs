//! The fully convolutional network of section 3.2, for dense evaluation: fc6 is a convolution with the kernel
//! size of a crop's pool5 map, fc7 and fc8 are 1x1 convolutions.

use std::sync::Arc;

use vgg_tensor::{Device, Shape, Tensor};

use crate::network::Params;
use crate::tiles::MOST_PIXELS;
use crate::{Error, LayerKind, Network, NetworkSpec, PoolRounding, Result, Stopwatch};

/// A fully convolutional network: it maps images of at least the crop's size to maps of class scores.
pub struct DenseNetwork {
    network: Network,
    pool_rounding: PoolRounding,
    tile_pixels: usize,
}

impl Network {
    /// Converts the fully connected layers to convolutions. The parameters are moved, not copied.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor cannot be reshaped, which does not happen in practice.
    pub fn into_fully_convolutional(mut self) -> Result<DenseNetwork> {
        for layer in &mut self.layers {
            let LayerKind::Linear { .. } = layer.spec.kind else { continue };
            let ([h, w, c], k) = (layer.spec.input, layer.spec.output[2]);
            if let Some(Params { weight, bias }) = layer.params.take() {
                let weight = weight.into_reshaped(Shape::from([k, h, w, c]))?;
                layer.params = Some(Params { weight, bias });
            }
        }
        let pool_rounding = self.spec.pool_rounding;
        Ok(DenseNetwork { network: self, pool_rounding, tile_pixels: MOST_PIXELS })
    }
}

impl DenseNetwork {
    /// The specification of the network.
    pub fn spec(&self) -> &NetworkSpec {
        &self.network.spec
    }

    /// The device of the parameters.
    pub fn device(&self) -> &Device {
        &self.network.device
    }

    /// Sets the rounding of odd sides in pooling, which may differ from training. It has no effect on crops.
    pub fn set_pool_rounding(&mut self, rounding: PoolRounding) {
        self.pool_rounding = rounding;
    }

    /// Sets the largest number of pixels that are computed at once; larger images are divided into overlapping tiles,
    /// with the same result up to rounding. Default and maximum: 1024 x 1024.
    pub fn set_tile_pixels(&mut self, pixels: usize) {
        self.tile_pixels = pixels.clamp(1, MOST_PIXELS);
    }

    /// Measures the time of every layer with `stopwatch`; `None` stops measuring.
    pub fn set_stopwatch(&mut self, stopwatch: Option<Arc<Stopwatch>>) {
        self.network.set_stopwatch(stopwatch);
    }

    /// Class scores `[N, h, w, classes]` of images `x [N, H, W, 3]`, before softmax.
    ///
    /// With a crop of 224 and pooling that rounds down, `h = H / 32 - 6` in integer division.
    ///
    /// # Errors
    /// [`Error::Input`] if the images are smaller than the crop; [`Error::Layer`] if an operation fails.
    pub fn score_map(&self, x: &Tensor) -> Result<Tensor> {
        self.check_input(x)?;
        let layers = self.network.layers.len();
        self.network.infer_in_tiles(x, self.pool_rounding, layers, self.tile_pixels)
    }

    /// Activations `[N, h, w, C]` of a layer for images `x [N, H, W, 3]`, after its ReLU. `C` is 4096 for the
    /// paper's `fc7`. Source: appendix B.
    ///
    /// # Errors
    /// As [`DenseNetwork::score_map`]; [`Error::UnknownLayer`] if no layer has this name.
    pub fn activations(&self, x: &Tensor, layer: &str) -> Result<Tensor> {
        let last = self.position(layer)?;
        self.check_input(x)?;
        self.network.infer_in_tiles(x, self.pool_rounding, last + 1, self.tile_pixels)
    }

    /// Number of channels of a layer's activations.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if no layer has this name.
    pub fn channels(&self, layer: &str) -> Result<usize> {
        Ok(self.network.layers[self.position(layer)?].spec.output[2])
    }

    fn position(&self, layer: &str) -> Result<usize> {
        let found = self.network.layers.iter().position(|known| known.spec.name == layer);
        let config = self.spec().config.name();
        found.ok_or_else(|| Error::UnknownLayer { name: layer.to_owned(), config })
    }

    fn check_input(&self, x: &Tensor) -> Result<()> {
        let crop = self.spec().crop;
        match x.shape().dims() {
            [_, h, w, 3] if *h >= crop && *w >= crop => Ok(()),
            _ => Err(Error::Input {
                expected: format!("[N, H, W, 3] with sides of at least {crop}"),
                got: x.shape().to_string(),
            }),
        }
    }
}
