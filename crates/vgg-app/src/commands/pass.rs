//! A pass over a split by all ranks: what the user sees of it, and how it ends.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use vgg::Pretrained;
use vgg_data::{ImageSet, OnBadImage, Split};
use vgg_layers::Config;
use vgg_tensor::Device;

use super::options::{open_weights, say_misnamed};
use super::ranks::Ranks;
use crate::console::{Interrupt, Progress};

/// The network that looks, and what it looks at.
#[derive(Args)]
pub(super) struct EvalArgs {
    /// Weights file.
    #[arg(long)]
    weights: PathBuf,
    /// The configuration that it must hold.
    #[arg(long)]
    config: Option<Config>,
    /// Data set: a folder with train/<class>/* and val/<class>/*, or shards.
    #[arg(long)]
    dataset: PathBuf,
    /// train or val.
    #[arg(long, default_value = "val")]
    pub(super) split: Split,
    /// Leave images that cannot be decoded out, and list them, instead of stopping.
    #[arg(long)]
    skip_bad_images: bool,
}

impl EvalArgs {
    pub(super) fn network(&self, device: &Device) -> Result<Pretrained> {
        open_weights(&self.weights, self.config.as_ref(), device)
    }

    pub(super) fn images(&self) -> Result<Arc<ImageSet>> {
        Ok(Arc::new(ImageSet::open(&self.dataset, self.split)?))
    }

    pub(super) fn on_bad_image(&self) -> OnBadImage {
        if self.skip_bad_images { OnBadImage::Skip } else { OnBadImage::Stop }
    }
}

/// A pass that is about to begin.
pub(super) struct DatasetPass<'a> {
    progress: Progress,
    interrupt: Interrupt,
    ranks: &'a Ranks,
}

/// What a pass leaves on this rank.
pub(super) enum PassResult<T> {
    /// Nothing, as it was interrupted or the first rank has it, and the exit code.
    Nothing(ExitCode),
    /// All that was looked for.
    All { what: T, seconds: f64 },
}

impl DatasetPass<'_> {
    /// Over so many images on this rank.
    pub(super) fn new<'a>(what: &str, images: usize, ranks: &'a Ranks) -> Result<DatasetPass<'a>> {
        Ok(DatasetPass {
            progress: Progress::new(what, images as u64),
            interrupt: Interrupt::listen()?,
            ranks,
        })
    }

    /// Does it; `work` tells how many images are done and hears whether to stop.
    pub(super) fn go<T>(
        mut self,
        folder: &ImageSet,
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
                return Ok(PassResult::Nothing(code));
            }
            other => other?,
        };
        say_misnamed(folder);
        Ok(found.map_or(PassResult::Nothing(ExitCode::SUCCESS), |what| PassResult::All { what, seconds }))
    }
}

/// Looks whether a file of so many bytes can be written, before the work that it will be of.
pub(super) fn expect_room(path: &Path, bytes: usize) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(vgg_files::probe(folder.unwrap_or(Path::new(".")), bytes as u64)?)
}
