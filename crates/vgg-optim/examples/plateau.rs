//! Prints the learning rates of the paper's schedule for a synthetic validation curve.

use vgg_optim::{OnExhausted, Schedule, ScheduleState};

fn main() {
    let (lr, factor, max_reductions, patience, threshold) = (1e-2, 0.1, 3, 4, 1e-3);
    let schedule = Schedule::Plateau {
        lr,
        factor,
        max_reductions,
        patience,
        threshold,
        on_exhausted: OnExhausted::Stop,
    };
    let mut state = ScheduleState::default();
    for epoch in 0..74 {
        // Each reduction lowers the floor of the error.
        let floor = 0.3 - 0.05 * state.reductions as f64;
        let error = floor + 0.6 * 0.8f64.powi(epoch);
        println!("epoch {epoch:2}  lr {:.0e}  error {error:.3}", schedule.lr(&state, epoch as usize));
        schedule.after_validation(&mut state, error, 1);
        if state.stop {
            return;
        }
    }
}
