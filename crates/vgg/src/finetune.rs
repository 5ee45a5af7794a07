//! Fine-tuning of a network on a folder of images.

use std::path::Path;

use vgg_data::{Interpolation, OnBadImage};
use vgg_eval::Protocol;
use vgg_experiment::{
    DataPlan, FinishedRun, InitPlan, NetworkPlan, OptimizerPlan, PixelScale, RunLength, RunPlan,
    ValidationPlan,
};
use vgg_layers::{Init, LayerSelection};
use vgg_optim::{MomentumVariant, Schedule};
use vgg_tensor::{Device, DeviceConfig};

use crate::{Result, train};

/// Fine-tuning settings. Layers whose shapes match start from the weights file; the others, usually fc8, from
/// random weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Finetune {
    /// Number of epochs.
    pub epochs: usize,
    /// Batch size.
    pub batch: usize,
    /// Learning rate of the first two thirds of the epochs, then divided by 10.
    pub lr: f64,
    /// Layers to train, such as `["fc8"]`; `None` trains all.
    pub train_layers: Option<Vec<String>>,
    /// Seed of random weights, data order and dropout.
    pub seed: u64,
}

impl Default for Finetune {
    fn default() -> Finetune {
        Finetune { epochs: 10, batch: 32, lr: 1e-3, train_layers: None, seed: 1 }
    }
}

impl Finetune {
    /// Fine-tunes the network of a weights file on `dataset`, a folder with `train/<class>/*` and
    /// `val/<class>/*`, on the best device. Writes weights and metrics to the directory `out`; the same call
    /// resumes an interrupted run.
    ///
    /// # Errors
    /// Those of [`train`].
    pub fn run(
        &self,
        weights: impl AsRef<Path>,
        dataset: impl AsRef<Path>,
        out: impl AsRef<Path>,
    ) -> Result<FinishedRun> {
        let device = Device::open(&DeviceConfig::default())?;
        let plan = self.plan(weights.as_ref())?;
        train(&plan, Some(dataset.as_ref()), out.as_ref(), &device, &mut |_| ())
    }

    /// The run's settings for a network from a weights file.
    ///
    /// # Errors
    /// [`crate::Error::Weights`] if the file does not describe a network.
    pub fn plan(&self, weights: &Path) -> Result<RunPlan> {
        let metadata = vgg_weights::read_metadata(weights)?;
        let spec = metadata.spec;
        let scales = &metadata.train_scale;
        let [low, high] =
            [scales.iter().min(), scales.iter().max()].map(|scale| scale.copied().unwrap_or(spec.crop));
        Ok(RunPlan {
            name: "finetune".into(),
            paper: None,
            may_diverge: false,
            network: NetworkPlan {
                config: spec.config,
                classes: None,
                width: spec.width,
                head: spec.head,
                dropout: spec.dropout,
                lrn_style: spec.lrn_style,
                pool_rounding: spec.pool_rounding,
                init: InitPlan {
                    scheme: Init::Gaussian001,
                    from: Some(weights.display().to_string()),
                    layers: Some(LayerSelection::AllMatching),
                },
                train_layers: self.train_layers.clone(),
            },
            data: DataPlan {
                dataset: None,
                train_scale: [low.max(spec.crop), high.max(spec.crop)],
                crop: spec.crop,
                interpolation: Interpolation::Bilinear,
                flip: true,
                pca_jitter_std: 0.1,
                pixel_scale: PixelScale::Inherit,
                on_bad_image: OnBadImage::Skip,
                enlarge: true,
                geometry: metadata.geometry.parse().unwrap_or_default(),
                exif_orientation: false,
            },
            optimizer: OptimizerPlan {
                momentum_variant: MomentumVariant::Torch,
                batch: self.batch,
                micro_batch: self.batch.clamp(1, 16),
                momentum: 0.9,
                weight_decay: 5e-4,
                decay_biases: false,
                bias_lr_mult: 1.0,
            },
            schedule: Schedule::Steps {
                lr: self.lr,
                gamma: 0.1,
                milestones: vec![(2 * self.epochs).div_ceil(3).max(1)],
            },
            validate: ValidationPlan {
                protocol: Protocol::Centre,
                test_scale: ((low + high).div_ceil(2)).max(spec.crop),
                every_epochs: 1,
            },
            run: RunLength { seed: self.seed, max_epochs: self.epochs },
        })
    }
}
