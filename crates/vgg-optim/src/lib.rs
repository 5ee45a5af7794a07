//! Stochastic gradient descent with momentum, and learning-rate schedules.

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod error;
mod schedule;
mod sgd;

pub use error::{Error, Result};
pub use schedule::{OnExhausted, Schedule, ScheduleState};
pub use sgd::{MomentumVariant, Sgd, SgdOptions};
