//! Learning rates of every epoch against values calculated by hand.

use vgg_optim::{OnExhausted, Schedule, ScheduleState};

fn plateau(max_reductions: usize, patience: usize, threshold: f64, on_exhausted: OnExhausted) -> Schedule {
    Schedule::Plateau { lr: 1.0, factor: 0.5, max_reductions, patience, threshold, on_exhausted }
}

/// The learning rates after validation errors one epoch apart, and the final state.
fn rates(schedule: &Schedule, errors: &[f64]) -> (Vec<f64>, ScheduleState) {
    let mut state = ScheduleState::default();
    let mut rates = Vec::new();
    for (epoch, error) in errors.iter().enumerate() {
        schedule.after_validation(&mut state, *error, 1);
        rates.push(schedule.lr(&state, epoch + 1));
    }
    (rates, state)
}

#[test]
fn a_plateau_counts_epochs_since_the_best_error() {
    // Best: 0.5 at first, then 0.4; equal errors are no improvement.
    let errors = [0.5, 0.6, 0.4, 0.4, 0.45, 0.41, 0.4, 0.4];
    let (rates, state) = rates(&plateau(9, 3, 0.0, OnExhausted::Stop), &errors);
    assert_eq!(rates, [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]);
    assert_eq!(state, ScheduleState { reductions: 1, best: Some(0.4), bad_epochs: 2, stop: false });
}

#[test]
fn an_improvement_must_exceed_the_threshold() {
    // A decrease of 0.25 is no improvement if the threshold is 0.25, and an improvement if it is just below.
    let errors = [1.0, 0.75, 0.5];
    assert_eq!(rates(&plateau(9, 1, 0.25, OnExhausted::Stop), &errors).0, [1.0, 0.5, 0.5]);
    assert_eq!(rates(&plateau(9, 1, 0.2499, OnExhausted::Stop), &errors).0, [1.0, 1.0, 1.0]);
    // Errors are compared with the best error, not with the previous one.
    assert_eq!(rates(&plateau(9, 1, 0.25, OnExhausted::Stop), &[1.0, 0.875, 0.625]).0, [1.0, 0.5, 0.5]);
    // The best error is the last improvement, not a lower error that was no improvement.
    let (_, state) = rates(&plateau(9, 9, 0.25, OnExhausted::Stop), &[1.0, 0.875]);
    assert_eq!((state.best, state.bad_epochs), (Some(1.0), 1));
}

#[test]
fn after_the_last_reduction_a_run_stops_or_continues() {
    let errors = [0.5; 6];
    let (stops, state) = rates(&plateau(2, 1, 0.0, OnExhausted::Stop), &errors[..4]);
    assert_eq!((stops, state.stop, state.reductions), (vec![1.0, 0.5, 0.25, 0.25], true, 2));
    assert!(!rates(&plateau(2, 1, 0.0, OnExhausted::Stop), &errors[..3]).1.stop, "stops one plateau later");
    let (goes_on, state) = rates(&plateau(2, 1, 0.0, OnExhausted::Continue), &errors);
    assert_eq!((goes_on, state.stop), (vec![1.0, 0.5, 0.25, 0.25, 0.25, 0.25], false));
    assert!(rates(&plateau(0, 1, 0.0, OnExhausted::Stop), &errors[..2]).1.stop, "no reduction at all");
}

#[test]
fn validations_several_epochs_apart_count_every_epoch() {
    let schedule = plateau(9, 4, 0.0, OnExhausted::Stop);
    let mut state = ScheduleState::default();
    for (error, epochs, bad_epochs, reductions) in
        [(0.5, 3, 0, 0), (0.5, 3, 3, 0), (0.5, 1, 0, 1), (0.5, 3, 3, 1), (0.4, 3, 0, 1), (0.5, 5, 0, 2)]
    {
        schedule.after_validation(&mut state, error, epochs);
        assert_eq!((state.bad_epochs, state.reductions), (bad_epochs, reductions), "{error}, {epochs}");
    }
}

#[test]
fn steps_reduce_the_learning_rate_from_their_milestones_on() {
    let schedule = Schedule::Steps { lr: 2.0, gamma: 0.5, milestones: vec![2, 4, 6] };
    let rates: Vec<f64> = (0..8).map(|epoch| schedule.lr(&ScheduleState::default(), epoch)).collect();
    assert_eq!(rates, [2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
    let third = Schedule::Steps { lr: 1.0, gamma: 0.5, milestones: vec![3] };
    let rates: Vec<f64> = (0..8).map(|epoch| third.lr(&ScheduleState::default(), epoch)).collect();
    assert_eq!(rates, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]);
    // Two milestones at one epoch are two reductions, as in PyTorch.
    let twice = Schedule::Steps { lr: 1.0, gamma: 0.5, milestones: vec![1, 1] };
    assert_eq!([0, 1].map(|epoch| twice.lr(&ScheduleState::default(), epoch)), [1.0, 0.25]);
    // The validation error has no influence.
    let mut state = ScheduleState::default();
    (0..9).for_each(|_| schedule.after_validation(&mut state, 0.5, 1));
    assert_eq!(state, ScheduleState::default());
}

#[test]
fn a_constant_learning_rate_does_not_change() {
    let constant = Schedule::Constant { lr: 0.03 };
    let state = ScheduleState { reductions: 3, ..ScheduleState::default() };
    assert_eq!([0, 5, 99].map(|epoch| constant.lr(&state, epoch)), [0.03; 3]);
}

#[test]
fn settings_out_of_range_are_rejected() {
    let steps =
        |lr, gamma, milestones: &[usize]| Schedule::Steps { lr, gamma, milestones: milestones.to_vec() };
    let gain = |threshold| plateau(1, 1, threshold, OnExhausted::Stop);
    for sound in [
        steps(1e-9, 1e-9, &[]),
        steps(1.0, 0.999, &[1, 5, 5, 99]),
        gain(0.0),
        gain(-1.0),
        Schedule::Constant { lr: 1e-9 },
    ] {
        sound.check().unwrap_or_else(|e| panic!("{sound:?}: {e}"));
    }
    for wrong in [
        steps(0.0, 0.5, &[]),
        steps(-1.0, 0.5, &[]),
        steps(f64::INFINITY, 0.5, &[]),
        steps(f64::NAN, 0.5, &[]),
        steps(1.0, 0.0, &[]),
        steps(1.0, 1.0, &[]),
        steps(1.0, f64::NAN, &[]),
        steps(1.0, 0.5, &[0]),
        steps(1.0, 0.5, &[6, 5]),
        Schedule::Plateau {
            lr: 1.0,
            factor: 1.5,
            max_reductions: 1,
            patience: 1,
            threshold: 0.0,
            on_exhausted: OnExhausted::Stop,
        },
        gain(f64::NAN),
        gain(f64::INFINITY),
        Schedule::Constant { lr: 0.0 },
    ] {
        assert!(wrong.check().is_err(), "{wrong:?}");
    }
}
