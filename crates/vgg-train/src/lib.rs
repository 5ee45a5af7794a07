//! Training of VGG networks: batches split into micro-batches, validation, checkpoints, resume, metrics.
//!
//! The crate prints nothing; it reports progress as [`Event`]s. A run directory contains `metrics.jsonl` and
//! `metrics.csv` (which depend only on configuration and data), `timing.jsonl`, checkpoints and, after the
//! last epoch, `weights.safetensors`.

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod checkpoint;
mod epoch;
mod error;
mod gradient_reducer;
mod identity;
mod memory;
mod metrics;
mod norms;
mod run_state;
mod train_step;
mod trainer;
mod training;

pub use checkpoint::{Checkpoints, has_checkpoints, remove_checkpoints};
pub use error::{Error, Result};
pub use identity::refuse_other;
pub use memory::{check_step_memory, step_memory_bytes};
pub use metrics::{EpochMetrics, EpochTiming, METRICS_FILE, Validation};
pub use norms::LayerNorms;
pub use train_step::{StepConfig, StepReport, StepSums, TrainStep};
pub use trainer::Trainer;
pub use training::{Event, Outcome, Resume, TrainConfig, Training, ValidationResult};

// Types of vgg-optim in this crate's interface.
pub use vgg_optim::{MomentumVariant, OnExhausted, Schedule, SgdOptions};

/// Name of the file in a run directory that describes a step with a loss or gradient that was not finite.
pub const NOT_FINITE_FILE: &str = "not-finite.json";

/// Name of the file in a run directory with the final weights.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
