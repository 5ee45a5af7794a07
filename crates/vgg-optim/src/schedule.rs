//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the learning rate changes from epoch to epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// One rate.
    Constant {
        /// The rate.
        lr: f64,
    },
    /// The rate is multiplied by `factor` at the given fractions of the run.
    Steps {
        /// The first rate.
        lr: f64,
        /// What a cut multiplies it by.
        factor: f64,
        /// Fractions of all epochs, ascending, in (0, 1).
        at: Vec<f64>,
    },
    /// The paper's: the rate is cut when validation stops improving.
    Plateau {
        /// The first rate; the paper: 1e-2.
        lr: f64,
        /// What a cut multiplies it by; the paper: 0.1.
        factor: f64,
        /// Cuts at most; the paper: 3.
        max_drops: usize,
        /// Epochs without improvement before a cut.
        patience_epochs: usize,
        /// A gain in validation error below this is none.
        min_gain: f64,
        /// What follows the plateau after the last cut.
        then: Then,
    },
}

/// What follows the plateau after the last cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// The run ends.
    Stop,
    /// The run goes on at the last rate.
    Continue,
}

/// Where a schedule stands. Part of every checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ScheduleState {
    /// Cuts so far.
    pub drops: usize,
    /// Least validation error so far.
    pub best: Option<f64>,
    /// Epochs since it, or since the last cut.
    pub waited: usize,
    /// Whether the run should end.
    pub stop: bool,
}

impl Schedule {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] if a rate or factor makes no sense.
    pub fn check(&self) -> Result<()> {
        let (lr, factor) = match self {
            Schedule::Constant { lr } => (*lr, 0.5),
            Schedule::Steps { lr, factor, .. } | Schedule::Plateau { lr, factor, .. } => (*lr, *factor),
        };
        if !(lr > 0.0 && lr.is_finite() && factor > 0.0 && factor < 1.0) {
            return Err(Error::Config(format!("lr {lr} must be above 0 and factor {factor} in (0, 1)")));
        }
        if let Schedule::Steps { at, .. } = self
            && !(at.is_sorted() && at.iter().all(|f| *f > 0.0 && *f < 1.0))
        {
            return Err(Error::Config(format!("steps at {at:?} must be ascending fractions in (0, 1)")));
        }
        if let Schedule::Plateau { min_gain, .. } = self
            && !min_gain.is_finite()
        {
            return Err(Error::Config(format!("min_gain {min_gain} must be a number")));
        }
        Ok(())
    }

    /// The rate of an epoch, counted from 0, of a run of `epochs`.
    pub fn lr(&self, state: &ScheduleState, epoch: usize, epochs: usize) -> f64 {
        match self {
            Schedule::Constant { lr } => *lr,
            Schedule::Steps { lr, factor, at } => {
                let done = epoch as f64 / epochs.max(1) as f64;
                lr * factor.powi(at.iter().filter(|f| done >= **f).count() as i32)
            }
            Schedule::Plateau { lr, factor, .. } => lr * factor.powi(state.drops as i32),
        }
    }

    /// Takes note of a validation error; `epochs` have passed since the one before.
    pub fn after_validation(&self, state: &mut ScheduleState, error: f64, epochs: usize) {
        let Schedule::Plateau { max_drops, patience_epochs, min_gain, then, .. } = self else { return };
        if state.best.is_none_or(|best| error < best - min_gain) {
            state.best = Some(error);
            state.waited = 0;
            return;
        }
        state.waited += epochs;
        if state.waited < *patience_epochs {
            return;
        }
        state.waited = 0;
        if state.drops < *max_drops {
            state.drops += 1;
        } else if *then == Then::Stop {
            state.stop = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plateau_cuts_three_times_and_stops() {
        let schedule = Schedule::Plateau {
            lr: 0.01,
            factor: 0.1,
            max_drops: 3,
            patience_epochs: 2,
            min_gain: 0.01,
            then: Then::Stop,
        };
        let mut state = ScheduleState::default();
        let mut rates = Vec::new();
        for (epoch, error) in [0.9, 0.8, 0.795, 0.799, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7].into_iter().enumerate() {
            schedule.after_validation(&mut state, error, 1);
            rates.push((schedule.lr(&state, epoch, 74) * 1e6).round() as i64);
        }
        assert_eq!(rates, [10000, 10000, 10000, 1000, 1000, 1000, 100, 100, 10, 10]);
        assert!(!state.stop);
        schedule.after_validation(&mut state, 0.7, 1);
        assert!(state.stop && state.drops == 3);
    }

    #[test]
    fn steps_are_fractions_of_the_run() {
        let schedule = Schedule::Steps { lr: 1.0, factor: 0.1, at: vec![0.5, 0.75] };
        let rates: Vec<f64> = (0..8).map(|e| schedule.lr(&ScheduleState::default(), e, 8)).collect();
        assert_eq!(rates.iter().filter(|r| **r == 1.0).count(), 4);
        assert_eq!(rates.iter().filter(|r| (**r - 0.1).abs() < 1e-12).count(), 2);
        let bad = Schedule::Steps { lr: 1.0, factor: 0.1, at: vec![0.75, 0.5] };
        assert!(bad.check().is_err());
    }
}
