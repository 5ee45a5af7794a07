//! Options that several commands share.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use vgg::Pretrained;
use vgg::system::free_memory_bytes;
use vgg_data::{ImageSet, Interpolation};
use vgg_eval::{DensePool, Evaluation, Protocol};
use vgg_experiment::Dataset;
use vgg_layers::{Config, NetworkSpec, Stages};
use vgg_tensor::{ConvAlgorithm, Device, DeviceConfig, DeviceKind, Engines, Precision};

use super::ranks::Ranks;
use crate::console::note;
use crate::exit::UsageError;

/// Where to compute.
#[derive(Args)]
pub(super) struct DeviceOptions {
    /// auto, cpu, cuda or cuda:N. Each of several ranks on a machine takes a GPU of its own.
    #[arg(long, default_value = "auto", value_parser = device_choice)]
    device: DeviceChoice,
    /// Threads; 0 takes one per core. Results do not depend on it.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// auto, direct, winograd2, winograd4 or winograd6: how 3x3 convolutions are computed. Another choice gives
    /// other last digits.
    #[arg(long, default_value = "auto", value_parser = conv_choice)]
    conv_algorithm: ConvAlgorithm,
    /// bf16, tf32 or f32: what a GPU computes in. A CPU computes in f32.
    #[arg(long, default_value = "bf16", value_parser = precision)]
    precision: Precision,
    /// Whether a GPU may only use engines that give the same bits each time.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    deterministic: bool,
    /// Threads that decode images; 0 takes one per core. Results do not depend on it.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1024))]
    workers: u16,
    /// Instruction set of the CPU, such as avx2+fma on a processor that has AVX-512 too, to get the digits of another
    /// machine. Default: the best there is.
    #[arg(long, value_name = "NAME")]
    instruction_set: Option<String>,
}

/// What the user said of the device.
#[derive(Clone, Copy)]
enum DeviceChoice {
    Auto,
    Cpu,
    /// A GPU, by its number if the user has one in mind.
    Cuda(Option<usize>),
}

impl DeviceOptions {
    /// Threads that decode images, for one of several ranks of this machine, which share its cores.
    pub(super) fn workers_among(&self, ranks: &Ranks) -> usize {
        match self.workers {
            0 => ranks.cores(),
            given => usize::from(given),
        }
    }

    /// Opens the device and says which it is.
    pub(super) fn open(&self) -> Result<Device> {
        self.open_as(0, 1, self.threads)
    }

    /// As [`DeviceOptions::open`] of one of several ranks of this machine, which share its cores and its GPUs.
    pub(super) fn open_among(&self, ranks: &Ranks) -> Result<Device> {
        let (rank, of) = ranks.local();
        let threads = if self.threads == 0 && of > 1 { ranks.cores() } else { self.threads };
        self.open_as(rank, of, threads)
    }

    fn open_as(&self, rank: usize, of: usize, threads: usize) -> Result<Device> {
        // Where a launcher shows each rank a GPU of its own, that is the only one, and the first.
        let own = || if of > 1 && Device::gpus() > 1 { rank } else { 0 };
        let (kind, auto_gpu) = match self.device {
            DeviceChoice::Auto => (DeviceKind::Auto, own()),
            DeviceChoice::Cpu => (DeviceKind::Cpu, 0),
            DeviceChoice::Cuda(number) => (DeviceKind::Cuda(number.unwrap_or_else(own)), 0),
        };
        let config = DeviceConfig {
            kind,
            auto_gpu,
            threads,
            conv: self.conv_algorithm,
            precision: self.precision,
            engines: if self.deterministic { Engines::Deterministic } else { Engines::Any },
            cache: cache_folder(),
            instruction_set: self.instruction_set.clone(),
        };
        let device = Device::open(&config)?;
        if let Some(reason) = device.why_not_cuda() {
            note(&format!("no GPU is used: {reason}"));
        }
        note(&format!("device: {}", device));
        Ok(device)
    }
}

fn conv_choice(name: &str) -> Result<ConvAlgorithm, String> {
    one_of(&ConvAlgorithm::ALL, name)
}

