//! What a file that describes a run may contain.

use std::path::PathBuf;

use serde::Deserialize;
use vgg_data::{Filter, OnBadImage};
use vgg_eval::Protocol;
use vgg_layers::{Config, Init, LrnStyle, PoolRounding};
use vgg_train::{Schedule, SgdForm};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunFile {
    /// Which row of the paper this is, for people.
    #[serde(default, rename = "paper")]
    _paper: Option<String>,
    pub(super) network: Network,
    pub(super) data: Data,
    pub(super) optimizer: Optimizer,
    pub(super) schedule: Schedule,
    pub(super) validate: Validate,
    pub(super) run: Run,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) config: Config,
    /// As many as the data set has, if not given.
    pub(super) classes: Option<usize>,
    #[serde(default = "paper_width")]
    pub(super) width: f64,
    #[serde(default = "paper_head")]
    pub(super) head: [usize; 2],
    pub(super) dropout: f32,
    pub(super) lrn_style: LrnStyle,
    pub(super) pool_rounding: PoolRounding,
    pub(super) init: InitFrom,
    /// All layers, if not given.
    #[serde(alias = "trainable")]
    pub(super) train_layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InitFrom {
    pub(super) fresh: Init,
    /// A weights file; in a table, the name of another run.
    pub(super) from: Option<String>,
    #[serde(alias = "layers")]
    pub(super) map: Option<Map>,
}

/// Which layers are taken over.
#[derive(Deserialize)]
#[serde(untagged, expecting = "map must be \"paper\", \"all\" or a list of layers")]
pub(super) enum Map {
    Named(NamedMap),
    Layers(Vec<String>),
}

#[derive(Deserialize)]
pub(super) enum NamedMap {
    #[serde(rename = "paper")]
    Paper,
    #[serde(rename = "all", alias = "all-matching")]
    All,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Data {
    pub(super) dataset: Option<PathBuf>,
    pub(super) train_side: Sides,
    pub(super) crop: usize,
    pub(super) filter: Filter,
    pub(super) flip: bool,
    pub(super) colour_shift_std: f64,
    pub(super) pixel_scale: Scale,
    pub(super) on_bad_image: OnBadImage,
    #[serde(default)]
    pub(super) enlarge: bool,
}

/// A fixed side, or the two ends of scale jitter.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged, expecting = "train_side must be one side, such as 256, or two, such as [256, 512]")]
pub(super) enum Sides {
    Fixed(usize),
    Ends([usize; 2]),
    One([usize; 1]),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "pixel_scale must be a number, \"unit-variance\", \"as-start\" or \"torchvision\""
)]
pub(super) enum Scale {
    Fixed(f32),
    Named(NamedScale),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NamedScale {
    UnitVariance,
    AsStart,
    Torchvision,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Optimizer {
    pub(super) form: SgdForm,
    pub(super) batch: usize,
    pub(super) micro_batch: usize,
    pub(super) momentum: f32,
    pub(super) weight_decay: f32,
    pub(super) decay_biases: bool,
    pub(super) bias_lr: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Validate {
    pub(super) protocol: Protocol,
    pub(super) test_side: usize,
    pub(super) every_epochs: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    pub(super) seed: u64,
    pub(super) max_epochs: usize,
}

fn paper_width() -> f64 {
    1.0
}

fn paper_head() -> [usize; 2] {
    [4096, 4096]
}
