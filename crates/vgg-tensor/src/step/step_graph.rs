//! Training steps as CUDA graphs.

use crate::cuda::Graph;
use crate::{Device, Error};

/// A sequence of operations that runs repeatedly on the same memory, such as a training step.
///
/// A CPU runs the operations each time. A GPU runs them the first time, captures them as a CUDA graph the
/// second time, and from then on only launches the graph, which saves host time. A graph uses the tensors
/// that it was captured with; if one of them is replaced, start over with [`StepGraph::new`]. Inputs that
/// change from run to run belong in a [`crate::StagedBatch`] or a [`crate::StepState`]. While a graph exists,
/// device memory that was in use during its capture is not reused for other tensors. No other thread may use
/// the device during a run.
#[derive(Default)]
pub struct StepGraph {
    seen: bool,
    graph: Option<Graph>,
}

impl StepGraph {
    /// A graph that has captured nothing yet.
    pub fn new() -> StepGraph {
        StepGraph::default()
    }

    /// Runs the operations: calls `work`, or launches its captured graph. `work` must store results in
    /// tensors that outlive it.
    ///
    /// # Errors
    /// Errors of `work`; [`Error::Cuda`] on a GPU.
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
