//! Options for checkpoints.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use vgg_train::Checkpoints;

use crate::exit::UsageError;

#[derive(Args)]
pub(super) struct SavingOptions {
    /// Save a checkpoint after so many minutes, and after every epoch; 0 for epochs only. Results do not
    /// depend on it.
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0)]
    checkpoint_minutes: f64,
    /// Also save a checkpoint after so many steps.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_steps: Option<u64>,
    /// Number of latest checkpoints to keep, in addition to the one with the lowest validation error.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    keep_checkpoints: u16,
    /// Resume a run although this setting has changed: a key that the error lists, such as run.max_epochs, or
    /// a group of keys, such as run. May be repeated.
    #[arg(long = "allow-config-change", value_name = "KEY")]
    allow_changes: Vec<String>,
}

impl SavingOptions {
    pub(super) fn checkpoints(&self) -> Result<Checkpoints> {
        let minutes = self.checkpoint_minutes;
        let every = Duration::try_from_secs_f64(minutes * 60.0);
        let every = every.map_err(|_| UsageError(format!("--checkpoint-minutes {minutes} is invalid")))?;
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
