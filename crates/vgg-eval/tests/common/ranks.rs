//! Ranks that are threads of one process.

use std::sync::{Arc, Condvar, Mutex};

use vgg_tensor::{Error, RankGroup, Result};

/// One of several threads. Once it is dropped, calls of the others fail, as if its process had ended.
pub struct Rank {
    number: usize,
    shared: Arc<Shared>,
}

struct Shared {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Calls of `gather` that are complete.
    complete: u64,
    /// Values of the ranks in the current call.
    given: Vec<Option<Vec<f64>>>,
    /// Values of the last complete call.
    all: Vec<f64>,
    left: bool,
}

/// Results of `one` on each of `size` ranks.
pub fn on_ranks<R: Send>(size: usize, one: impl Fn(&Rank) -> R + Sync) -> Vec<R> {
    let state = State { given: vec![None; size], ..State::default() };
    let shared = Arc::new(Shared { size, state: Mutex::new(state), changed: Condvar::new() });
    std::thread::scope(|scope| {
        let one = &one;
        let start = |number| {
            let rank = Rank { number, shared: shared.clone() };
            scope.spawn(move || one(&rank))
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

impl Drop for Rank {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().left = true;
        self.shared.changed.notify_all();
    }
}

impl RankGroup for Rank {
    fn rank(&self) -> usize {
        self.number
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        let own: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        let all = self.gather(&own)?;
        for (i, value) in values.iter_mut().enumerate() {
            *value = all.iter().skip(i).step_by(own.len()).fold(0.0, |sum, other| sum + *other as f32);
        }
        Ok(())
    }

    fn gather(&self, values: &[f64]) -> Result<Vec<f64>> {
        let mut state = self.shared.state.lock().unwrap();
        let call = state.complete;
        state.given[self.number] = Some(values.to_vec());
        if state.given.iter().all(Option::is_some) {
            state.all = state.given.iter_mut().flat_map(|given| given.take().unwrap()).collect();
            state.complete += 1;
            self.shared.changed.notify_all();
        }
        while state.complete == call {
            if state.left {
                return Err(Error::Group { reason: "a rank has left".into() });
            }
            state = self.shared.changed.wait(state).unwrap();
        }
        Ok(state.all.clone())
    }

    fn abort(&self, code: i32) -> ! {
        panic!("rank {} aborts with code {code}", self.number)
    }
}
