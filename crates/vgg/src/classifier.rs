//! Classes of images.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vgg_data::{Image, imagenet};
use vgg_eval::{EvalModel, Evaluation};
use vgg_weights::WeightsMetadata;

use crate::{Error, Pretrained, Result};

/// Classifies images by a network, under one of the paper's test protocols.
pub struct Classifier {
    model: EvalModel<'static>,
    metadata: WeightsMetadata,
    evaluation: Evaluation,
}

/// A class with its posterior.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Index of the class in the network.
    pub class: usize,
    /// Its name in the weights file, such as a WordNet ID.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its probability, 0 to 1.
    pub posterior: f32,
}

impl Classifier {
    /// A classifier from a weights file, by dense evaluation at the network's training scale, on the best device.
    ///
    /// # Errors
    /// As [`Pretrained::open`].
    pub fn open(weights: impl AsRef<Path>) -> Result<Classifier> {
        let network = Pretrained::open(weights)?;
        let evaluation = network.dense_evaluation();
        Classifier::new(network, evaluation)
    }

    /// A classifier under a protocol.
    ///
    /// # Errors
    /// [`Error::Eval`] if the protocol's test scales do not fit the network.
    pub fn new(network: Pretrained, evaluation: Evaluation) -> Result<Classifier> {
        evaluation.views(network.metadata.spec.crop)?;
        let preprocessing = network.preprocessing();
        let model = evaluation.prepare(network.network, preprocessing, "")?;
        Ok(Classifier { model, metadata: network.metadata, evaluation })
    }

    /// All classes of a JPEG or PNG file, the likeliest first.
    ///
    /// # Errors
    /// [`Error::Data`] if the file is missing or is no image that can be decoded.
    pub fn classify(&self, image: impl AsRef<Path>) -> Result<Vec<Prediction>> {
        let path = image.as_ref();
        self.classify_bytes(&vgg_files::read_bytes(path)?, path)
    }

    /// All classes of the contents of a JPEG or PNG file, the likeliest first; `path` is for error messages.
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub fn classify_bytes(&self, bytes: &[u8], path: &Path) -> Result<Vec<Prediction>> {
        self.classify_image(&vgg_data::decode(bytes, path)?).map_err(|e| e.of_image(path))
    }

    /// All classes of an image `[H, W, 3]` of RGB values 0..255, the likeliest first.
    ///
    /// # Errors
    /// [`Error::Eval`] if the image is too large for the protocol.
    pub fn classify_image(&self, image: &Image) -> Result<Vec<Prediction>> {
        let posterior = vgg_eval::classify(&self.model, image, &self.evaluation)?;
        let mut order: Vec<usize> = (0..posterior.len()).collect();
        order.sort_by(|a, b| posterior[*b].total_cmp(&posterior[*a]));
        let prediction = |class: usize| {
            let id = self.metadata.classes[class].clone();
            let name = imagenet::words(&id).unwrap_or(&id).to_owned();
            Prediction { class, id, name, posterior: posterior[class] }
        };
        Ok(order.into_iter().map(prediction).collect())
    }

    /// A picture of where in an image a class is likely: yellow where it is, blue where not.
    ///
    /// # Errors
    /// [`Error::Config`] unless the protocol shows whole images.
    pub fn score_map(&self, image: &Image, class: usize) -> Result<Image> {
        if !self.has_score_map() {
            let what = "a score map needs a protocol that shows whole images: dense or combined";
            return Err(Error::Config(what.into()));
        }
        Ok(vgg_eval::score_map(&self.model, image, &self.evaluation, class)?)
    }

    /// Whether the protocol shows whole images.
    pub fn has_score_map(&self) -> bool {
        self.model.is_dense()
    }

    /// What the weights file says of the network.
    pub fn metadata(&self) -> &WeightsMetadata {
        &self.metadata
    }
}
