//! Options of what is saved while a network is trained.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use vgg_train::Checkpoints;

use crate::exit::UsageError;

#[derive(Args)]
pub(super) struct SavingOptions {
    /// Save after so many minutes, besides the end of every epoch; 0 for never. Results do not depend on it.
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0)]
    checkpoint_minutes: f64,
    /// Save after so many steps, besides.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_steps: Option<u64>,
    /// Checkpoints to keep, besides the one of the smallest validation error.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    keep_checkpoints: u16,
    /// Go on with a run although this differs from what it was begun with, such as run.max_epochs; as in the list that is
    /// printed when it is refused, or the beginning of a path. May be given several times.
    #[arg(long = "allow-config-change", value_name = "PATH")]
    allow_changes: Vec<String>,
}

impl SavingOptions {
    pub(super) fn checkpoints(&self) -> Result<Checkpoints> {
        let minutes = self.checkpoint_minutes;
        let every = Duration::try_from_secs_f64(minutes * 60.0);
        let every = every.map_err(|_| UsageError(format!("--checkpoint-minutes {minutes} is no time")))?;
        Ok(Checkpoints {
            every_steps: self.checkpoint_steps,
            every: (!every.is_zero()).then_some(every),
            keep: usize::from(self.keep_checkpoints),
        })
    }

    pub(super) fn allow_changes(&self) -> &[String] {
        &self.allow_changes
    }
}
