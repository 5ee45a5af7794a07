//! A process group whose ranks are threads of one process, for tests and examples.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::{Error, ProcessGroup, Result};

/// Runs `work` on `size` ranks in parallel, and returns the results in rank order.
///
/// After a rank has returned or panicked, the collectives of the other ranks fail with [`Error::Group`].
///
/// # Panics
/// If `work` panics on a rank.
///
/// ```
/// let sums = vgg_tensor::on_thread_ranks(3, |group| {
///     let mut values = [group.rank() as f32, 1.0];
///     group.all_reduce(&mut values).map(|()| values)
/// });
/// assert!(sums.into_iter().all(|values| values.is_ok_and(|values| values == [3.0, 3.0])));
/// ```
pub fn on_thread_ranks<R: Send>(size: usize, work: impl Fn(Arc<dyn ProcessGroup>) -> R + Sync) -> Vec<R> {
    let state = State { given: vec![None; size], ..State::default() };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    std::thread::scope(|scope| {
        let work = &work;
        let start = |rank| {
            let shared = shared.clone();
            scope.spawn(move || work(Arc::new(ThreadRank { rank, size, shared })))
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

struct ThreadRank {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Values of the ranks that have called the current all-gather.
    given: Vec<Option<Vec<f64>>>,
    /// Values of all ranks in the last complete all-gather.
    gathered: Vec<f64>,
    rounds: usize,
    /// Whether a rank has returned or panicked, so that others would wait for it forever.
    left: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProcessGroup for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        let own: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        let all = self.all_gather(&own)?;
        for (i, value) in values.iter_mut().enumerate() {
            *value = all.iter().skip(i).step_by(own.len()).fold(0.0, |sum, other| sum + *other as f32);
        }
        Ok(())
    }

    fn all_gather(&self, values: &[f64]) -> Result<Vec<f64>> {
        let mut state = self.shared.lock();
        let round = state.rounds;
        state.given[self.rank] = Some(values.to_vec());
        if state.given.iter().all(Option::is_some) {
            state.gathered = state.given.iter_mut().filter_map(Option::take).flatten().collect();
            state.rounds += 1;
            self.shared.changed.notify_all();
        }
        let waiting = |state: &mut State| state.rounds == round && !state.left;
        let state = self.shared.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        if state.rounds == round {
            return Err(Error::Group { reason: "another rank has ended".into() });
        }
        Ok(state.gathered.clone())
    }

    fn abort(&self, code: i32) -> ! {
        panic!("thread rank {} aborts with code {code}", self.rank)
    }
}

impl Drop for ThreadRank {
    fn drop(&mut self) {
        self.shared.lock().left = true;
        self.shared.changed.notify_all();
    }
}
