//! The settings of one training run, as read from TOML, compared between runs, and recorded in `run.json`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vgg_data::{Geometry, Interpolation, MAX_SIDE, OnBadImage, check_train_scale};
use vgg_eval::Protocol;
use vgg_layers::{Config, Init, LayerSelection, LrnStyle, NetworkSpec, PoolRounding};
use vgg_train::{MomentumVariant, Schedule, SgdOptions, TrainConfig};

use crate::{Error, Result};

/// Largest micro-batch.
const MAX_MICRO_BATCH: usize = 256;

/// The settings of one training run; fields are the tables and keys of the TOML file. Only width and head
/// have defaults among those that affect results: the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// Name of the run for rows and other runs, such as `C/256`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Row of the paper that the run corresponds to, for readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paper: Option<String>,
    /// Whether a non-finite loss counts as a result rather than a failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_diverge: bool,
    /// Network and initial weights.
    pub network: NetworkPlan,
    /// Training images and augmentation.
    pub data: DataPlan,
    /// SGD settings.
    pub optimizer: OptimizerPlan,
    /// Learning rate schedule.
    pub schedule: Schedule,
    /// Validation during training.
    pub validate: ValidationPlan,
    /// Seed and number of epochs.
    pub run: RunLength,
}

/// Largest number of images in a step: far more than any published training, and few enough to count in memory.
const MAX_BATCH: usize = 1 << 20;

/// The network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPlan {
    /// ConvNet configuration (a column of Table 1), such as `"D"`; or, under the key `stages`, a custom
    /// network, such as `[[64], [128], [256, 256]]`.
    #[serde(alias = "stages")]
    pub config: Config,
    /// Number of classes. Default: that of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Multiplier for the numbers of filters; the paper: 1.
    #[serde(default = "paper_width")]
    pub width: f64,
    /// Outputs of fc6 and fc7; the paper: 4096 each.
    #[serde(default = "paper_head")]
    pub head: [usize; 2],
    /// Dropout probability; the paper: 0.5.
    pub dropout: f32,
    /// Formula of local response normalisation (LRN).
    pub lrn_style: LrnStyle,
    /// Rounding of odd sides by max-pooling.
    pub pool_rounding: PoolRounding,
    /// Initial weights.
    pub init: InitPlan,
    /// Layers to train. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_layers: Option<Vec<String>>,
}

/// Initial weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "expected a table with scheme, from and layers")]
pub struct InitPlan {
    /// Distribution of random weights.
    pub scheme: Init,
    /// Weights file to start from; in a recipe, the name of another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The layers to load from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayerSelection>,
}

/// Training images and their augmentation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPlan {
    /// Data set: a folder with `train/<class>/*` and `val/<class>/*`, or shards. Not allowed in a recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<PathBuf>,
    /// Training scale S (smallest side): the two ends of scale jitter, equal if fixed. A file may give one
    /// number.
    #[serde(with = "scale_range")]
    pub train_scale: [usize; 2],
    /// Side of the training crop in pixels; the paper: 224.
    pub crop: usize,
    /// Interpolation for rescaling.
    pub interpolation: Interpolation,
    /// Whether to flip images horizontally with probability 1/2.
    pub flip: bool,
    /// Standard deviation of PCA colour jitter; the paper: 0.1; 0 for none.
    pub pca_jitter_std: f64,
    /// Pixel normalisation.
    pub pixel_scale: PixelScale,
    /// What to do with an image that cannot be decoded.
    pub on_bad_image: OnBadImage,
    /// Whether prepared images may be enlarged beyond their stored size. Not part of the run's identity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enlarge: bool,
    /// How images are rescaled, and where centre crops lie. Default: the paper's geometry.
    #[serde(default, skip_serializing_if = "Geometry::is_paper")]
    pub geometry: Geometry,
    /// Whether to turn images as their EXIF orientation says. The paper does not mention it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exif_orientation: bool,
}

