//! Options that several commands share.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use vgg::Pretrained;
use vgg::system::free_memory_bytes;
use vgg_data::{Geometry, Interpolation};
use vgg_error::printable;
use vgg_eval::{DensePool, Evaluation, Protocol};
use vgg_layers::{Config, NetworkSpec, Stages};
use vgg_tensor::{ConvAlgorithm, Device, DeviceConfig, DeviceKind, Engines, Precision};

use super::ranks::Ranks;
use crate::console::note;
use crate::exit::UsageError;

#[derive(Args)]
pub(super) struct DeviceOptions {
    /// auto, cpu, cuda or cuda:N. With several ranks on a machine, auto and cuda give each rank its own GPU.
    #[arg(long, default_value = "auto", value_parser = device_choice)]
    device: DeviceChoice,
    /// Number of CPU threads; 0 uses one per core. Results do not depend on it.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1024))]
    threads: u16,
    /// Algorithm of 3x3 convolutions: auto, direct, winograd2, winograd4 or winograd6; rounding differs.
    #[arg(long, default_value = "auto", value_parser = conv_choice)]
    conv_algorithm: ConvAlgorithm,
    /// Precision: bf16, tf32 or f32; a CPU needs AMX for bf16. Default: bf16 on a GPU, f32 on a CPU.
    #[arg(long, value_parser = precision)]
    precision: Option<Precision>,
    /// Restrict a GPU to deterministic algorithms, so that results are bitwise identical between runs.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    deterministic: bool,
    /// Number of threads that decode images; 0 uses one per core. Results do not depend on it.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1024))]
    workers: u16,
    /// CPU instruction set, such as avx2+fma to reproduce results of AVX2 machines. Default: the best.
    #[arg(long, value_name = "NAME")]
    instruction_set: Option<String>,
}

#[derive(Clone, Copy)]
enum DeviceChoice {
    Auto,
    Cpu,
    Cuda(Option<usize>),
}

impl DeviceOptions {
    /// Decoding threads of this rank; local ranks share the machine's cores.
    pub(super) fn workers_among(&self, ranks: &Ranks) -> usize {
        match self.workers {
            0 => ranks.cores(),
            given => usize::from(given),
        }
    }

    pub(super) fn open(&self) -> Result<Device> {
        self.open_as(0, 1, usize::from(self.threads))
    }

    /// As [`DeviceOptions::open`], on one of several local ranks that share cores and GPUs.
    pub(super) fn open_among(&self, ranks: &Ranks) -> Result<Device> {
        let (rank, of) = ranks.local();
        let threads = if self.threads == 0 && of > 1 { ranks.cores() } else { usize::from(self.threads) };
        self.open_as(rank, of, threads)
    }

    fn open_as(&self, rank: usize, of: usize, threads: usize) -> Result<Device> {
        // A launcher may make one GPU visible to each rank, as its first.
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
            note(&format!("using the CPU: {reason}"));
        }
        note(&format!("device: {}", device));
        Ok(device)
    }
}

/// The CPU in bf16.
///
/// # Errors
/// [`vgg_tensor::Error::Precision`] with what is missing.
pub(super) fn bf16_cpu() -> vgg_tensor::Result<Device> {
    let config =
        DeviceConfig { kind: DeviceKind::Cpu, precision: Some(Precision::Bf16), ..DeviceConfig::default() };
    Device::open(&config)
}

fn conv_choice(name: &str) -> Result<ConvAlgorithm, String> {
    one_of(&ConvAlgorithm::ALL, name)
}

/// Cache for compiled GPU kernels and autotuned engines: `$XDG_CACHE_HOME/vgg`, or `~/.cache/vgg`.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    Some(cache.join("vgg"))
}

fn precision(name: &str) -> Result<Precision, String> {
    one_of(&Precision::ALL, name)
}

/// A parser for named values that lists the names in the help.
pub(super) fn choice<T: Copy + Send + Sync + 'static>(
    all: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    let names = PossibleValuesParser::new(all.iter().map(|(name, _)| *name));
    names.try_map(move |name| one_of(all, &name))
}

pub(super) fn one_of<T: Copy>(all: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = all.iter().find(|(known, _)| *known == name);
    let names = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found.map(|(_, value)| *value).ok_or_else(|| format!("expected one of {}", names()))
}