/// Where what a GPU needs is kept from run to run: `$XDG_CACHE_HOME/vgg`, or `~/.cache/vgg`.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    Some(cache.join("vgg"))
}

fn precision(name: &str) -> Result<Precision, String> {
    one_of(&Precision::ALL, name)
}

/// A parser of one of these values, whose names help lists.
pub(super) fn choice<T: Copy + Send + Sync + 'static>(
    all: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    let names = PossibleValuesParser::new(all.iter().map(|(name, _)| *name));
    names.try_map(move |name| one_of(all, &name))
}

/// What `name` stands for.
pub(super) fn one_of<T: Copy>(all: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = all.iter().find(|(known, _)| *known == name);
    let names = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found.map(|(_, value)| *value).ok_or_else(|| format!("it is one of {}", names()))
}

fn device_choice(name: &str) -> Result<DeviceChoice, String> {
    match (name, name.split_once(':')) {
        ("auto", _) => Ok(DeviceChoice::Auto),
        ("cpu", _) => Ok(DeviceChoice::Cpu),
        ("cuda", _) => Ok(DeviceChoice::Cuda(None)),
        (_, Some(("cuda", number))) => {
            let number = number.parse().map_err(|_| format!("{number} is no number of a GPU"))?;
            Ok(DeviceChoice::Cuda(Some(number)))
        }
        _ => Err("it is auto, cpu, cuda or cuda:N".into()),
    }
}

/// How test images are shown to a network.
#[derive(Args)]
pub(super) struct ViewOptions {
    /// centre (the central crop), dense (the whole image), multi-crop (a grid of 5 x 5 crops) or combined (the mean of
    /// dense and multi-crop); sections 3.2 and 4.3. Default: dense.
    #[arg(long)]
    pub(super) protocol: Option<Protocol>,
    /// Smallest image sides, such as 256,384,512; posteriors are averaged. Default: the network's training side,
    /// or the middle of its scale jitter.
    #[arg(long, value_delimiter = ',', value_parser = side)]
    test_scales: Vec<usize>,
    /// Whether the mirrored image is shown too. Default: with all but centre.
    #[arg(long)]
    flip: Option<bool>,
    /// bilinear, bicubic, lanczos or nearest.
    #[arg(long, default_value = "bilinear")]
    interpolation: Interpolation,
    /// How a dense map becomes one vector: score-mean, prob-mean or score-sum.
    /// Default: score-mean.
    #[arg(long)]
    dense_pool: Option<DensePool>,
    /// How pooling rounds odd sides in a dense map: floor or ceil. Default: as the weights file says.
    #[arg(long, value_parser = pool_rounding)]
    pool_rounding: Option<vgg_layers::PoolRounding>,
}

pub(super) fn side(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is no side in pixels; write 256,384,512"))
}

fn pool_rounding(name: &str) -> Result<vgg_layers::PoolRounding, String> {
    match name {
        "floor" => Ok(vgg_layers::PoolRounding::Floor),
        "ceil" => Ok(vgg_layers::PoolRounding::Ceil),
        _ => Err("it is floor or ceil".into()),
    }
}

impl ViewOptions {
    /// The protocol, with what was left open taken from the weights.
    pub(super) fn evaluation(&self, network: &Pretrained) -> Result<Evaluation> {
        let protocol = self.protocol.unwrap_or(Protocol::Dense);
        let test_scales = test_scales(&self.test_scales, network)?;
        let dense = matches!(protocol, Protocol::Dense | Protocol::Combined);
        let idle =
            [("--pool-rounding", self.pool_rounding.is_some()), ("--dense-pool", self.dense_pool.is_some())];
        if let Some((option, _)) = idle.iter().find(|(_, given)| *given && !dense) {
            let what = format!("{option} has no effect with --protocol {}", protocol.name());
            return Err(UsageError(what).into());
        }
        let evaluation = Evaluation {
            protocol,
            test_scales,
            flip: self.flip.unwrap_or(protocol.flips()),
            interpolation: self.interpolation,
            dense_pool: self.dense_pool.unwrap_or(DensePool::ScoreMean),
            pool_rounding: self.pool_rounding,
        };
        evaluation.views(network.metadata.spec.crop)?;
        Ok(evaluation)
    }
}

