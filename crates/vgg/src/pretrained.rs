//! A network from a weights file, with its preprocessing.

use std::path::{Path, PathBuf};

use vgg_data::{Geometry, imagenet};
use vgg_eval::{DensePool, Evaluation, Preprocessing, Protocol};
use vgg_files::{Hash, hash_file};
use vgg_layers::{Network, unnamed_classes};
use vgg_tensor::{Device, DeviceConfig};
use vgg_weights::{Library, Loaded, WeightsMetadata};

use crate::Result;

/// A network from a weights file.
pub struct Pretrained {
    /// The network.
    pub network: Network,
    /// Configuration, classes and pixel normalisation.
    pub metadata: WeightsMetadata,
    /// Remarks on the import of another library's file.
    pub notes: Vec<String>,
    /// Path of the weights file.
    pub path: PathBuf,
}

impl Pretrained {
    /// Opens weights of vgg, torchvision, timm, Caffe, Keras or TensorFlow on the best device.
    ///
    /// # Errors
    /// [`crate::Error::Weights`] if the file is missing, damaged, or not of a VGG network.
    pub fn open(weights: impl AsRef<Path>) -> Result<Pretrained> {
        Pretrained::open_on(weights.as_ref(), &Device::open(&DeviceConfig::default())?)
    }

    /// As [`Pretrained::open`], on `device`.
    ///
    /// # Errors
    /// Those of [`Pretrained::open`].
    pub fn open_on(weights: &Path, device: &Device) -> Result<Pretrained> {
        Ok(Pretrained::of(vgg_weights::load(weights, device)?, weights))
    }

    /// As [`Pretrained::open_on`], for a network that computes no further than `layer`: the file may lack the layers
    /// above, whose weights are 0.
    ///
    /// # Errors
    /// Those of [`Pretrained::open`].
    pub fn open_up_to(weights: &Path, layer: &str, device: &Device) -> Result<Pretrained> {
        Ok(Pretrained::of(vgg_weights::load_up_to(weights, layer, device)?, weights))
    }

    fn of(mut loaded: Loaded, weights: &Path) -> Pretrained {
        name_classes(&mut loaded);
        let Loaded { network, metadata, notes, .. } = loaded;
        Pretrained { network, metadata, notes, path: weights.to_owned() }
    }

    /// Hash of the weights file.
    ///
    /// # Errors
    /// [`crate::Error::File`] if it can no longer be read.
    pub fn hash(&self) -> Result<Hash> {
        Ok(hash_file(&self.path)?)
    }

    /// Pixel normalisation before the first convolution.
    pub fn preprocessing(&self) -> Preprocessing {
        let (offset, scale) = self.metadata.offset_and_scale();
        Preprocessing { offset, scale }
    }

    /// The default test scale (smallest image side): the training scale, or the middle of its scale jitter.
    pub fn default_test_scale(&self) -> usize {
        let scales = &self.metadata.train_scale;
        (scales.iter().sum::<usize>() + scales.len() / 2) / scales.len().max(1)
    }

    /// How images were rescaled in training.
    pub fn geometry(&self) -> Geometry {
        // The metadata has been checked when it was read.
        self.metadata.geometry.parse().unwrap_or_default()
    }

    /// The paper's dense evaluation at the default test scale, with horizontal flip.
    pub fn dense_evaluation(&self) -> Evaluation {
        Evaluation {
            protocol: Protocol::Dense,
            test_scales: vec![self.default_test_scale()],
            flip: true,
            interpolation: vgg_data::Interpolation::Bilinear,
            geometry: self.geometry(),
            dense_pool: DensePool::ScoreMean,
            pool_rounding: None,
        }
    }
}

/// Names the classes of another library's network with 1,000 unnamed classes: those of ILSVRC-2012.
pub fn name_classes(loaded: &mut Loaded) {
    let classes = &mut loaded.metadata.classes;
    let unnamed = *classes == unnamed_classes(classes.len());
    if loaded.library != Library::Native && unnamed && classes.len() == imagenet::classes().count() {
        *classes = imagenet::classes().map(|(id, _)| id.to_owned()).collect();
        loaded.notes.push("the 1000 classes are assumed to be those of ILSVRC-2012, in WNID order".into());
    }
}
