//! One training run: from a plan and a data set to weights in a directory.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vgg_data::{AugmentConfig, Loader, LoaderConfig, Partition, PcaJitter, PixelStatistics};
use vgg_error::printable;
use vgg_eval::{
    DensePool, EvalModel, EvaluateOptions, Evaluation, Posteriors, Preprocessing, Protocol, evaluate,
    rank_partition,
};
use vgg_files::{Hash, Lock, hash_bytes, hash_file, read_json, write_json};
use vgg_layers::{Device, Network};
use vgg_tensor::ProcessGroup;
use vgg_train::{
    Checkpoints, EpochMetrics, Resume, Trainer, Training, WEIGHTS_FILE, has_checkpoints, refuse_other,
};
use vgg_weights::{ChannelOrder, Pixels, TransferReport, WeightsMetadata};

use crate::identity::{FORMAT, PixelNormalization, RunIdentity, deciding};
use crate::ranks::{from_first, shared_out};
use crate::{Dataset, Error, NetworkPlan, PixelScale, Result, RunPlan};

/// Written at the start: the run's settings and identity.
const RUN_FILE: &str = "run.json";
/// Written at the end: the result of the finished run.
const RESULT_FILE: &str = "result.json";

/// What several runs share.
pub struct RunContext<'a> {
    /// Device of the networks.
    pub device: &'a Device,
    /// Data set for training and evaluation.
    pub dataset: &'a Dataset,
    /// Statistics of the training pixels.
    pub statistics: &'a PixelStatistics,
    /// Number of threads that decode images. Does not affect results.
    pub workers: usize,
    /// The process group that trains together. Rank 0 writes files.
    pub group: Arc<dyn ProcessGroup>,
    /// When to save checkpoints in addition to the end of every epoch.
    pub checkpoints: Checkpoints,
    /// Paths of settings in the run's identity that may differ when a run is resumed.
    pub allow_changes: &'a [String],
    /// Polled before every step; on `true`, the run saves a checkpoint and stops.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// Progress of a run.
#[derive(Debug)]
pub enum RunEvent<'a> {
    /// The run is already finished; nothing is trained.
    Cached(&'a FinishedRun),
    /// The network is initialised and training starts.
    Begins {
        /// Number of training images.
        images: usize,
        /// The layers loaded from other weights and those initialised, if the run starts from weights.
        transfer: Option<&'a TransferReport>,
    },
    /// An event of training.
    Training(vgg_train::Event<'a>),
    /// Validation skipped an image: path and reason. Sent once per image, after training.
    Skipped(&'a str),
}

/// The result of a finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FinishedRun {
    /// Hash of the run's identity.
    pub identity: Hash,
    /// Number of epochs trained.
    pub epochs: usize,
    /// Hash of the weights file.
    pub weights: Hash,
    /// Metrics of the last epoch.
    pub last: EpochMetrics,
    /// Directory of the run.
    #[serde(skip)]
    pub dir: PathBuf,
}

/// A run ready to train: its specification, initial weights and identity.
pub struct PreparedRun<'a> {
    plan: &'a RunPlan,
    metadata: WeightsMetadata,
    start: Option<PathBuf>,
    identity: Value,
}

impl FinishedRun {
    /// Path of the trained weights.
    pub fn weights_file(&self) -> PathBuf {
        self.dir.join(WEIGHTS_FILE)
    }

