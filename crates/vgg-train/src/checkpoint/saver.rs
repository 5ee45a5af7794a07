//! Writing checkpoints in a background thread.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use vgg_weights::WeightsMetadata;

use super::{Snapshot, in_its_place, prune};
use crate::{Error, Result};

/// A thread that writes snapshots in order.
pub(crate) struct Saver {
    jobs: Option<Sender<Snapshot>>,
    done: Receiver<Result<()>>,
    thread: Option<JoinHandle<()>>,
    under_way: usize,
}

impl Saver {
    pub(crate) fn new(dir: &Path, metadata: &WeightsMetadata, keep: usize) -> Result<Saver> {
        let (jobs, to_do) = unbounded::<Snapshot>();
        let (tell, done) = unbounded();
        let (dir, metadata): (PathBuf, WeightsMetadata) = (dir.to_owned(), metadata.clone());
        let work = move || {
            for snapshot in to_do {
                let written = in_its_place(&dir, || {
                    snapshot.write(&dir, &metadata)?;
                    prune(&dir, &snapshot.state.metrics, keep)
                });
                if tell.send(written).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("vgg-checkpoint".into()).spawn(work);
        let thread = thread.map_err(|e| vgg_tensor::Error::Threads { threads: 1, reason: e.to_string() })?;
        Ok(Saver { jobs: Some(jobs), done, thread: Some(thread), under_way: 0 })
    }

    /// Whether an earlier snapshot is still being written.
    ///
    /// # Errors
    /// The error of an earlier snapshot.
    pub(crate) fn is_busy(&mut self) -> Result<bool> {
        while let Ok(written) = self.done.try_recv() {
            self.under_way -= 1;
            written?;
        }
        Ok(self.under_way > 0)
    }

    /// Waits until the earlier snapshots are written, and hands this one to the thread.
    ///
    /// # Errors
    /// The error of an earlier snapshot.
    pub(crate) fn save(&mut self, snapshot: Snapshot) -> Result<()> {
        self.wait()?;
        let gone = || Error::Internal("the checkpoint thread has exited".into());
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(snapshot).map_err(|_| gone())?;
        self.under_way += 1;
        Ok(())
    }

    /// Waits until all snapshots are written.
    ///
    /// # Errors
    /// The error of a snapshot.
    pub(crate) fn wait(&mut self) -> Result<()> {
        while self.under_way > 0 {
            self.under_way -= 1;
            let gone = |_| Error::Internal("the checkpoint thread panicked".into());
            self.done.recv().map_err(gone)??;
        }
        Ok(())
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        // Finish writing the snapshots, even if training ends with another error.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
