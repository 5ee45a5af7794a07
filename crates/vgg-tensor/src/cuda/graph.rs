//! A captured row of operations, to be launched again as a whole.

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
    /// Captures what `work` would do, without doing it.
    pub(crate) fn capture<E: From<crate::Error>>(
        &self,
        work: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Graph, E> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        self.main_stream().begin_capture(mode).map_err(cuda_error("cuStreamBeginCapture"))?;
        self.memory.begin_recording();
        let done = work();
        let memory = self.memory.end_recording();
        // The capture ends in any case, else the stream could not be used any more.
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.main_stream().end_capture(flags).map_err(cuda_error("cuStreamEndCapture"));
        done?;
        match graph? {
            Some(graph) => Ok(Graph { graph, _memory: memory }),
            None => {
                Err(crate::Error::Cuda { call: "cuStreamEndCapture", reason: "nothing was captured".into() }
                    .into())
            }
        }
    }

    /// Whether the stream takes down work instead of doing it.
    pub(crate) fn is_capturing(&self) -> Result<bool> {
        let status = self.main_stream().capture_status().map_err(cuda_error("cuStreamIsCapturing"))?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }
}

impl Graph {
    /// Does the work once more.
    pub(crate) fn launch(&self) -> Result<()> {
        self.graph.launch().map_err(cuda_error("cuGraphLaunch"))
    }
}
