//! A network from a weights file, with what is needed to show it images.

use std::path::{Path, PathBuf};

use vgg_data::imagenet;
use vgg_eval::{DensePool, Evaluation, Preprocessing, Protocol};
use vgg_files::{Hash, hash_file};
use vgg_layers::Network;
use vgg_tensor::{Device, DeviceConfig};
use vgg_weights::{Library, Loaded, WeightsMetadata};

use crate::Result;

/// A network from a weights file.
pub struct Pretrained {
    /// The network.
    pub network: Network,
    /// Configuration, classes, and how pixels are normalised.
    pub metadata: WeightsMetadata,
    /// What was found out about a file of another library, for people.
    pub notes: Vec<String>,
    /// The file.
    pub path: PathBuf,
}

impl Pretrained {
    /// Opens weights of vgg, torchvision, timm, Caffe or Keras on the best device.
    ///
    /// # Errors
    /// [`crate::Error::Weights`] if the file is missing, damaged, or not of a VGG network.
    pub fn open(weights: impl AsRef<Path>) -> Result<Pretrained> {
        Pretrained::open_on(weights.as_ref(), &Device::open(&DeviceConfig::default())?)
    }

    /// As [`Pretrained::open`] on a device.
    ///
    /// # Errors
    /// As [`Pretrained::open`].
    pub fn open_on(weights: &Path, device: &Device) -> Result<Pretrained> {
        let mut loaded = vgg_weights::load(weights, device)?;
        name_classes(&mut loaded);
        let Loaded { network, metadata, notes, .. } = loaded;
        Ok(Pretrained { network, metadata, notes, path: weights.to_owned() })
    }

    /// Hash of the file.
    ///
    /// # Errors
    /// [`crate::Error::File`] if it can no longer be read.
    pub fn hash(&self) -> Result<Hash> {
        Ok(hash_file(&self.path)?)
    }

    /// How pixels are normalised before the first convolution.
    pub fn preprocessing(&self) -> Preprocessing {
        let (offset, scale) = self.metadata.offset_and_scale();
        Preprocessing { offset, scale }
    }

    /// The smallest image side at which the network is tested unless told otherwise: that of training, or the middle of its scale
    /// jitter.
    pub fn default_test_scale(&self) -> usize {
        let sides = &self.metadata.train_scale;
        (sides.iter().sum::<usize>() + sides.len() / 2) / sides.len().max(1)
    }

    /// The paper's dense evaluation at the default test scale, with the mirrored image.
    pub fn dense_evaluation(&self) -> Evaluation {
        Evaluation {
            protocol: Protocol::Dense,
            test_scales: vec![self.default_test_scale()],
            flip: true,
            interpolation: vgg_data::Interpolation::Bilinear,
            dense_pool: DensePool::ScoreMean,
            pool_rounding: None,
        }
    }
}

/// Names the classes of a network of another library that has a thousand: it was trained on ILSVRC-2012.
pub fn name_classes(loaded: &mut Loaded) {
    let classes = &mut loaded.metadata.classes;
    let unnamed = classes.first().is_some_and(|name| name == "class0");
    if loaded.library != Library::Native && unnamed && classes.len() == imagenet::classes().count() {
        *classes = imagenet::classes().map(|(id, _)| id.to_owned()).collect();
        loaded.notes.push("its thousand classes are taken to be those of ILSVRC-2012, in WNID order".into());
    }
}
