//! Image descriptors from a layer.

use std::path::Path;

use ndarray::Array1;
use vgg_data::{Image, Interpolation};
use vgg_eval::{Aggregate, EvalModel, FeatureConfig, image_features};
use vgg_tensor::{Device, DeviceConfig};

use crate::{Pretrained, Result};

/// Extracts image descriptors for classifiers of other data sets (appendix B).
pub struct FeatureExtractor {
    model: EvalModel<'static>,
    config: FeatureConfig,
}

impl FeatureExtractor {
    /// Opens a weights file to extract a layer such as `fc7` or `pool5`, on the best device. The descriptor
    /// averages the layer over the whole image at the network's training scale and over its horizontal flip,
    /// and has unit L2 norm.
    ///
    /// # Errors
    /// Those of [`Pretrained::open`]; [`crate::Error::Eval`] if the network has no such layer.
    pub fn open(weights: impl AsRef<Path>, layer: &str) -> Result<FeatureExtractor> {
        let device = Device::open(&DeviceConfig::default())?;
        let network = Pretrained::open_up_to(weights.as_ref(), layer, &device)?;
        let config = FeatureConfig {
            layer: layer.to_owned(),
            test_scales: vec![network.default_test_scale()],
            flip: true,
            interpolation: Interpolation::Bilinear,
            geometry: network.geometry(),
            aggregate: Aggregate::Mean,
            l2_normalise: true,
        };
        FeatureExtractor::new(network, config)
    }

    /// Creates an extractor with these settings.
    ///
    /// # Errors
    /// [`crate::Error::Eval`] if the network has no such layer, or a test scale is below its crop.
    pub fn new(network: Pretrained, config: FeatureConfig) -> Result<FeatureExtractor> {
        let preprocessing = network.preprocessing();
        let network = network.network.into_fully_convolutional()?;
        config.check(&network)?;
        Ok(FeatureExtractor { model: EvalModel::dense(network, preprocessing, ""), config })
    }

    /// The descriptor of an image file: JPEG, PNG, WebP, TIFF, BMP, GIF or PNM.
    ///
    /// # Errors
    /// [`crate::Error::File`] if the file cannot be read; [`crate::Error::Data`] if it cannot be decoded.
    pub fn extract(&self, image: impl AsRef<Path>) -> Result<Array1<f32>> {
        let path = image.as_ref();
        let pixels = vgg_data::decode(&vgg_data::read_image(path)?, path)?;
        self.extract_image(&pixels).map_err(|e| e.of_image(path))
    }

    /// The descriptor of an image `[H, W, 3]` of RGB values 0..255.
    ///
    /// # Errors
    /// [`crate::Error::Eval`] if the image is too large.
    pub fn extract_image(&self, image: &Image) -> Result<Array1<f32>> {
        Ok(image_features(&self.model, image, &self.config)?)
    }
}
