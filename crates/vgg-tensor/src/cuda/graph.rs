//! Captured operations, to be launched again as a whole.

use cudarc::driver::{CudaGraph, sys};

use super::buffer::Reservation;
use super::error::cuda_error;
use super::gpu::Cuda;
use crate::Result;

/// Captured operations. Launching them is sound whatever was dropped since: their memory is kept from others.
pub(crate) struct Graph {
    graph: CudaGraph,
    _memory: Reservation,
    /// The owner of the kernels in it.
    cuda: Cuda,
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
            Some(graph) => Ok(Graph { graph, _memory: memory, cuda: self.clone() }),
            None => {
                Err(crate::Error::Cuda { call: "cuStreamEndCapture", reason: "nothing was captured".into() }
                    .into())
            }
        }
    }
}

impl Graph {
    /// The GPU that it was captured on.
    pub(crate) fn cuda(&self) -> &Cuda {
        &self.cuda
    }

    /// Does the work once more.
    pub(crate) fn launch(&self) -> Result<()> {
        self.graph.launch().map_err(cuda_error("cuGraphLaunch"))
    }
}