    /// The finished run in `dir`, if there is one whose weights are intact. A run of another identity is
    /// passed to `refuse`; if that accepts the differences, training is to be continued.
    fn find(dir: &Path, identity: &Hash, refuse: impl FnOnce() -> Result<()>) -> Result<Option<FinishedRun>> {
        let mut found: FinishedRun = match read_json(&dir.join(RESULT_FILE)) {
            Ok(found) => found,
            Err(e) if e.is_missing() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        found.dir = dir.to_owned();
        if found.identity != *identity {
            refuse()?;
            if !has_checkpoints(dir)? {
                let dir = printable(dir);
                return Err(Error::Plan(format!(
                    "{dir} holds a finished run and no checkpoint to resume from; choose another directory"
                )));
            }
            return Ok(None);
        }
        let weights = found.weights_file();
        if hash_file(&weights)? != found.weights {
            let reason = "its contents are not what the run wrote; remove the run's directory to train again";
            return Err(vgg_files::Error::Corrupt { path: weights, reason: reason.into() }.into());
        }
        Ok(Some(found))
    }
}

/// The pixel normalisation of a run.
fn pixels(plan: &RunPlan, start: Option<&PathBuf>, context: &RunContext) -> Result<PixelNormalization> {
    let mean_rgb = context.statistics.mean().map(|m| m as f32);
    let std_rgb = [1.0; 3];
    Ok(match (plan.data.pixel_scale, start) {
        (PixelScale::Fixed(scale), _) => PixelNormalization { mean_rgb, scale, std_rgb },
        (PixelScale::UnitVariance, _) => {
            let scale = context.statistics.unit_variance_scale() as f32;
            PixelNormalization { mean_rgb, scale, std_rgb }
        }
        (PixelScale::Torchvision, _) => {
            let (mean_rgb, scale, std_rgb, _) = Pixels::Torchvision.convention();
            PixelNormalization { mean_rgb, scale, std_rgb }
        }
        (PixelScale::Inherit, Some(path)) => {
            let WeightsMetadata { mean_rgb, pixel_scale: scale, std_rgb, .. } =
                vgg_weights::read_metadata(path)?;
            PixelNormalization { mean_rgb, scale, std_rgb }
        }
        (PixelScale::Inherit, None) => return Err(Error::Plan("inherit needs network.init.from".into())),
    })
}

impl<'a> PreparedRun<'a> {
    /// Prepares a run. `parent` is the run that it starts from, if the plan names one.
    ///
    /// # Errors
    /// [`Error::Plan`] if the plan does not fit the data set; errors of reading the initial weights.
    pub fn new(
        plan: &'a RunPlan,
        parent: Option<&FinishedRun>,
        context: &RunContext,
    ) -> Result<PreparedRun<'a>> {
        plan.check()?;
        context.dataset.check_plan(plan)?;
        let classes = context.dataset.train.classes();
        let start = match (parent, &plan.network.init.from) {
            (Some(run), _) => Some((run.weights_file(), run.weights.clone())),
            (None, Some(path)) => {
                plan.check_start()?;
                Some((path.into(), hash_file(path.as_ref())?))
            }
            (None, None) => None,
        };
        let pixels = pixels(plan, start.as_ref().map(|(path, _)| path), context)?;
        let metadata = WeightsMetadata {
            spec: plan.spec(classes.len())?,
            classes: classes.to_vec(),
            channel_order: ChannelOrder::Rgb,
            pixel_scale: pixels.scale,
            mean_rgb: pixels.mean_rgb,
            std_rgb: pixels.std_rgb,
            train_scale: plan.train_scale(),
            geometry: plan.data.geometry.to_string(),
        };
        let identity = RunIdentity {
            format: FORMAT,
            settings: deciding(plan, classes.len()),
            start: start.as_ref().map(|(_, hash)| hash),
            dataset: &context.dataset.hash,
            pixels,
            numerics: context.device.numerics(),
        };
        let identity = identity.to_json()?;
        Ok(PreparedRun { plan, metadata, start: start.map(|(path, _)| path), identity })
    }

    /// Hash of everything that determines the run: network, data, optimiser, schedule, seed, initial weights,
    /// and the instruction set and convolution algorithm, which affect rounding.
    pub fn identity(&self) -> Hash {
        hash_bytes(self.identity.to_string().as_bytes())
    }

    /// Trains in `dir`, resuming an earlier attempt; `None` if interrupted.
    ///
    /// A finished run is not trained again. The directory holds `run.json` (settings and identity), metrics,
    /// checkpoints while the run is unfinished, and finally the weights and `result.json`.
    ///
    /// # Errors
    /// [`Error::Train`], such as [`vgg_train::Error::OtherRun`] if `dir` holds a run of another identity.
    pub fn train(
        &self,
        dir: &Path,
        resume: Resume,
        context: &RunContext,
        events: &mut dyn FnMut(RunEvent),
    ) -> Result<Option<FinishedRun>> {
        let first = context.group.rank() == 0;
        let _lock = first.then(|| Lock::acquire(dir)).transpose()?;
        let identity = self.identity();
        let found = from_first(&*context.group, || {
            let refuse = || self.refuse_other(dir, context);
            let found = FinishedRun::find(dir, &identity, refuse)?;
            if found.is_none() {
                refuse()?;
            }
            Ok(found)
        })?;
        if let Some(finished) = found {
            let finished = FinishedRun { dir: dir.to_owned(), ..finished };
            events(RunEvent::Cached(&finished));
            return Ok(Some(finished));
        }
        let (mut network, transfer) = self.network(context.device)?;
        if first {
            self.describe(dir, &identity, transfer.as_ref(), context)?;
        }
        let images = context.dataset.train.len();
        events(RunEvent::Begins { images, transfer: transfer.as_ref() });
        let mut loader = self.loader(context)?;
        // Collected for after training, as `events` is borrowed until then.
        let mut skipped = Vec::new();
        let mut validate = |network: &Network| {
            let own = match self.validate(network, context) {
                Err(vgg_eval::Error::Interrupted) => None,
                other => Some(other?),
            };
            let validation = shared_out(own.as_ref(), &*context.group)?;
            skipped = own.map(|posteriors| posteriors.skipped).unwrap_or_default();
            Ok(validation)
        };
        let outcome = Trainer::new(Training {
            network: &mut network,
            metadata: &self.metadata,
            loader: &mut loader,
            config: &self.plan.train_config(),
            identity: self.identity.clone(),
            allow_changes: context.allow_changes,
            group: context.group.clone(),
            dir: Some(dir),
            checkpoints: context.checkpoints,
            resume,
            validate: &mut validate,
            events: &mut |event| events(RunEvent::Training(event)),
            interrupted: context.interrupted,
        })?
        .run()?;
        skipped.iter().for_each(|bad| events(RunEvent::Skipped(bad)));
        let last = outcome.metrics.last().cloned();
        let Some(last) = last.filter(|_| !outcome.interrupted) else { return Ok(None) };
        let epochs = outcome.metrics.len();
        let finished = from_first(&*context.group, || {
            let weights = hash_file(&dir.join(WEIGHTS_FILE))?;
            let finished = FinishedRun { identity, epochs, weights, last, dir: dir.to_owned() };
            write_json(&dir.join(RESULT_FILE), &finished)?;
            Ok(finished)
        })?;
        Ok(Some(FinishedRun { dir: dir.to_owned(), ..finished }))
    }

