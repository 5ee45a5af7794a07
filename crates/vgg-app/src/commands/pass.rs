//! One pass of all ranks over a split: options, progress and interruption.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use vgg::Pretrained;
use vgg_data::{ImageSet, OnBadImage, Split};
use vgg_layers::Config;
use vgg_tensor::Device;

use super::data_options::{BadImageOption, ImageOptions, open_split, say_misnamed};
use super::options::{open_weights, open_weights_up_to};
use super::ranks::Ranks;
use crate::console::{Interrupt, Progress};

#[derive(Args)]
pub(super) struct EvalArgs {
    /// Weights file.
    #[arg(long)]
    weights: PathBuf,
    /// Fail unless the weights have this configuration.
    #[arg(long)]
    config: Option<Config>,
    /// Data set: a folder with train/<class>/* and val/<class>/*, or a prepared data set.
    #[arg(long)]
    dataset: PathBuf,
    /// Split: train or val.
    #[arg(long, default_value = "val")]
    pub(super) split: Split,
    #[command(flatten)]
    image: ImageOptions,
    #[command(flatten)]
    bad_image: BadImageOption,
}

impl EvalArgs {
    /// The weights file.
    pub(super) fn weights(&self) -> &Path {
        &self.weights
    }

    pub(super) fn network(&self, device: &Device) -> Result<Pretrained> {
        open_weights(&self.weights, self.config.as_ref(), device)
    }

    /// The network, for computing no further than `layer`.
    pub(super) fn network_up_to(&self, layer: &str, device: &Device) -> Result<Pretrained> {
        open_weights_up_to(&self.weights, layer, self.config.as_ref(), device)
    }

    pub(super) fn images(&self) -> Result<ImageSet> {
        open_split(&self.dataset, self.split, &self.image)
    }

    pub(super) fn on_bad_image(&self) -> OnBadImage {
        self.bad_image.on_bad_image
    }
}

pub(super) struct DatasetPass<'a> {
    progress: Progress,
    interrupt: Interrupt,
    ranks: &'a Ranks,
}

pub(super) enum PassResult<T> {
    /// No result: the pass was interrupted, or rank 0 has it. Holds the exit code.
    NoResult(ExitCode),
    /// The result, and the duration of the pass.
    Result { what: T, seconds: f64 },
}

impl DatasetPass<'_> {
    pub(super) fn new<'a>(what: &str, images: usize, ranks: &'a Ranks) -> Result<DatasetPass<'a>> {
        Ok(DatasetPass {
            progress: Progress::new(what, images as u64),
            interrupt: Interrupt::listen()?,
            ranks,
        })
    }

    /// Runs `work`, which reports the number of finished images and stops on [`ControlFlow::Break`].
    pub(super) fn go<T>(
        mut self,
        image_set: &ImageSet,
        work: impl FnOnce(&mut dyn FnMut(usize) -> ControlFlow<()>) -> vgg_eval::Result<Option<T>>,
    ) -> Result<PassResult<T>> {
        let start = Instant::now();
        let found = work(&mut |done| {
            let speed = done as f64 / start.elapsed().as_secs_f64();
            self.progress.at(done as u64, || format!("{done} images, {speed:.1} images/s"));
            if self.interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let seconds = start.elapsed().as_secs_f64();
        drop(self.progress);
        let found = match found {
            Err(vgg_eval::Error::Interrupted) => {
                let code = self.ranks.interrupted(&self.interrupt, "interrupted; nothing was written")?;
                return Ok(PassResult::NoResult(code));
            }
            other => other?,
        };
        say_misnamed(image_set);
        Ok(found.map_or(PassResult::NoResult(ExitCode::SUCCESS), |what| PassResult::Result { what, seconds }))
    }
}

/// Checks that `bytes` bytes can be written to `path`, before the work starts.
pub(super) fn check_free_space(path: &Path, bytes: usize) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(vgg_files::probe(folder.unwrap_or(Path::new(".")), bytes as u64)?)
}
