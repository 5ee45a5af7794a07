//! All-reduce in host memory: a thread passes buckets of copied values to the group's transport.

use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::BUCKET_BYTES;
use crate::{Error, ProcessGroup, Result, StepState, Tensor};

/// Values of a bucket.
const BUCKET: usize = BUCKET_BYTES / size_of::<f32>();

pub(super) struct HostReducer {
    to_reduce: Option<Sender<Vec<f32>>>,
    reduced: Receiver<Result<Vec<f32>>>,
    thread: Option<JoinHandle<()>>,
    filling: Vec<f32>,
    under_way: usize,
    spare: Vec<Vec<f32>>,
}

impl HostReducer {
    pub(super) fn new(group: Arc<dyn ProcessGroup>) -> Result<HostReducer> {
        let (to_reduce, buckets) = unbounded::<Vec<f32>>();
        let (done, reduced) = unbounded();
        let work = move || {
            for mut bucket in buckets {
                let result = group.all_reduce(&mut bucket).map(|()| bucket);
                if done.send(result).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("vgg-all-reduce".into()).spawn(work);
        let thread = thread.map_err(|e| Error::Threads { threads: 1, reason: e.to_string() })?;
        Ok(HostReducer {
            to_reduce: Some(to_reduce),
            reduced,
            thread: Some(thread),
            filling: Vec::with_capacity(BUCKET),
            under_way: 0,
            spare: Vec::new(),
        })
    }

    pub(super) fn begin(&mut self, mut values: &[f32]) {
        while !values.is_empty() {
            let (now, later) = values.split_at(values.len().min(BUCKET - self.filling.len()));
            self.filling.extend_from_slice(now);
            values = later;
            if self.filling.len() == BUCKET {
                self.send();
            }
        }
    }

    fn send(&mut self) {
        let next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BUCKET));
        let bucket = std::mem::replace(&mut self.filling, next);
        if let Some(to_reduce) = &self.to_reduce {
            // If the thread has ended, `refill` reports it.
            let _ = to_reduce.send(bucket);
            self.under_way += 1;
        }
    }

    pub(super) fn finish<'a>(
        &mut self,
        tensors: impl Iterator<Item = Result<&'a mut Tensor>>,
        state: &StepState,
    ) -> Result<()> {
        // The flag is reduced as one more value: a loss may be non-finite while all gradients are finite.
        self.begin(&[if state.finite()? { 0.0 } else { f32::NAN }]);
        self.send();
        let mut current = ReducedBucket { bucket: Vec::new(), at: 0 };
        for tensor in tensors {
            let mut to = tensor?.cpu_mut("all_reduce", "a tensor")?;
            while !to.is_empty() {
                self.refill(&mut current)?;
                let from = current.next_values(to.len());
                let (now, later) = to.split_at_mut(from.len());
                now.copy_from_slice(from);
                state.flag().check(now);
                to = later;
            }
        }
        self.refill(&mut current)?;
        state.flag().check(current.next_values(1));
        current.bucket.clear();
        self.spare.push(current.bucket);
        Ok(())
    }

    /// Receives the next reduced bucket once the last one is used up.
    fn refill(&mut self, current: &mut ReducedBucket) -> Result<()> {
        if current.at < current.bucket.len() {
            return Ok(());
        }
        let too_many = || Error::Internal("all-reduce: finish got more tensors than begin".into());
        let ended = |_| Error::Internal("the all-reduce thread has ended".into());
        self.under_way = self.under_way.checked_sub(1).ok_or_else(too_many)?;
        let mut used = std::mem::replace(&mut current.bucket, self.reduced.recv().map_err(ended)??);
        current.at = 0;
        used.clear();
        if used.capacity() > 0 {
            self.spare.push(used);
        }
        Ok(())
    }
}

/// A reduced bucket.
struct ReducedBucket {
    bucket: Vec<f32>,
    at: usize,
}

impl ReducedBucket {
    fn next_values(&mut self, most: usize) -> &[f32] {
        let start = self.at;
        self.at = (start + most).min(self.bucket.len());
        &self.bucket[start..self.at]
    }
}

impl Drop for HostReducer {
    fn drop(&mut self) {
        self.to_reduce = None;
        if let Some(thread) = self.thread.take() {
            // The thread returns nothing, and sends its errors with the sums.
            let _ = thread.join();
        }
    }
}