fn device_choice(name: &str) -> Result<DeviceChoice, String> {
    match (name, name.split_once(':')) {
        ("auto", _) => Ok(DeviceChoice::Auto),
        ("cpu", _) => Ok(DeviceChoice::Cpu),
        ("cuda", _) => Ok(DeviceChoice::Cuda(None)),
        (_, Some(("cuda", number))) => {
            let number = number.parse().map_err(|_| format!("{number} is not a GPU index"))?;
            Ok(DeviceChoice::Cuda(Some(number)))
        }
        _ => Err("expected auto, cpu, cuda or cuda:N".into()),
    }
}

#[derive(Args)]
pub(super) struct GeometryOption {
    /// How images are rescaled and where centre crops lie. paper: smallest side to Q, long side rounded; torchvision:
    /// the same, rounded as by its Resize and CenterCrop; caffe: both sides to Q. Default: that of the weights file.
    #[arg(long, value_parser = choice(&Geometry::ALL))]
    geometry: Option<Geometry>,
}

impl GeometryOption {
    pub(super) fn geometry(&self, network: &Pretrained) -> Geometry {
        self.geometry.unwrap_or(network.geometry())
    }
}

#[derive(Args)]
pub(super) struct ViewOptions {
    /// centre (centre crop), dense (whole image), multi-crop (5 x 5 grid of crops) or combined (mean of dense
    /// and multi-crop); sections 3.2 and 4.3. Default: dense.
    #[arg(long)]
    pub(super) protocol: Option<Protocol>,
    /// Test scales to average over, such as 256,384,512. Default: the training scale, or the middle of its
    /// jitter.
    #[arg(long, value_delimiter = ',', value_parser = test_scale)]
    test_scales: Vec<usize>,
    /// Average over the image and its horizontal flip. Default: true, except for centre.
    #[arg(long)]
    flip: Option<bool>,
    /// Interpolation: bilinear, bicubic, lanczos or nearest.
    #[arg(long, default_value = "bilinear")]
    interpolation: Interpolation,
    #[command(flatten)]
    geometry: GeometryOption,
    /// Pooling of the dense score map: score-mean, prob-mean or score-sum. Default: score-mean.
    #[arg(long)]
    dense_pool: Option<DensePool>,
    /// Rounding of odd sides by max-pooling in dense evaluation: floor or ceil. Default: the weights file's.
    #[arg(long, value_parser = pool_rounding)]
    pool_rounding: Option<vgg_layers::PoolRounding>,
}

pub(super) fn test_scale(text: &str) -> Result<usize, String> {
    let what = || format!("{text:?} is not a test scale in pixels; pass scales such as 256,384,512");
    text.parse().map_err(|_| what())
}

fn pool_rounding(name: &str) -> Result<vgg_layers::PoolRounding, String> {
    match name {
        "floor" => Ok(vgg_layers::PoolRounding::Floor),
        "ceil" => Ok(vgg_layers::PoolRounding::Ceil),
        _ => Err("expected floor or ceil".into()),
    }
}

impl ViewOptions {
    pub(super) fn evaluation(&self, network: &Pretrained) -> Result<Evaluation> {
        let protocol = self.protocol.unwrap_or(Protocol::Dense);
        let test_scales = test_scales(&self.test_scales, network)?;
        let dense = matches!(protocol, Protocol::Dense | Protocol::Combined);
        let dense_only =
            [("--pool-rounding", self.pool_rounding.is_some()), ("--dense-pool", self.dense_pool.is_some())];
        if let Some((option, _)) = dense_only.iter().find(|(_, given)| *given && !dense) {
            let what = format!("{option} has no effect with --protocol {}", protocol.name());
            return Err(UsageError(what).into());
        }
        let evaluation = Evaluation {
            protocol,
            test_scales,
            flip: self.flip.unwrap_or(protocol.flips()),
            interpolation: self.interpolation,
            geometry: self.geometry.geometry(network),
            dense_pool: self.dense_pool.unwrap_or(DensePool::ScoreMean),
            pool_rounding: self.pool_rounding,
        };
        evaluation.views(network.metadata.spec.crop)?;
        Ok(evaluation)
    }
}

