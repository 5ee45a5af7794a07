//! From what a file says to a plan.

use anyhow::Result;
use vgg_eval::Protocol;
use vgg_experiment::{DataPlan, InitPlan, NetworkPlan, PixelScale, RunPlan, Source, Start};
use vgg_layers::TransferMap;
use vgg_train::{SgdOptions, TrainConfig};

use super::SettingsError;
use super::raw::{InitFrom, Map, NamedMap, NamedScale, RunFile, Scale, Sides};

/// What `init.from` names.
#[derive(Clone, Copy)]
pub(super) enum From {
    /// Weights files.
    Files,
    /// Other runs.
    Runs,
}

pub(super) fn run(name: &str, raw: RunFile, from: From) -> Result<RunPlan> {
    if raw.validate.protocol != Protocol::Centre {
        let what = "validate.protocol must be centre: validation in training is by the central crop";
        return Err(SettingsError(what.into()).into());
    }
    let network = NetworkPlan {
        config: raw.network.config,
        width: raw.network.width,
        classes: raw.network.classes,
        head: raw.network.head,
        crop: raw.data.crop,
        dropout: raw.network.dropout,
        lrn_style: raw.network.lrn_style,
        pool_rounding: raw.network.pool_rounding,
    };
    let data = DataPlan {
        train_side: match raw.data.train_side {
            Sides::Fixed(side) | Sides::One([side]) => [side, side],
            Sides::Ends(ends) => ends,
        },
        filter: raw.data.filter,
        flip: raw.data.flip,
        colour_shift_std: raw.data.colour_shift_std,
        pixel_scale: match raw.data.pixel_scale {
            Scale::Fixed(scale) => PixelScale::Fixed(scale),
            Scale::Named(NamedScale::UnitVariance) => PixelScale::UnitVariance,
            Scale::Named(NamedScale::AsStart) => PixelScale::AsStart,
            Scale::Named(NamedScale::Torchvision) => PixelScale::Torchvision,
        },
        on_bad_image: raw.data.on_bad_image,
        enlarge: raw.data.enlarge,
    };
    let o = &raw.optimizer;
    let train = TrainConfig {
        micro_batch: o.micro_batch,
        sgd: SgdOptions {
            form: o.form,
            momentum: o.momentum,
            weight_decay: o.weight_decay,
            decay_biases: o.decay_biases,
            bias_lr: o.bias_lr,
        },
        schedule: raw.schedule,
        max_epochs: raw.run.max_epochs,
        validate_every: raw.validate.every_epochs,
        seed: raw.run.seed,
    };
    Ok(RunPlan {
        name: name.to_owned(),
        network,
        init: init(raw.network.init, from)?,
        data,
        train,
        batch: o.batch,
        validate_side: raw.validate.test_side,
        train_layers: raw.network.train_layers,
        may_diverge: false,
    })
}

fn init(raw: InitFrom, from: From) -> Result<InitPlan> {
    let start = match (raw.from, raw.map) {
        (None, None) => None,
        (Some(name), Some(map)) => Some(Start {
            source: match from {
                From::Files => Source::File(name.into()),
                From::Runs => Source::Run(name),
            },
            map: match map {
                Map::Named(NamedMap::Paper) => TransferMap::Paper,
                Map::Named(NamedMap::All) => TransferMap::AllMatching,
                Map::Layers(layers) => TransferMap::Layers(layers),
            },
        }),
        _ => {
            let what =
                "network.init needs both from and map (\"paper\", \"all\" or a list of layers), or neither";
            return Err(SettingsError(what.into()).into());
        }
    };
    Ok(InitPlan { fresh: raw.fresh, from: start })
}
