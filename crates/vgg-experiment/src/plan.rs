//! What a table takes: training runs, how they follow from each other, and which of them make its rows.

use std::path::PathBuf;

use serde::Serialize;
use vgg_data::{Filter, MAX_SIDE, OnBadImage};
use vgg_eval::Evaluation;
use vgg_layers::{Config, Init, LrnStyle, NetworkSpec, PoolRounding, TransferMap};
use vgg_train::TrainConfig;

use crate::{Error, Result};

/// Images that a network takes at once.
const MAX_MICRO_BATCH: usize = 256;

/// A table of the paper whose rows need training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TablePlan {
    /// Stem of its files, such as `table3`.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// Which recipe, such as `mini`.
    pub profile: String,
    /// What was changed in the recipe, such as `base.run.seed=2`.
    pub changes: Vec<String>,
    /// The runs in any order.
    pub runs: Vec<RunPlan>,
    /// The rows in order.
    pub rows: Vec<RowPlan>,
}

/// One training run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunPlan {
    /// What other runs and rows call it, such as `C/256`.
    pub name: String,
    /// The network.
    pub network: NetworkPlan,
    /// Its weights at the start.
    pub init: InitPlan,
    /// What it sees.
    pub data: DataPlan,
    /// How it learns.
    pub train: TrainConfig,
    /// Images in a mini-batch.
    pub batch: usize,
    /// Smallest side of the images whose centre crop is validated.
    pub validate_side: usize,
    /// Whether it is a result, and no failure, that the loss does not stay finite.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub may_diverge: bool,
    /// Layers that learn; all of them if not given.
    pub train_layers: Option<Vec<String>>,
}

/// A network whose number of classes may be that of the data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkPlan {
    /// Column of Table 1.
    pub config: Config,
    /// Factor on the numbers of filters; the paper: 1.
    pub width: f64,
    /// Number of classes, if it is to be checked.
    pub classes: Option<usize>,
    /// Outputs of fc6 and fc7; the paper: 4096 each.
    pub head: [usize; 2],
    /// Side of the training crop; the paper: 224.
    pub crop: usize,
    /// Rate of dropout; the paper: 0.5.
    pub dropout: f32,
    /// Formula of local response normalisation.
    pub lrn_style: LrnStyle,
    /// How pooling rounds.
    pub pool_rounding: PoolRounding,
}

/// Weights at the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InitPlan {
    /// Distribution of what is drawn at random.
    pub fresh: Init,
    /// Where the rest comes from.
    pub from: Option<Start>,
}

/// A network to start from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Start {
    /// The network.
    pub source: Source,
    /// Which layers are taken over.
    pub map: TransferMap,
}

/// Where a network comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Another run of the same table.
    Run(String),
    /// A weights file.
    File(PathBuf),
}

/// What a run sees of its training images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataPlan {
    /// Smallest side after rescaling: the two ends of scale jitter, equal if it is fixed.
    pub train_side: [usize; 2],
    /// Interpolation.
    pub filter: Filter,
    /// Whether half of the images are mirrored.
    pub flip: bool,
    /// Standard deviation of the colour shift's factors; the paper: 0.1; 0 for none.
    pub colour_shift_std: f64,
    /// Factor on pixels.
    pub pixel_scale: PixelScale,
    /// What to do about an image that cannot be decoded.
    pub on_bad_image: OnBadImage,
    /// Whether prepared images may be enlarged beyond what they were reduced to. Of no account for anything else.
    #[serde(skip)]
    pub enlarge: bool,
}

/// Factor on pixels of 0..255 after the mean was subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PixelScale {
    /// This; the paper: 1.
    Fixed(f32),
    /// One over the standard deviation of the training pixels.
    UnitVariance,
    /// Mean, factor and divisors of the network that the run starts from.
    AsStart,
    /// torchvision's custom: its mean, 1/255, and its divisors.
    Torchvision,
}

/// One row of a table: what its networks say, on average.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowPlan {
    /// What it is called, if that is not the configuration.
    pub label: Option<String>,
    /// Networks with their protocols; the row is the mean of their posteriors.
    pub members: Vec<MemberPlan>,
    /// Which row of the paper stands beside it, such as `C/256`.
    pub paper: String,
}

/// A network of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberPlan {
    /// The run whose network is evaluated.
    pub run: String,
    /// How.
    pub evaluation: Evaluation,
}

impl NetworkPlan {
    /// The network for a data set of so many classes.
    ///
    /// # Errors
    /// [`Error::Plan`] if another number was planned.
    pub fn spec(&self, classes: usize) -> Result<NetworkSpec> {
        if let Some(planned) = self.classes.filter(|planned| *planned != classes) {
            return Err(Error::Plan(format!(
                "network.classes is {planned}, but the data set has {classes} classes"
            )));
        }
        let NetworkPlan { config, width, head, crop, dropout, lrn_style, pool_rounding, .. } = *self;
        Ok(NetworkSpec { config, width, classes, head, crop, dropout, lrn_style, pool_rounding })
    }
}

impl RunPlan {
    /// Smallest side in training: one value, or the two ends of scale jitter.
    pub fn train_side(&self) -> Vec<usize> {
        let [low, high] = self.data.train_side;
        if low == high { vec![low] } else { vec![low, high] }
    }

    /// The run that this one starts from.
    pub fn parent(&self) -> Option<&str> {
        match &self.init.from {
            Some(Start { source: Source::Run(name), .. }) => Some(name),
            _ => None,
        }
    }

