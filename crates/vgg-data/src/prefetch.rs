//! [`Prefetcher`]: worker threads whose results are returned in the order of the jobs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::{Error, Result};

/// A pool of worker threads that turn jobs into results. Results are returned in the order in which jobs were
/// submitted, for any number of workers.
pub struct Prefetcher<J: Send + 'static, T: Send + 'static> {
    jobs: Option<Sender<(u64, J)>>,
    results: Receiver<(u64, Option<T>)>,
    workers: Vec<JoinHandle<()>>,
    early: BTreeMap<u64, Option<T>>,
    submitted: u64,
    taken: u64,
    depth: usize,
    waited: Duration,
    /// Set on drop: workers then discard the queued jobs.
    abandoned: Arc<AtomicBool>,
}

impl<J: Send + 'static, T: Send + 'static> Prefetcher<J, T> {
    /// Starts `workers` threads (at least one) that run `work`. `depth` is the largest number of submitted
    /// jobs whose results have not been taken. If the system starts fewer threads, these do the work.
    ///
    /// # Errors
    /// [`Error::Threads`] if the system starts none.
    pub fn new(workers: usize, depth: usize, work: impl Fn(J) -> T + Send + Sync + 'static) -> Result<Self> {
        let (jobs, to_do) = bounded::<(u64, J)>(depth.max(1));
        let (done, results) = unbounded();
        let (work, abandoned) = (Arc::new(work), Arc::new(AtomicBool::new(false)));
        let mut started = Vec::new();
        for _ in 0..workers.max(1) {
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
            match named.spawn(run) {
                Ok(worker) => started.push(worker),
                Err(e) if started.is_empty() => return Err(Error::Threads { reason: e.to_string() }),
                Err(_) => break,
            }
        }
        Ok(Prefetcher {
            jobs: Some(jobs),
            results,
            workers: started,
            early: BTreeMap::new(),
            submitted: 0,
            taken: 0,
            depth: depth.max(1),
            waited: Duration::ZERO,
            abandoned,
        })
    }

    /// Whether fewer than `depth` jobs are under way.
    pub fn has_room(&self) -> bool {
        self.under_way() < self.depth
    }

    /// Number of submitted jobs whose results have not been taken.
    pub fn under_way(&self) -> usize {
        (self.submitted - self.taken) as usize
    }

    /// Submits a job to the workers.
    ///
    /// # Errors
    /// [`Error::Worker`] if the workers have exited.
    pub fn submit(&mut self, job: J) -> Result<()> {
        let jobs = self.jobs.as_ref().ok_or(Error::Worker)?;
        jobs.send((self.submitted, job)).map_err(|_| Error::Worker)?;
        self.submitted += 1;
        Ok(())
    }

    /// Waits for the result of the oldest job; `None` if no job is under way.
    ///
    /// # Errors
    /// [`Error::Worker`] if the job panicked or the workers have exited.
    pub fn recv(&mut self) -> Result<Option<T>> {
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

    /// Time spent waiting in [`Prefetcher::recv`] since the last call of this function.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

impl<J: Send + 'static, T: Send + 'static> Drop for Prefetcher<J, T> {
    fn drop(&mut self) {
        // The workers exit after their current jobs.
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
    fn results_are_in_the_order_of_jobs() {
        for workers in [1, 4] {
            let mut p = Prefetcher::new(workers, 8, |i: u64| {
                std::thread::sleep(Duration::from_micros((7 * i) % 5 * 200));
                i * i
            })
            .unwrap();
            let mut next = 0;
            for expected in 0..50 {
                while p.has_room() && next < 50 {
                    p.submit(next).unwrap();
                    next += 1;
                }
                assert_eq!(p.recv().unwrap(), Some(expected * expected));
            }
            assert_eq!(p.recv().unwrap(), None);
        }
    }

    #[test]
    fn a_panicking_job_returns_an_error() {
        let mut p = Prefetcher::new(2, 4, |i: u32| {
            assert!(i != 1, "on purpose");
            i
        })
        .unwrap();
        (0..3).for_each(|i| p.submit(i).unwrap());
        assert_eq!(p.recv().unwrap(), Some(0));
        assert!(matches!(p.recv(), Err(Error::Worker)));
        assert_eq!(p.recv().unwrap(), Some(2));
    }
}
