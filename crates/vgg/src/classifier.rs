//! Classification of images.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vgg_data::{DecodeOptions, Image, decode_with};
use vgg_eval::{EvalModel, Evaluation, readable_names};
use vgg_weights::WeightsMetadata;

use crate::{Error, Pretrained, Result};

/// Classifies images with a network under one of the paper's test protocols.
pub struct Classifier {
    model: EvalModel<'static>,
    metadata: WeightsMetadata,
    /// Readable names of the classes.
    names: Vec<String>,
    evaluation: Evaluation,
    decode: DecodeOptions,
}

/// A class with its posterior.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Index of the class in the network's output.
    pub class: usize,
    /// Name in the weights file, such as a WordNet ID.
    pub id: String,
    /// Readable name, with the class index if another class has the same: "crane (134)".
    pub name: String,
    /// Posterior probability, 0 to 1.
    pub posterior: f32,
}

impl Classifier {
    /// Opens a weights file for dense evaluation at the network's training scale, on the best device.
    ///
    /// # Errors
    /// Those of [`Pretrained::open`].
    pub fn open(weights: impl AsRef<Path>) -> Result<Classifier> {
        let network = Pretrained::open(weights)?;
        let evaluation = network.dense_evaluation();
        Classifier::new(network, evaluation)
    }

    /// Creates a classifier for a network under a protocol.
    ///
    /// # Errors
    /// [`Error::Eval`] if the protocol's test scales do not fit the network.
    pub fn new(network: Pretrained, evaluation: Evaluation) -> Result<Classifier> {
        evaluation.views(network.metadata.spec.crop)?;
        let preprocessing = network.preprocessing();
        let model = evaluation.prepare(network.network, preprocessing, "")?;
        let names = readable_names(&network.metadata.classes);
        let decode = DecodeOptions::default();
        Ok(Classifier { model, metadata: network.metadata, names, evaluation, decode })
    }

    /// Decodes image files with other options than the default ones.
    pub fn with_decode_options(mut self, options: DecodeOptions) -> Classifier {
        self.decode = options;
        self
    }

    /// Posteriors of all classes for an image file (JPEG, PNG, WebP, TIFF, BMP, GIF or PNM), most likely
    /// first.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read; [`Error::Data`] if it cannot be decoded or is too large
    /// for the protocol.
    pub fn classify(&self, image: impl AsRef<Path>) -> Result<Vec<Prediction>> {
        let path = image.as_ref();
        self.classify_bytes(&vgg_data::read_image(path)?, path)
    }

    /// As [`Classifier::classify`] for a file's contents; `path` appears in error messages.
    ///
    /// # Errors
    /// [`Error::Data`] if the image cannot be decoded or is too large for the protocol.
    pub fn classify_bytes(&self, bytes: &[u8], path: &Path) -> Result<Vec<Prediction>> {
        self.classify_image(&decode_with(bytes, path, &self.decode)?).map_err(|e| e.of_image(path))
    }

    /// Posteriors of all classes for an image `[H, W, 3]` of RGB values 0..255, most likely first.
    ///
    /// # Errors
    /// [`Error::Eval`] if the image is too large for the protocol.
    pub fn classify_image(&self, image: &Image) -> Result<Vec<Prediction>> {
        let posterior = vgg_eval::classify(&self.model, image, &self.evaluation)?;
        let mut order: Vec<usize> = (0..posterior.len()).collect();
        order.sort_by(|a, b| posterior[*b].total_cmp(&posterior[*a]));
        let prediction = |class: usize| Prediction {
            class,
            id: self.metadata.classes[class].clone(),
            name: self.names[class].clone(),
            posterior: posterior[class],
        };
        Ok(order.into_iter().map(prediction).collect())
    }

    /// An image of the dense score map of a class: yellow where the class is likely, purple elsewhere.
    ///
    /// # Errors
    /// [`Error::Config`] unless the protocol is dense or combined.
    pub fn score_map(&self, image: &Image, class: usize) -> Result<Image> {
        if !self.has_score_map() {
            let what = "a score map needs a protocol with whole images: dense or combined";
            return Err(Error::Config(what.into()));
        }
        Ok(vgg_eval::score_map(&self.model, image, &self.evaluation, class)?)
    }

    /// Whether the protocol evaluates whole images, which [`Classifier::score_map`] needs.
    pub fn has_score_map(&self) -> bool {
        self.model.is_dense()
    }

    /// Metadata of the weights file.
    pub fn metadata(&self) -> &WeightsMetadata {
        &self.metadata
    }
}
