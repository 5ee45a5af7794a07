//! The settings of one training run: what a TOML file says, what runs are compared by, and what `run.json` records.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vgg_data::{Interpolation, MAX_SIDE, OnBadImage};
use vgg_eval::Protocol;
use vgg_layers::{Config, Init, LayerSelection, LrnStyle, NetworkSpec, PoolRounding};
use vgg_train::{MomentumVariant, Schedule, SgdOptions, TrainConfig};

use crate::{Error, Result};

/// Images that a network takes at once.
const MAX_MICRO_BATCH: usize = 256;

/// One training run. Its fields are the tables and keys of a file; none that is scientific has a default but the width and head of
/// the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// What other runs and rows call it, such as `C/256`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Which row of the paper this is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paper: Option<String>,
    /// Whether it is a result, and no failure, that the loss does not stay finite.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_diverge: bool,
    /// The network and its weights at the start.
    pub network: NetworkPlan,
    /// Training images and how they are augmented.
    pub data: DataPlan,
    /// SGD.
    pub optimizer: OptimizerPlan,
    /// The learning rate.
    pub schedule: Schedule,
    /// Validation after an epoch.
    pub validate: ValidationPlan,
    /// Seed and length.
    pub run: RunLength,
}

/// A network whose number of classes may be that of the data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPlan {
    /// Column of Table 1, such as `"D"`; or, under the key `stages`, a custom network, such as `[[64], [128], [256, 256]]`.
    #[serde(alias = "stages")]
    pub config: Config,
    /// Number of classes; that of the data set if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Factor on the numbers of filters; the paper: 1.
    #[serde(default = "paper_width")]
    pub width: f64,
    /// Outputs of fc6 and fc7; the paper: 4096 each.
    #[serde(default = "paper_head")]
    pub head: [usize; 2],
    /// Rate of dropout; the paper: 0.5.
    pub dropout: f32,
    /// Formula of local response normalisation.
    pub lrn_style: LrnStyle,
    /// How pooling rounds.
    pub pool_rounding: PoolRounding,
    /// Weights at the start.
    pub init: InitPlan,
    /// Layers that learn; all of them if not given.
    #[serde(default, alias = "trainable", skip_serializing_if = "Option::is_none")]
    pub train_layers: Option<Vec<String>>,
}

/// Weights at the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitPlan {
    /// Distribution of what is drawn at random.
    pub scheme: Init,
    /// A weights file to start from; in a table, the name of another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Which of its layers are taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayerSelection>,
}

/// What a run sees of its training images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPlan {
    /// Data set: a folder with `train/<class>/*` and `val/<class>/*`, or shards. Has no place in a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<PathBuf>,
    /// Smallest side after rescaling: the two ends of scale jitter, equal if it is fixed. A file may give one number.
    #[serde(with = "scale_range")]
    pub train_scale: [usize; 2],
    /// Side of the training crop in pixels; the paper: 224.
    pub crop: usize,
    /// Interpolation.
    pub interpolation: Interpolation,
    /// Whether half of the images are mirrored.
    pub flip: bool,
    /// Standard deviation of the colour shift's factors; the paper: 0.1; 0 for none.
    pub pca_jitter_std: f64,
    /// Factor on pixels.
    pub pixel_scale: PixelScale,
    /// What to do about an image that cannot be decoded.
    pub on_bad_image: OnBadImage,
    /// Whether prepared images may be enlarged beyond what they were reduced to. Of no account for anything else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enlarge: bool,
}

/// Factor on pixels of 0..255 after the mean was subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    expecting = "pixel_scale must be a number, \"unit-variance\", \"inherit\" or \"torchvision\""
)]
pub enum PixelScale {
    /// One over the standard deviation of the training pixels.
    UnitVariance,
    /// Mean, factor and divisors of the network that the run starts from.
    Inherit,
    /// torchvision's custom: its mean, 1/255, and its divisors.
    Torchvision,
    /// This; the paper: 1.
    #[serde(untagged)]
    Fixed(f32),
}

/// SGD and how a mini-batch is cut.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerPlan {
    /// Where the learning rate enters.
    pub momentum_variant: MomentumVariant,
    /// Images in a mini-batch; the paper: 256.
    pub batch: usize,
    /// Images that go through the network together.
    pub micro_batch: usize,
    /// What is kept of the velocity; the paper: 0.9.
    pub momentum: f32,
    /// L2 penalty; the paper: 5e-4.
    pub weight_decay: f32,
    /// Whether biases decay too.
    pub decay_biases: bool,
    /// Factor on the learning rate of biases.
    pub bias_lr_mult: f32,
}