/// The test sides that were given, or else the side that the network was trained at.
pub(super) fn test_scales(given: &[usize], network: &Pretrained) -> Result<Vec<usize>> {
    if let Some(twice) = (1..given.len()).find(|&i| given[..i].contains(&given[i])) {
        return Err(UsageError(format!("--test-scales has {} twice", given[twice])).into());
    }
    Ok(if given.is_empty() { vec![network.default_test_scale()] } else { given.to_vec() })
}

/// A list of two numbers such as `4096,4096`.
pub(super) fn pair(text: &str) -> Result<[usize; 2], String> {
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|n| usize::from_str(n.trim())).collect();
    numbers.ok().and_then(|n| n.try_into().ok()).ok_or_else(|| "it is two numbers, such as 4096,4096".into())
}

/// A network that is described on the command line.
#[derive(Args)]
pub(super) struct NetworkArgs {
    /// A, A-LRN, B, B-5x5, C, D or E.
    #[arg(long)]
    config: Option<Config>,
    /// A custom network instead of --config: numbers of filters, stage by stage, as JSON, such as [[64],[128],[256,256]].
    /// Kernels are 3x3; {"filters":256,"kernel":1} sets the kernel size to 1 or 5.
    #[arg(long, value_parser = stages, conflicts_with = "config")]
    stages: Option<Stages>,
    /// Factor on the numbers of filters.
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Number of classes.
    #[arg(long, default_value_t = 1000)]
    classes: usize,
    /// Outputs of fc6 and fc7.
    #[arg(long, default_value = "4096,4096", value_parser = pair)]
    head: [usize; 2],
    /// Side of the crop in pixels, a multiple of 32; with --stages, of 2 to the power of the number of stages.
    #[arg(long, default_value_t = 224)]
    crop: usize,
}

impl NetworkArgs {
    /// The network.
    pub(super) fn spec(self) -> Result<NetworkSpec> {
        let NetworkArgs { config, stages, width, classes, head, crop } = self;
        let config = config.or(stages.map(Config::Custom));
        let config = config.ok_or_else(|| UsageError("either --config or --stages is required".into()))?;
        Ok(NetworkSpec { width, classes, head, crop, ..NetworkSpec::paper(config) })
    }
}

fn stages(text: &str) -> Result<Stages, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// Opens a data set, keeping decoded images in a quarter of the memory that is free, shared with other ranks, and says what is in it.
pub(super) fn open_dataset(root: &Path, ranks: &Ranks) -> Result<Dataset> {
    let dataset = Dataset::open(root, free_memory_bytes() / 4 / ranks.local().1 as u64)?;
    note(&format!(
        "data set: {}, {} classes, {} training and {} validation images",
        root.display(),
        dataset.train.classes().len(),
        dataset.train.len(),
        dataset.val.len()
    ));
    for folder in [&dataset.train, &dataset.val] {
        if folder.ignored() > 0 {
            let split = folder.split().name();
            note(&format!(
                "data set: {} files in {split} are no JPEG or PNG images and are not used",
                folder.ignored()
            ));
        }
    }
    Ok(dataset)
}

/// Says which images of a split were not what their names claim.
pub(super) fn say_misnamed(folder: &ImageSet) {
    let misnamed = folder.misnamed();
    for (path, format) in misnamed.iter().take(5) {
        eprintln!("note: {path} is {format}, whatever its name says, and was decoded as such");
    }
    if misnamed.len() > 5 {
        eprintln!("note: {} more images are not of the format that their names claim", misnamed.len() - 5);
    }
}

/// Opens weights, and checks them against the configuration that was asked for, if any.
pub(super) fn open_weights(path: &Path, config: Option<&Config>, device: &Device) -> Result<Pretrained> {
    let own = vgg_weights::read_metadata(path)?.spec.config;
    if let Some(config) = config.filter(|config| **config != own) {
        return Err(UsageError(format!("{} holds config {own}, not {config}", path.display())).into());
    }
    let network = Pretrained::open_on(path, device)?;
    network.notes.iter().for_each(|note| eprintln!("{}: {note}", path.display()));
    Ok(network)
}