/// Scale of mean-subtracted pixels of 0..255.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    expecting = "pixel_scale must be a number, \"unit-variance\", \"inherit\" or \"torchvision\""
)]
pub enum PixelScale {
    /// Mean, scale and standard deviations of the initial weights.
    UnitVariance,
    /// Mean, factor and divisors of the network that the run starts from.
    Inherit,
    /// torchvision's convention: its mean, 1/255, and its standard deviations.
    Torchvision,
    /// A fixed scale; the paper: 1.
    #[serde(untagged)]
    Fixed(f32),
}

/// SGD settings and batch sizes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerPlan {
    /// Momentum variant: where the learning rate enters the velocity.
    pub momentum_variant: MomentumVariant,
    /// Batch size; the paper: 256.
    pub batch: usize,
    /// Number of images that pass through the network together; gradients are accumulated.
    pub micro_batch: usize,
    /// Momentum; the paper: 0.9.
    pub momentum: f32,
    /// Weight decay (L2 penalty); the paper: 5e-4.
    pub weight_decay: f32,
    /// Whether weight decay also applies to biases.
    pub decay_biases: bool,
    /// Multiplier for the learning rate of biases.
    pub bias_lr_mult: f32,
}

/// Validation during training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationPlan {
    /// Always [`Protocol::Centre`]: one centre crop per image.
    pub protocol: Protocol,
    /// Test scale (smallest side) of the validation images.
    pub test_scale: usize,
    /// Epochs between validations; the last epoch is always validated.
    pub every_epochs: usize,
}

/// Seed and number of epochs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunLength {
    /// Seed of weights, data order, augmentation and dropout.
    pub seed: u64,
    /// Maximum number of epochs.
    pub max_epochs: usize,
}

impl RunPlan {
    /// The network specification for a data set with this number of classes.
    ///
    /// # Errors
    /// [`Error::Plan`] if the plan has another number of classes.
    pub fn spec(&self, classes: usize) -> Result<NetworkSpec> {
        let network = &self.network;
        if let Some(planned) = network.classes.filter(|planned| *planned != classes) {
            return Err(Error::Plan(format!(
                "network.classes is {planned}, but the data set has {classes} classes"
            )));
        }
        Ok(NetworkSpec {
            config: network.config.clone(),
            width: network.width,
            classes,
            head: network.head,
            crop: self.data.crop,
            dropout: network.dropout,
            lrn_style: network.lrn_style,
            pool_rounding: network.pool_rounding,
        })
    }

    /// The training settings.
    pub fn train_config(&self) -> TrainConfig {
        let o = &self.optimizer;
        TrainConfig {
            micro_batch: o.micro_batch,
            sgd: SgdOptions {
                momentum_variant: o.momentum_variant,
                momentum: o.momentum,
                weight_decay: o.weight_decay,
                decay_biases: o.decay_biases,
                bias_lr_mult: o.bias_lr_mult,
            },
            schedule: self.schedule.clone(),
            max_epochs: self.run.max_epochs,
            validate_every: self.validate.every_epochs,
            seed: self.run.seed,
        }
    }

    /// Training scale: one value, or the two ends of scale jitter.
    pub fn train_scale(&self) -> Vec<usize> {
        let [low, high] = self.data.train_scale;
        if low == high { vec![low] } else { vec![low, high] }
    }

    /// Checks everything that does not need the data set.
    ///
    /// # Errors
    /// [`Error::Plan`], or [`Error::Network`] or [`Error::Train`] if the network or the training settings are
    /// invalid.
    pub fn check(&self) -> Result<()> {
        let spec = self.spec(self.network.classes.unwrap_or(1000))?;
        self.check_layers(&spec)?;
        self.train_config().check()?;
        self.check_sides(spec.crop)?;
        let found = self.batch_fault().or_else(|| self.pixel_fault()).or_else(|| self.init_fault());
        found.map_or(Ok(()), |what| Err(Error::Plan(what)))
    }