    /// The network with its initial weights.
    fn network(&self, device: &Device) -> Result<(Network, Option<TransferReport>)> {
        let NetworkPlan { init, train_layers, .. } = &self.plan.network;
        let seed = self.plan.run.seed;
        let mut network = Network::random(self.metadata.spec.clone(), init.scheme, seed, device)?;
        let transfer = match (&self.start, &init.layers) {
            (Some(path), Some(map)) => Some(vgg_weights::load_layers(path, map, &mut network)?),
            _ => None,
        };
        if let Some(layers) = train_layers {
            network.train_only(layers)?;
        }
        Ok((network, transfer))
    }

    fn loader(&self, context: &RunContext) -> Result<Loader> {
        let (data, std) = (&self.plan.data, self.plan.data.pca_jitter_std);
        let augment = AugmentConfig {
            train_scale: data.train_scale,
            crop: self.metadata.spec.crop,
            interpolation: data.interpolation,
            geometry: data.geometry,
            flip: data.flip,
            pca_jitter: (std > 0.0).then(|| PcaJitter::new(context.statistics, std)),
        };
        let config = LoaderConfig {
            augment,
            mean_rgb: self.metadata.mean_rgb,
            batch: self.plan.optimizer.batch,
            seed: self.plan.run.seed,
            on_bad_image: data.on_bad_image,
            workers: context.workers,
            partition: Partition { index: context.group.rank(), count: context.group.size() },
        };
        Ok(Loader::new(context.dataset.train.clone(), config)?)
    }

    /// Validates one centre crop per image.
    fn validate(&self, network: &Network, context: &RunContext) -> vgg_eval::Result<Posteriors> {
        let evaluation = Evaluation {
            protocol: Protocol::Centre,
            test_scales: vec![self.plan.validate.test_scale],
            flip: false,
            interpolation: self.plan.data.interpolation,
            geometry: self.plan.data.geometry,
            dense_pool: DensePool::ScoreMean,
            pool_rounding: None,
        };
        let (offset, scale) = self.metadata.offset_and_scale();
        let on_bad_image = self.plan.data.on_bad_image;
        // Each rank evaluates its part.
        let part = rank_partition(&*context.group);
        let options = EvaluateOptions { workers: context.workers, on_bad_image, part };
        let model = EvalModel::borrowed(network, Preprocessing { offset, scale });
        evaluate(&model, &context.dataset.val, &evaluation, options, &mut |_| {
            if (context.interrupted)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    /// Refuses a directory with a run of another identity, except for allowed changes.
    fn refuse_other(&self, dir: &Path, context: &RunContext) -> Result<()> {
        match read_json::<Value>(&dir.join(RUN_FILE)) {
            Ok(run) => Ok(refuse_other(dir, &run["determined_by"], &self.identity, context.allow_changes)?),
            Err(e) if e.is_missing() => refuse_foreign(dir),
            Err(e) => Err(e.into()),
        }
    }

    /// The settings that reproduce this run, with absolute paths; a data set's that is not UTF-8 is left out.
    fn recorded(&self, context: &RunContext) -> RunPlan {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut settings = self.plan.clone();
        let dataset = absolute(context.dataset.train.root());
        settings.data.dataset = dataset.to_str().is_some().then_some(dataset);
        settings.network.init.from = self.start.as_ref().map(|path| printable(&absolute(path)).to_string());
        settings
    }

    /// Writes `run.json`.
    fn describe(
        &self,
        dir: &Path,
        identity: &Hash,
        transfer: Option<&TransferReport>,
        context: &RunContext,
    ) -> Result<()> {
        let what = json!({
            "settings": self.recorded(context),
            "identity": identity,
            "determined_by": self.identity,
            "parameters": self.metadata.spec.parameter_count()?,
            "transfer": transfer,
            "device": context.device.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "started_unix_s": std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs()),
        });
        Ok(write_json(&dir.join(RUN_FILE), &what)?)
    }
}

/// Refuses a directory that holds no run, but files with names that a run writes.
fn refuse_foreign(dir: &Path) -> Result<()> {
    let names = [WEIGHTS_FILE, "checkpoints", "metrics.jsonl", "metrics.csv", "timing.jsonl"];
    let Some(name) = names.into_iter().find(|name| dir.join(name).exists()) else { return Ok(()) };
    Err(Error::Plan(format!("{} holds no run, but has {name}; choose another directory", printable(dir))))
}
