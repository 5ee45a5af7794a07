//! Work that repeats.

use crate::cuda::Graph;
use crate::{Device, Error};

/// A row of operations that is done again and again on the same memory, such as a training step.
///
/// On a CPU it is done each time. On a GPU the first run does it, the second run captures it as a graph, and from then on
/// the graph is launched, which saves the host its work. A graph repeats the work on the tensors it was captured with:
/// whoever exchanges one of them starts anew with [`StepGraph::new`]. What differs from run to run is in an
/// [`crate::StagedBatch`] or a [`crate::StepState`]. As long as a graph exists, memory of the device that was in use when it
/// was captured is not used for other tensors. No other thread may use the device during a run.
#[derive(Default)]
pub struct StepGraph {
    seen: bool,
    graph: Option<Graph>,
}

impl StepGraph {
    /// Nothing yet.
    pub fn new() -> StepGraph {
        StepGraph::default()
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
        let Some(cuda) = device.cuda().filter(|cuda| !cuda.is_dry_run()) else { return work() };
        if self.graph.is_none() && !self.seen {
            let _autotuning = cuda.autotuning();
            work()?;
            self.seen = true;
            return Ok(());
        }
        let graph = match self.graph.take().filter(|graph| graph.cuda().shares_memory_with(cuda)) {
            Some(graph) => graph,
            None => cuda.capture(work)?,
        };
        graph.launch()?;
        self.graph = Some(graph);
        Ok(())
    }
}
