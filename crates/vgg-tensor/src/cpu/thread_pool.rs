//! The thread pool of a CPU device. It runs jobs of numbered tasks and ends each job with a barrier, which
//! costs a microsecond between jobs in quick succession.
//!
//! The calling thread works too, so a pool of `n` threads has `n - 1` workers. An idle worker spins for some
//! microseconds, then sleeps. A worker that wakes too late for a job does not delay it: the caller waits only
//! for the workers that have entered the job.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_utils::sync::{Parker, Unparker};
use crossbeam_utils::{Backoff, CachePadded};

/// Number of polls before a thread sleeps; the pauses between polls grow and take about 30 microseconds in
/// total.
const LOOKS: usize = 30;
/// Bits of [`Shared::state`]: the number of workers inside the job, whether workers may enter it, whether the
/// pool shuts down; the bits above hold the number of the job.
const INSIDE: usize = 0xffff;
const OPEN: usize = 1 << 16;
const END: usize = 1 << 17;
const NUMBER: usize = 1 << 18;

thread_local! {
    /// Whether this thread is running a task. A job that a task starts runs on the task's thread alone.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
    /// Parks this thread while it waits for the workers inside its job.
    static PARKER: Parker = Parker::new();
}

/// A pool of threads.
pub(crate) struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One for each worker.
    unparkers: Vec<Unparker>,
    /// Held by the caller whose job is running.
    turn: Mutex<()>,
}

/// State that all threads share. Each field that threads write while others poll it has its own cache line.
struct Shared {
    state: CachePadded<AtomicUsize>,
    /// Index of the job's next task.
    next: CachePadded<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    /// Number of workers that sleep or are about to sleep.
    sleepers: CachePadded<AtomicUsize>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Tasks `0..n`, and the caller that waits for them.
#[derive(Clone)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    n: usize,
    caller: Unparker,
}

// SAFETY: `job` is written by the caller that holds the turn while no worker is inside, and read by workers
// only after they entered; everything else synchronises itself.
unsafe impl Sync for Shared {}
// SAFETY: as above; a job's pointer is used only while its caller waits.
unsafe impl Send for Shared {}

impl ThreadPool {
    /// Starts a pool of `n` threads: `n - 1` workers and the caller.
    pub(crate) fn start(n: usize) -> std::io::Result<ThreadPool> {
        let shared = Arc::new(Shared {
            state: CachePadded::default(),
            next: CachePadded::default(),
            job: UnsafeCell::new(None),
            sleepers: CachePadded::default(),
            panic: Mutex::default(),
        });
        let mut threads =
            ThreadPool { shared, workers: Vec::new(), unparkers: Vec::new(), turn: Mutex::default() };
        for i in 1..n {
            let shared = threads.shared.clone();
            let parker = Parker::new();
            threads.unparkers.push(parker.unparker().clone());
            let worker = std::thread::Builder::new().name(format!("vgg-cpu-{i}"));
            threads.workers.push(worker.spawn(move || shared.work(&parker))?);
        }
        Ok(threads)
    }

