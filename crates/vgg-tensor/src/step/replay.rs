//! Work that repeats.

use crate::cuda::Graph;
use crate::{Device, Error};

/// A row of operations that is done again and again on the same memory, such as a training step.
///
/// On a CPU it is done each time. On a GPU the first time does it, the second time captures it, and from then on the
/// whole row is launched as one, which saves the host its work. What differs from time to time must lie in memory that
/// outlives it: an [`crate::Upload`], a [`crate::StepState`].
#[derive(Default)]
pub struct Replay {
    seen: bool,
    graph: Option<Graph>,
}

impl Replay {
    /// Nothing yet.
    pub fn new() -> Replay {
        Replay::default()
    }

    /// Does the work, by calling `work` or by launching what it did when it was captured. Results must lie in tensors
    /// that are kept.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Cuda`] on a GPU.
    pub fn run<E: From<Error>>(
        &mut self,
        device: &Device,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(cuda) = device.cuda().filter(|cuda| !cuda.is_planning()) else { return work() };
        if self.graph.is_none() && !self.seen {
            cuda.set_choosing(true);
            let done = work();
            cuda.set_choosing(false);
            self.seen = done.is_ok();
            return done;
        }
        let graph = match self.graph.take() {
            Some(graph) => graph,
            None => cuda.capture(work)?,
        };
        graph.launch()?;
        self.graph = Some(graph);
        Ok(())
    }
}
