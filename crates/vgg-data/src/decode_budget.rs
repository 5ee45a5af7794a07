//! A limit on the memory that decoders of all threads use together.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Memory that decoding may use at a time, in bytes: 1 GiB. An image that needs more is decoded alone.
const TOTAL_BYTES: u64 = 1 << 30;

static BUDGET: Budget =
    Budget { state: Mutex::new(State { used: 0, next_ticket: 0, served: 0 }), changed: Condvar::new() };

struct Budget {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    used: u64,
    /// Requests are served in order, so that a large one is not overtaken for ever.
    next_ticket: u64,
    served: u64,
}

/// Memory that a decoder may use until this is dropped.
pub(crate) struct Reservation(u64);

/// Waits until `bytes` of the budget are free.
pub(crate) fn reserve(bytes: u64) -> Reservation {
    let mut state = lock();
    let ticket = state.next_ticket;
    state.next_ticket += 1;
    let must_wait =
        |state: &mut State| state.served != ticket || state.used > 0 && state.used + bytes > TOTAL_BYTES;
    let mut state = BUDGET.changed.wait_while(state, must_wait).unwrap_or_else(PoisonError::into_inner);
    state.served += 1;
    state.used += bytes;
    drop(state);
    BUDGET.changed.notify_all();
    Reservation(bytes)
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock().used -= self.0;
        BUDGET.changed.notify_all();
    }
}

fn lock() -> MutexGuard<'static, State> {
    BUDGET.state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;

    #[test]
    fn threads_stay_within_the_budget() {
        static USED: AtomicU64 = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for i in 1..9_u64 {
                scope.spawn(move || {
                    for k in 0..50 {
                        let bytes = (i * 7 + k) % 11 * TOTAL_BYTES / 10;
                        let reserved = reserve(bytes);
                        let used = USED.fetch_add(bytes, SeqCst) + bytes;
                        assert!(used <= TOTAL_BYTES || used == bytes, "{used}");
                        USED.fetch_sub(bytes, SeqCst);
                        drop(reserved);
                    }
                });
            }
        });
        assert_eq!(lock().used, 0);
    }
}