    /// Number of threads, including the caller.
    pub(crate) fn count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0), .. task(n - 1)` in any order, each once, and returns when all are done. A panic in a
    /// task resumes in the caller.
    pub(crate) fn run(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        if n <= 1 || self.workers.is_empty() || IN_TASK.get() {
            return (0..n).for_each(task);
        }
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; the pointer is not used after this function returns.
        let task = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(task)
        };
        // SAFETY: no worker is inside the last job, and the next one is not open yet.
        let job = unsafe { &mut *shared.job.get() };
        let caller = PARKER.with(|parker| parker.unparker().clone());
        let job = job.insert(Job { task, n, caller });
        shared.next.store(0, Relaxed);
        shared.state.fetch_add(NUMBER + OPEN, SeqCst);
        if shared.sleepers.load(SeqCst) > 0 {
            self.unparkers.iter().for_each(Unparker::unpark);
        }
        shared.do_tasks(job);
        shared.state.fetch_sub(OPEN, SeqCst);
        shared.wait_until(|state| state & INSIDE == 0, || PARKER.with(Parker::park));
        let panic = lock(&shared.panic).take();
        if let Some(panic) = panic {
            drop(turn);
            resume_unwind(panic);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.state.fetch_add(END, SeqCst);
        self.unparkers.iter().for_each(Unparker::unpark);
        for worker in self.workers.drain(..) {
            // Workers catch the panics of their tasks, so `join` does not fail.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The main loop of a worker.
    fn work(&self, parker: &Parker) {
        let mut last = 0;
        let fresh = |state: usize, last: usize| state & OPEN != 0 && state / NUMBER != last;
        loop {
            let state = self.wait_until(|s| s & END != 0 || fresh(s, last), || self.sleep(last, parker));
            if state & END != 0 {
                return;
            }
            if self.state.compare_exchange_weak(state, state + 1, SeqCst, Relaxed).is_err() {
                continue;
            }
            last = state / NUMBER;
            // SAFETY: this worker is inside, so the job does not change until it leaves.
            let job = unsafe { (*self.job.get()).clone() };
            if let Some(job) = job {
                self.do_tasks(&job);
                let before = self.state.fetch_sub(1, SeqCst);
                if before & INSIDE == 1 && before & OPEN == 0 {
                    job.caller.unpark();
                }
            }
        }
    }

    /// Spins until the state satisfies `done`; calls `rest` after every [`LOOKS`] polls.
    fn wait_until(&self, done: impl Fn(usize) -> bool, rest: impl Fn()) -> usize {
        loop {
            let backoff = Backoff::new();
            for _ in 0..LOOKS {
                let state = self.state.load(Acquire);
                if done(state) {
                    return state;
                }
                backoff.spin();
            }
            rest();
        }
    }

    /// Sleeps until there is a job after `last` or the pool shuts down.
    fn sleep(&self, last: usize, parker: &Parker) {
        // A caller changes the state, then reads `sleepers`. The reverse order here prevents a lost wake-up.
        self.sleepers.fetch_add(1, SeqCst);
        let idle = |state: usize| state & END == 0 && (state & OPEN == 0 || state / NUMBER == last);
        while idle(self.state.load(SeqCst)) {
            parker.park();
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }

    /// Runs tasks until none is left.
    fn do_tasks(&self, job: &Job) {
        // SAFETY: the caller of the job is still in `run`.
        let task = unsafe { &*job.task };
        let outer = IN_TASK.replace(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let i = self.next.fetch_add(1, Relaxed);
                if i >= job.n {
                    return;
                }
                task(i);
            }
        }));
        IN_TASK.set(outer);
        if let Err(panic) = result {
            // Skip the remaining tasks.
            self.next.store(job.n, Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data of these mutexes is always consistent, so a poisoned lock is safe to use.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    #[test]
    fn every_task_runs_once_in_quick_and_slow_jobs() {
        for n in [1, 2, 5] {
            let threads = ThreadPool::start(n).unwrap();
            for job in 0..if cfg!(miri) { 20 } else { 2000 } {
                let tasks = job % 7;
                let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                threads.run(tasks, &|i| {
                    counts[i].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
                if job % 500 == 0 {
                    std::thread::sleep(Duration::from_millis(2)); // long enough for the workers to sleep
                }
            }
        }
    }

    #[test]
    fn nested_jobs_and_jobs_of_several_callers_complete() {
        let threads = ThreadPool::start(3).unwrap();
        let total = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        threads.run(4, &|_| {
                            threads.run(3, &|_| {
                                total.fetch_add(1, Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 3 * 50 * 12);
    }

    #[test]
    fn a_panic_resumes_in_the_caller_and_the_pool_stays_usable() {
        let threads = ThreadPool::start(2).unwrap();
        let job = |i: usize| assert!(i != 3, "task three");
        assert!(catch_unwind(AssertUnwindSafe(|| threads.run(8, &job))).is_err());
        let done = AtomicU32::new(0);
        threads.run(8, &|_| {
            done.fetch_add(1, Relaxed);
        });
        assert_eq!(done.into_inner(), 8);
    }
}