    /// Checks what can be checked without data.
    ///
    /// # Errors
    /// [`Error::Plan`] or those of network and schedule.
    pub fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::Plan(format!("run {}: {what}", self.name)));
        let spec = self.network.spec(self.network.classes.unwrap_or(1000))?;
        let layers = spec.layers()?;
        self.train.check()?;
        let crop = spec.crop;
        let [low, high] = self.data.train_side;
        if low > high || low < crop || high > MAX_SIDE {
            return bad(format!(
                "train_side [{low}, {high}] must be ascending, at least the crop, {crop}, and at most {MAX_SIDE}"
            ));
        }
        if !(crop..=MAX_SIDE).contains(&self.validate_side) {
            let side = self.validate_side;
            return bad(format!("validate.test_side {side} is not between the crop, {crop}, and {MAX_SIDE}"));
        }
        if self.batch == 0 {
            return bad("batch must be at least 1".into());
        }
        if self.train.micro_batch > MAX_MICRO_BATCH {
            let micro_batch = self.train.micro_batch;
            return bad(format!(
                "micro_batch {micro_batch} is more than {MAX_MICRO_BATCH}, the most that go together"
            ));
        }
        if !(self.data.colour_shift_std >= 0.0 && self.data.colour_shift_std.is_finite()) {
            return bad(format!("colour_shift_std {} must not be negative", self.data.colour_shift_std));
        }
        if let PixelScale::Fixed(scale) = self.data.pixel_scale
            && !(scale > 0.0 && scale.is_finite())
        {
            return bad(format!("pixel_scale {scale} must be above 0"));
        }
        if self.data.pixel_scale == PixelScale::AsStart && self.init.from.is_none() {
            return bad("pixel_scale is \"as-start\", but the run starts from no other network".into());
        }
        if self.train_layers.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::Plan("trainable names no layer, so that nothing would be trained".into()));
        }
        for name in self.train_layers.iter().flatten() {
            if !layers.iter().any(|l| l.name == *name && l.weight_shape().is_some()) {
                return bad(format!("config {} has no layer {name} to train", spec.config));
            }
        }
        Ok(())
    }

    /// Checks that the weights file that the run starts from, if any, is there and fits.
    ///
    /// # Errors
    /// [`Error::Weights`] if it cannot be read, [`Error::Network`] if a layer to copy is missing or differs.
    pub fn check_start(&self) -> Result<()> {
        let Some(Start { source: Source::File(path), map }) = &self.init.from else { return Ok(()) };
        let from = vgg_weights::read_metadata(path)?.spec;
        Ok(map.check(&from, &self.network.spec(self.network.classes.unwrap_or(from.classes))?)?)
    }
}

impl TablePlan {
    /// The run of this name.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is none.
    pub fn run(&self, name: &str) -> Result<&RunPlan> {
        let known = || self.runs.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.runs.iter().find(|run| run.name == name);
        found.ok_or_else(|| Error::Plan(format!("there is no run {name}; there are {}", known())))
    }

    /// Leaves out the runs that no row needs, neither itself nor as what another starts from.
    ///
    /// # Errors
    /// [`Error::Plan`] if a row or a run names one that is not there.
    pub fn needed(mut self) -> Result<TablePlan> {
        let mut names: Vec<String> =
            self.rows.iter().flat_map(|row| &row.members).map(|member| member.run.clone()).collect();
        let mut next = 0;
        while next < names.len() {
            let parent = self.run(&names[next])?.parent().map(str::to_owned);
            names.extend(parent.filter(|parent| !names.contains(parent)));
            next += 1;
        }
        self.runs.retain(|run| names.contains(&run.name));
        Ok(self)
    }

    /// The runs in an order in which each comes after the one that it starts from, otherwise as planned.
    ///
    /// # Errors
    /// [`Error::Plan`] if a name is missing or stands twice, or runs wait for each other; those of
    /// [`RunPlan::check`] and of the evaluations.
    pub fn ordered(&self) -> Result<Vec<&RunPlan>> {
        let mut ordered: Vec<&RunPlan> = Vec::new();
        for run in &self.runs {
            run.check()?;
            if self.runs.iter().filter(|other| other.name == run.name).count() > 1 {
                return Err(Error::Plan(format!("two runs are named {}", run.name)));
            }
        }
        for row in &self.rows {
            if row.members.is_empty() {
                return Err(Error::Plan(format!("row {} has no network", row.paper)));
            }
            for member in &row.members {
                member.evaluation.views(self.run(&member.run)?.network.crop)?;
            }
        }
        for run in &self.runs {
            let mut chain = vec![run];
            while let Some(Start { source: Source::Run(parent), map }) = &chain[chain.len() - 1].init.from {
                let (parent, child) = (self.run(parent)?, chain[chain.len() - 1]);
                let classes = child.network.classes.or(parent.network.classes).unwrap_or(1000);
                map.check(&parent.network.spec(classes)?, &child.network.spec(classes)?)?;
                if chain.iter().any(|link| link.name == parent.name) {
                    return Err(Error::Plan(format!("run {} starts from itself", parent.name)));
                }
                chain.push(parent);
            }
            let fresh = chain.into_iter().rev().filter(|link| !ordered.iter().any(|o| o.name == link.name));
            ordered.extend(fresh.collect::<Vec<_>>());
        }
        Ok(ordered)
    }
}
