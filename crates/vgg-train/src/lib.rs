//! Training of VGG networks: mini-batches split into micro-batches, validation, checkpoints, resume, metrics.
//!
//! It prints nothing: what happens is told as [`Event`]s. A run in a directory leaves `metrics.jsonl` and `metrics.csv`
//! (which depend on configuration and data alone), `timing.jsonl`, checkpoints, and `weights.safetensors` at its end.

#![warn(clippy::unwrap_used)]

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

// Part of this crate's interface.
pub use vgg_optim::{MomentumVariant, OnExhausted, Schedule, SgdOptions};

/// What was known of a run whose loss or gradient was not finite, in its directory.
pub const NOT_FINITE_FILE: &str = "not-finite.json";

/// Name of the weights that a finished run leaves in its directory.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