    /// Checks that the initial weights file, if any, exists and fits. Not for runs of a recipe, which start
    /// from other runs.
    ///
    /// # Errors
    /// [`Error::Weights`] if the file cannot be read; [`Error::Network`] if a layer to load is missing or has
    /// another shape.
    pub fn check_start(&self) -> Result<()> {
        let (Some(path), Some(map)) = (&self.network.init.from, &self.network.init.layers) else {
            return Ok(());
        };
        let from = vgg_weights::read_metadata(path.as_ref())?.spec;
        Ok(map.check(&from, &self.spec(self.network.classes.unwrap_or(from.classes))?)?)
    }

    fn check_layers(&self, spec: &NetworkSpec) -> Result<()> {
        let layers = spec.layers()?;
        if self.network.train_layers.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::Plan("train_layers is empty: no layer would be trained".into()));
        }
        for name in self.network.train_layers.iter().flatten() {
            if !layers.iter().any(|l| l.name == *name && l.weight_shape().is_some()) {
                return Err(Error::Plan(format!("config {} has no layer {name} to train", spec.config)));
            }
        }
        Ok(())
    }

    fn check_sides(&self, crop: usize) -> Result<()> {
        check_train_scale(self.data.train_scale, crop).map_err(|e| Error::Plan(e.to_string()))?;
        let side = self.validate.test_scale;
        if !(crop..=MAX_SIDE).contains(&side) {
            return Err(Error::Plan(format!(
                "validate.test_scale {side} must be between the crop, {crop}, and {MAX_SIDE}"
            )));
        }
        if self.validate.protocol != Protocol::Centre {
            let what = "validate.protocol must be centre: training validates on the centre crop";
            return Err(Error::Plan(what.into()));
        }
        Ok(())
    }

    fn batch_fault(&self) -> Option<String> {
        let OptimizerPlan { batch, micro_batch, .. } = self.optimizer;
        if batch == 0 {
            return Some("batch must be at least 1".into());
        }
        if batch > MAX_BATCH {
            return Some(format!("batch {batch} is larger than the maximum, {MAX_BATCH}"));
        }
        (micro_batch > MAX_MICRO_BATCH)
            .then(|| format!("micro_batch {micro_batch} is larger than the maximum, {MAX_MICRO_BATCH}"))
    }

    fn pixel_fault(&self) -> Option<String> {
        let std = self.data.pca_jitter_std;
        if !(std >= 0.0 && std.is_finite()) {
            return Some(format!("pca_jitter_std {std} must be finite and at least 0"));
        }
        match self.data.pixel_scale {
            PixelScale::Fixed(scale) if !(scale > 0.0 && scale.is_finite()) => {
                Some(format!("pixel_scale {scale} must be finite and above 0"))
            }
            PixelScale::Inherit if self.network.init.from.is_none() => {
                Some("pixel_scale is \"inherit\", but network.init.from is not set".into())
            }
            _ => None,
        }
    }

    fn init_fault(&self) -> Option<String> {
        let InitPlan { from, layers, .. } = &self.network.init;
        (from.is_some() != layers.is_some()).then(|| {
            "network.init needs both from and layers (\"paper\", \"all\" or a list of layers), or neither"
                .into()
        })
    }
}

fn paper_width() -> f64 {
    1.0
}

fn paper_head() -> [usize; 2] {
    [4096, 4096]
}

/// A training scale: one number if fixed, or the two ends of scale jitter.
mod scale_range {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize, Serialize)]
    #[serde(untagged, expecting = "train_scale must be one side, such as 256, or two, such as [256, 512]")]
    enum Sides {
        Fixed(usize),
        Ends([usize; 2]),
        One([usize; 1]),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[usize; 2], D::Error> {
        Ok(match Sides::deserialize(from)? {
            Sides::Fixed(side) | Sides::One([side]) => [side, side],
            Sides::Ends(ends) => ends,
        })
    }

    pub(super) fn serialize<S: Serializer>(sides: &[usize; 2], to: S) -> Result<S::Ok, S::Error> {
        let [low, high] = *sides;
        if low == high { Sides::Fixed(low) } else { Sides::Ends(*sides) }.serialize(to)
    }
}
