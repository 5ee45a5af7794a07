//! A captured row of operations, to be launched again as a whole.

use std::sync::PoisonError;

use cudarc::driver::{CudaGraph, sys};

use super::buffer::Reservation;
use super::{Cuda, cuda_error};
use crate::Result;

/// Work that repeats, with the memory that it goes through.
pub(crate) struct Graph {
    graph: CudaGraph,
    /// What the operations used and gave back is kept from others.
    _memory: Reservation,
}

impl Cuda {
    /// Captures what `work` would do, without doing it. Dropout takes the step's number from `state` meanwhile.
    pub(crate) fn capture<E: From<crate::Error>>(
        &self,
        state: u64,
        work: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Graph, E> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        self.gpu.stream.begin_capture(mode).map_err(cuda_error("cuStreamBeginCapture"))?;
        self.memory.begin_recording();
        *self.gpu.captured_step.lock().unwrap_or_else(PoisonError::into_inner) = state;
        let done = work();
        *self.gpu.captured_step.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        let memory = self.memory.end_recording();
        // The capture ends in any case, else the stream could not be used any more.
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.gpu.stream.end_capture(flags).map_err(cuda_error("cuStreamEndCapture"));
        done?;
        match graph? {
            Some(graph) => Ok(Graph { graph, _memory: memory }),
            None => {
                Err(crate::Error::Cuda { call: "cuStreamEndCapture", reason: "nothing was captured".into() }
                    .into())
            }
        }
    }

    /// Where the step's number lies, while a step is captured; else 0.
    pub(crate) fn captured_step(&self) -> u64 {
        *self.gpu.captured_step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Graph {
    /// Does the work once more.
    pub(crate) fn launch(&self) -> Result<()> {
        self.graph.launch().map_err(cuda_error("cuGraphLaunch"))
    }
}
