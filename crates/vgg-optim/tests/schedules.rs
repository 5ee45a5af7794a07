//! Learning rates of every epoch, worked out by hand.

use vgg_optim::{OnExhausted, Schedule, ScheduleState};

fn plateau(max_reductions: usize, patience: usize, threshold: f64, on_exhausted: OnExhausted) -> Schedule {
    Schedule::Plateau { lr: 1.0, factor: 0.5, max_reductions, patience, threshold, on_exhausted }
}

/// The rate after each of these validation errors, an epoch apart.
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
    // Best: 0.5 at first, then 0.4; equal errors are no gain.
    let errors = [0.5, 0.6, 0.4, 0.4, 0.45, 0.41, 0.4, 0.4];
    let (rates, state) = rates(&plateau(9, 3, 0.0, OnExhausted::Stop), &errors);
    assert_eq!(rates, [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]);
    assert_eq!(state, ScheduleState { reductions: 1, best: Some(0.4), bad_epochs: 2, stop: false });
}

#[test]
fn a_gain_must_be_above_the_least_gain() {
    // 0.25 less each time: no gain if the least is 0.25, a gain if it is just below.
    let errors = [1.0, 0.75, 0.5];
    assert_eq!(rates(&plateau(9, 1, 0.25, OnExhausted::Stop), &errors).0, [1.0, 0.5, 0.5]);
    assert_eq!(rates(&plateau(9, 1, 0.2499, OnExhausted::Stop), &errors).0, [1.0, 1.0, 1.0]);
    // Compared with the best error, and not with the one before.
    assert_eq!(rates(&plateau(9, 1, 0.25, OnExhausted::Stop), &[1.0, 0.875, 0.625]).0, [1.0, 0.5, 0.5]);
    // Compared with the error that was a gain, and not with smaller ones that were none.
    let (_, state) = rates(&plateau(9, 9, 0.25, OnExhausted::Stop), &[1.0, 0.875]);
    assert_eq!((state.best, state.bad_epochs), (Some(1.0), 1));
}

#[test]
fn after_the_last_cut_a_run_stops_or_goes_on() {
    let errors = [0.5; 6];
    let (stops, state) = rates(&plateau(2, 1, 0.0, OnExhausted::Stop), &errors[..4]);
    assert_eq!((stops, state.stop, state.reductions), (vec![1.0, 0.5, 0.25, 0.25], true, 2));
    assert!(!rates(&plateau(2, 1, 0.0, OnExhausted::Stop), &errors[..3]).1.stop, "only one plateau later");
    let (goes_on, state) = rates(&plateau(2, 1, 0.0, OnExhausted::Continue), &errors);
    assert_eq!((goes_on, state.stop), (vec![1.0, 0.5, 0.25, 0.25, 0.25, 0.25], false));
    assert!(rates(&plateau(0, 1, 0.0, OnExhausted::Stop), &errors[..2]).1.stop, "no cut at all");
}

#[test]
fn validations_some_epochs_apart_count_all_of_them() {
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
fn steps_reduce_the_rate_from_their_milestones_on() {
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
fn a_constant_rate_stays() {
    let constant = Schedule::Constant { lr: 0.03 };
    let state = ScheduleState { reductions: 3, ..ScheduleState::default() };
    assert_eq!([0, 5, 99].map(|epoch| constant.lr(&state, epoch)), [0.03; 3]);
}

#[test]
fn settings_that_make_no_sense_are_refused_at_their_limits() {
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