/// Validation after an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationPlan {
    /// Always [`Protocol::Centre`]: one view of each image.
    pub protocol: Protocol,
    /// Smallest side of the images whose central crop is validated.
    pub test_scale: usize,
    /// Epochs between validations; the last is always validated.
    pub every_epochs: usize,
}

/// Seed and length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunLength {
    /// Seed of weights, data and dropout.
    pub seed: u64,
    /// Epochs at most.
    pub max_epochs: usize,
}

impl RunPlan {
    /// The network for a data set of so many classes.
    ///
    /// # Errors
    /// [`Error::Plan`] if another number was planned.
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

    /// How the network learns.
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

    /// Smallest side in training: one value, or the two ends of scale jitter.
    pub fn train_scale(&self) -> Vec<usize> {
        let [low, high] = self.data.train_scale;
        if low == high { vec![low] } else { vec![low, high] }
    }

    /// Checks what can be checked without data.
    ///
    /// # Errors
    /// [`Error::Plan`] or those of network and schedule.
    pub fn check(&self) -> Result<()> {
        let spec = self.spec(self.network.classes.unwrap_or(1000))?;
        self.check_layers(&spec)?;
        self.train_config().check()?;
        self.check_sides(spec.crop)?;
        let found = self.batch_fault().or_else(|| self.pixel_fault()).or_else(|| self.init_fault());
        found.map_or(Ok(()), |what| Err(self.bad(what)))
    }

    /// Checks that the weights file that the run starts from, if any, is there and fits. Not for a run of a table, which names
    /// another run.
    ///
    /// # Errors
    /// [`Error::Weights`] if it cannot be read, [`Error::Network`] if a layer to copy is missing or differs.
    pub fn check_start(&self) -> Result<()> {
        let (Some(path), Some(map)) = (&self.network.init.from, &self.network.init.layers) else {
            return Ok(());
        };
        let from = vgg_weights::read_metadata(path.as_ref())?.spec;
        Ok(map.check(&from, &self.spec(self.network.classes.unwrap_or(from.classes))?)?)
    }

    fn bad(&self, what: String) -> Error {
        Error::Plan(format!("run {}: {what}", self.name))
    }

    fn check_layers(&self, spec: &NetworkSpec) -> Result<()> {
        let layers = spec.layers()?;
        if self.network.train_layers.as_ref().is_some_and(Vec::is_empty) {
            return Err(self.bad("train_layers names no layer, so that nothing would be trained".into()));
        }
        for name in self.network.train_layers.iter().flatten() {
            if !layers.iter().any(|l| l.name == *name && l.weight_shape().is_some()) {
                return Err(self.bad(format!("config {} has no layer {name} to train", spec.config)));
            }
        }
        Ok(())
    }

    fn check_sides(&self, crop: usize) -> Result<()> {
        let [low, high] = self.data.train_scale;
        if low > high || low < crop || high > MAX_SIDE {
            return Err(self.bad(format!(
                "train_scale [{low}, {high}] must be ascending, at least the crop, {crop}, and at most {MAX_SIDE}"
            )));
        }
        let side = self.validate.test_scale;
        if !(crop..=MAX_SIDE).contains(&side) {
            return Err(self
                .bad(format!("validate.test_scale {side} is not between the crop, {crop}, and {MAX_SIDE}")));
        }
        if self.validate.protocol != Protocol::Centre {
            let what = "validate.protocol must be centre: validation in training is by the central crop";
            return Err(self.bad(what.into()));
        }
        Ok(())
    }

    fn batch_fault(&self) -> Option<String> {
        let OptimizerPlan { batch, micro_batch, .. } = self.optimizer;
        if batch == 0 {
            return Some("batch must be at least 1".into());
        }
        (micro_batch > MAX_MICRO_BATCH).then(|| {
            format!("micro_batch {micro_batch} is more than {MAX_MICRO_BATCH}, the most that go together")
        })
    }

    fn pixel_fault(&self) -> Option<String> {
        let std = self.data.pca_jitter_std;
        if !(std >= 0.0 && std.is_finite()) {
            return Some(format!("pca_jitter_std {std} must be a finite number of at least 0"));
        }
        match self.data.pixel_scale {
            PixelScale::Fixed(scale) if !(scale > 0.0 && scale.is_finite()) => {
                Some(format!("pixel_scale {scale} must be above 0"))
            }
            PixelScale::Inherit if self.network.init.from.is_none() => {
                Some("pixel_scale is \"inherit\", but the run starts from no other network".into())
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

/// A smallest side: one number if it is fixed, or the two ends of scale jitter.
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
