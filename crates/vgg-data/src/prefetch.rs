//! Work done ahead by other threads and handed out in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::{Error, Result};

/// Persistent workers that turn jobs into results. Results come out in the order in which jobs went in, whatever the
/// number of workers.
pub struct Prefetcher<J: Send + 'static, T: Send + 'static> {
    jobs: Option<Sender<(u64, J)>>,
    results: Receiver<(u64, Option<T>)>,
    workers: Vec<JoinHandle<()>>,
    early: BTreeMap<u64, Option<T>>,
    submitted: u64,
    taken: u64,
    depth: usize,
    waited: Duration,
    /// Set when nobody waits for results any more: jobs that still queue are passed over.
    abandoned: Arc<AtomicBool>,
}

impl<J: Send + 'static, T: Send + 'static> Prefetcher<J, T> {
    /// Starts `workers` threads (at least one) that run `work`; at most `depth` jobs are under way or done and not yet
    /// taken.
    pub fn new(workers: usize, depth: usize, work: impl Fn(J) -> T + Send + Sync + 'static) -> Self {
        let (jobs, to_do) = bounded::<(u64, J)>(depth.max(1));
        let (done, results) = unbounded();
        let (work, abandoned) = (Arc::new(work), Arc::new(AtomicBool::new(false)));
        let workers = (0..workers.max(1))
            .map(|_| {
                let (to_do, done, work) = (to_do.clone(), done.clone(), work.clone());
                let abandoned = abandoned.clone();
                let run = move || {
                    for (number, job) in to_do {
                        if abandoned.load(Relaxed) {
                            return;
                        }
                        let result = catch_unwind(AssertUnwindSafe(|| work(job))).ok();
                        if done.send((number, result)).is_err() {
                            return;
                        }
                    }
                };
                let named = std::thread::Builder::new().name("vgg-loader".into());
                named.spawn(run).expect("the system starts a thread")
            })
            .collect();
        Prefetcher {
            jobs: Some(jobs),
            results,
            workers,
            early: BTreeMap::new(),
            submitted: 0,
            taken: 0,
            depth: depth.max(1),
            waited: Duration::ZERO,
            abandoned,
        }
    }

    /// Whether another job may be submitted before a result is taken.
    pub fn has_room(&self) -> bool {
        self.under_way() < self.depth
    }

    /// Jobs submitted whose results have not been taken.
    pub fn under_way(&self) -> usize {
        (self.submitted - self.taken) as usize
    }

    /// Hands a job to the workers.
    ///
    /// # Errors
    /// [`Error::Worker`] if they are gone.
    pub fn submit(&mut self, job: J) -> Result<()> {
        let jobs = self.jobs.as_ref().ok_or(Error::Worker)?;
        jobs.send((self.submitted, job)).map_err(|_| Error::Worker)?;
        self.submitted += 1;
        Ok(())
    }

    /// The result of the oldest job, or `None` if there is none under way.
    ///
    /// # Errors
    /// [`Error::Worker`] if a worker panicked.
    pub fn take(&mut self) -> Result<Option<T>> {
        if self.under_way() == 0 {
            return Ok(None);
        }
        let start = Instant::now();
        while !self.early.contains_key(&self.taken) {
            let (number, result) = self.results.recv().map_err(|_| Error::Worker)?;
            self.early.insert(number, result);
        }
        self.waited += start.elapsed();
        let result = self.early.remove(&self.taken).flatten();
        self.taken += 1;
        result.map(Some).ok_or(Error::Worker)
    }

    /// How long the consumer has waited for results since the last call of this.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

impl<J: Send + 'static, T: Send + 'static> Drop for Prefetcher<J, T> {
    fn drop(&mut self) {
        // Ends the workers after their current jobs.
        self.abandoned.store(true, Relaxed);
        self.jobs = None;
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_jobs() {
        for workers in [1, 4] {
            let mut p = Prefetcher::new(workers, 8, |i: u64| {
                std::thread::sleep(Duration::from_micros((7 * i) % 5 * 200));
                i * i
            });
            let mut next = 0;
            for expected in 0..50 {
                while p.has_room() && next < 50 {
                    p.submit(next).unwrap();
                    next += 1;
                }
                assert_eq!(p.take().unwrap(), Some(expected * expected));
            }
            assert_eq!(p.take().unwrap(), None);
        }
    }

    #[test]
    fn a_panic_is_an_error_and_not_a_hang() {
        let mut p = Prefetcher::new(2, 4, |i: u32| {
            assert!(i != 1, "on purpose");
            i
        });
        (0..3).for_each(|i| p.submit(i).unwrap());
        assert_eq!(p.take().unwrap(), Some(0));
        assert!(matches!(p.take(), Err(Error::Worker)));
        assert_eq!(p.take().unwrap(), Some(2));
    }
}
