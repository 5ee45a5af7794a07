//! Stochastic gradient descent with momentum, and learning-rate schedules.

#![warn(clippy::unwrap_used)]

mod error;
mod schedule;
mod sgd;

pub use error::{Error, Result};
pub use schedule::{Schedule, ScheduleState, Then};
pub use sgd::{Sgd, SgdForm, SgdOptions};