/// The given test scales, or the network's default.
pub(super) fn test_scales(given: &[usize], network: &Pretrained) -> Result<Vec<usize>> {
    if let Some(twice) = (1..given.len()).find(|&i| given[..i].contains(&given[i])) {
        return Err(UsageError(format!("--test-scales lists {} twice", given[twice])).into());
    }
    Ok(if given.is_empty() { vec![network.default_test_scale()] } else { given.to_vec() })
}

/// Parses two numbers separated by a comma.
pub(super) fn pair(text: &str) -> Result<[usize; 2], String> {
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|n| usize::from_str(n.trim())).collect();
    numbers
        .ok()
        .and_then(|n| n.try_into().ok())
        .ok_or_else(|| "expected two numbers separated by a comma".into())
}

#[derive(Args)]
pub(super) struct NetworkArgs {
    /// ConvNet configuration: A, A-LRN, B, B-5x5, C, D or E.
    #[arg(long)]
    config: Option<Config>,
    /// Custom network instead of --config: filters per stage as JSON, such as [[64],[128],[256,256]]. Kernels
    /// are 3x3; {"filters":256,"kernel":1} sets the size to 1 or 5.
    #[arg(long, value_parser = stages, conflicts_with = "config")]
    stages: Option<Stages>,
    /// Multiplies the numbers of filters. Unless it is 1, the results are rounded to multiples of 8, at least
    /// 8.
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Number of classes.
    #[arg(long, default_value_t = 1000)]
    classes: usize,
    /// Outputs of fc6 and fc7.
    #[arg(long, default_value = "4096,4096", value_parser = pair)]
    head: [usize; 2],
    /// Crop side in pixels, a multiple of 32; with --stages, of 2 to the power of the number of stages.
    #[arg(long, default_value_t = 224)]
    crop: usize,
}

impl NetworkArgs {
    /// Whether a network is given.
    pub(super) fn is_given(&self) -> bool {
        self.config.is_some() || self.stages.is_some()
    }

    pub(super) fn spec(self) -> Result<NetworkSpec> {
        let NetworkArgs { config, stages, width, classes, head, crop } = self;
        let config = config.or(stages.map(Config::Custom));
        let config = config.ok_or_else(|| UsageError("give a network: --config or --stages".into()))?;
        Ok(NetworkSpec { width, classes, head, crop, ..NetworkSpec::paper(config) })
    }
}

/// Refuses to build a network whose weights need twice the free host memory.
pub(super) fn check_weights_fit(spec: &NetworkSpec) -> Result<()> {
    let (needed, free) = (4.0 * spec.parameter_count()? as f64, free_memory_bytes() as f64);
    if needed <= 2.0 * free {
        return Ok(());
    }
    let gib = f64::from(1 << 30);
    let what = format!(
        "the weights need {:.1} GiB, but {:.1} GiB are free; reduce --head, --classes or --width",
        needed / gib,
        free / gib
    );
    Err(UsageError(what).into())
}

fn stages(text: &str) -> Result<Stages, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

pub(super) fn open_weights(path: &Path, config: Option<&Config>, device: &Device) -> Result<Pretrained> {
    check_config(path, config)?;
    Ok(print_notes(path, Pretrained::open_on(path, device)?))
}

/// As [`open_weights`], for a network that computes no further than `layer`.
pub(super) fn open_weights_up_to(
    path: &Path,
    layer: &str,
    config: Option<&Config>,
    device: &Device,
) -> Result<Pretrained> {
    check_config(path, config)?;
    Ok(print_notes(path, Pretrained::open_up_to(path, layer, device)?))
}

fn check_config(path: &Path, config: Option<&Config>) -> Result<()> {
    let own = vgg_weights::read_metadata(path)?.spec.config;
    match config.filter(|config| **config != own) {
        None => Ok(()),
        Some(config) => {
            Err(UsageError(format!("{} holds config {own}, not {config}", printable(path))).into())
        }
    }
}

/// Prints the notes on the file of a network, and returns the network.
fn print_notes(path: &Path, network: Pretrained) -> Pretrained {
    network.notes.iter().for_each(|text| note(&format!("{}: {text}", printable(path))));
    network
}
