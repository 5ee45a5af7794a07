//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A learning-rate schedule, evaluated once per epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// A constant learning rate.
    Constant {
        /// Learning rate.
        lr: f64,
    },
    /// PyTorch's `MultiStepLR`: the learning rate is multiplied by `gamma` at each milestone.
    Steps {
        /// Initial learning rate.
        lr: f64,
        /// Factor of a reduction, in (0, 1).
        gamma: f64,
        /// Epochs, counted from 0, at whose start the learning rate is reduced; ascending.
        milestones: Vec<usize>,
    },
    /// PyTorch's `ReduceLROnPlateau`, the paper's schedule: the learning rate is reduced when the validation
    /// error stops improving.
    Plateau {
        /// Initial learning rate. Paper: 1e-2.
        lr: f64,
        /// Factor of a reduction, in (0, 1). Paper: 0.1.
        factor: f64,
        /// Maximum number of reductions. Paper: 3.
        max_reductions: usize,
        /// Epochs without improvement after which the learning rate is reduced. PyTorch waits for one more
        /// epoch.
        patience: usize,
        /// The validation error must decrease by more than this (absolute) to count as an improvement.
        threshold: f64,
        /// Action at the plateau after the last reduction.
        on_exhausted: OnExhausted,
    },
}

/// Action at a plateau after the maximum number of reductions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExhausted {
    /// End the run.
    Stop,
    /// Continue the run at the last learning rate.
    Continue,
}

/// Progress of a schedule; part of every checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ScheduleState {
    /// Number of reductions so far.
    pub reductions: usize,
    /// Lowest validation error that counted as an improvement.
    pub best: Option<f64>,
    /// Number of epochs since the last improvement or reduction.
    pub bad_epochs: usize,
    /// Whether the run should end.
    pub stop: bool,
}

impl Schedule {
    /// Validates the settings.
    ///
    /// # Errors
    /// [`Error::Config`] if a value is out of range.
    pub fn check(&self) -> Result<()> {
        let (lr, factor) = match self {
            Schedule::Constant { lr } => (*lr, None),
            Schedule::Steps { lr, gamma, .. } => (*lr, Some(("gamma", *gamma))),
            Schedule::Plateau { lr, factor, .. } => (*lr, Some(("factor", *factor))),
        };
        if !(lr > 0.0 && lr.is_finite()) {
            return Err(Error::Config(format!("lr {lr} must be finite and above 0")));
        }
        if let Some((name, factor)) = factor
            && !(factor > 0.0 && factor < 1.0)
        {
            return Err(Error::Config(format!("{name} {factor} must be above 0 and below 1")));
        }
        if let Schedule::Steps { milestones, .. } = self
            && !(milestones.is_sorted() && milestones.first().is_none_or(|first| *first > 0))
        {
            return Err(Error::Config(format!("milestones {milestones:?} must be ascending epochs above 0")));
        }
        if let Schedule::Plateau { threshold, .. } = self
            && !threshold.is_finite()
        {
            return Err(Error::Config(format!("threshold {threshold} must be finite")));
        }
        Ok(())
    }

    /// The learning rate of an epoch, counted from 0.
    pub fn lr(&self, state: &ScheduleState, epoch: usize) -> f64 {
        match self {
            Schedule::Constant { lr } => *lr,
            Schedule::Steps { lr, gamma, milestones } => {
                lr * gamma.powi(milestones.iter().filter(|milestone| epoch >= **milestone).count() as i32)
            }
            Schedule::Plateau { lr, factor, .. } => lr * factor.powi(state.reductions as i32),
        }
    }

    /// Updates `state` with the validation error of a validation that is `epochs` epochs after the previous
    /// one.
    pub fn after_validation(&self, state: &mut ScheduleState, error: f64, epochs: usize) {
        let Schedule::Plateau { max_reductions, patience, threshold, on_exhausted, .. } = self else {
            return;
        };
        if state.best.is_none_or(|best| error < best - threshold) {
            state.best = Some(error);
            state.bad_epochs = 0;
            return;
        }
        state.bad_epochs += epochs;
        if state.bad_epochs < *patience {
            return;
        }
        state.bad_epochs = 0;
        if state.reductions < *max_reductions {
            state.reductions += 1;
        } else if *on_exhausted == OnExhausted::Stop {
            state.stop = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plateau_reduces_the_learning_rate_three_times_and_stops() {
        let schedule = Schedule::Plateau {
            lr: 0.01,
            factor: 0.1,
            max_reductions: 3,
            patience: 2,
            threshold: 0.01,
            on_exhausted: OnExhausted::Stop,
        };
        let mut state = ScheduleState::default();
        let mut rates = Vec::new();
        for (epoch, error) in [0.9, 0.8, 0.795, 0.799, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7].into_iter().enumerate() {
            schedule.after_validation(&mut state, error, 1);
            rates.push((schedule.lr(&state, epoch) * 1e6).round() as i64);
        }
        assert_eq!(rates, [10000, 10000, 10000, 1000, 1000, 1000, 100, 100, 10, 10]);
        assert!(!state.stop);
        schedule.after_validation(&mut state, 0.7, 1);
        assert!(state.stop && state.reductions == 3);
    }

    #[test]
    fn steps_reduce_the_learning_rate_at_their_milestones() {
        let schedule = Schedule::Steps { lr: 1.0, gamma: 0.1, milestones: vec![4, 6] };
        let rates: Vec<f64> = (0..8).map(|e| schedule.lr(&ScheduleState::default(), e)).collect();
        assert_eq!(rates.iter().filter(|r| **r == 1.0).count(), 4);
        assert_eq!(rates.iter().filter(|r| (**r - 0.1).abs() < 1e-12).count(), 2);
        let bad = Schedule::Steps { lr: 1.0, gamma: 0.1, milestones: vec![6, 4] };
        assert!(bad.check().is_err());
    }
}
