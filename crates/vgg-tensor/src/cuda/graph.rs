//! CUDA graphs: captured operations that are launched as a whole.

use cudarc::driver::{CudaGraph, sys};

use super::buffer::Reservation;
use super::error::cuda_error;
use super::gpu::Cuda;
use crate::Result;

/// A captured graph. Launching it is sound even if its buffers have been dropped, because their memory is
/// reserved.
pub(crate) struct Graph {
    graph: CudaGraph,
    _memory: Reservation,
    /// The owner of the graph's kernels.
    cuda: Cuda,
}

impl Cuda {
    /// Captures the operations of `work` without running them.
    pub(crate) fn capture<E: From<crate::Error>>(
        &self,
        work: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Graph, E> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        self.main_stream().begin_capture(mode).map_err(cuda_error("cuStreamBeginCapture"))?;
        self.memory.begin_recording();
        let done = work();
        let memory = self.memory.end_recording();
        // End the capture even if `work` failed; otherwise the stream could not be used any more.
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.main_stream().end_capture(flags).map_err(cuda_error("cuStreamEndCapture"));
        done?;
        match graph? {
            Some(graph) => Ok(Graph { graph, _memory: memory, cuda: self.clone() }),
            None => {
                Err(crate::Error::Cuda { call: "cuStreamEndCapture", reason: "the graph is empty".into() }
                    .into())
            }
        }
    }
}

impl Graph {
    /// The GPU on which the graph was captured.
    pub(crate) fn cuda(&self) -> &Cuda {
        &self.cuda
    }

    /// Launches the graph.
    pub(crate) fn launch(&self) -> Result<()> {
        self.graph.launch().map_err(cuda_error("cuGraphLaunch"))
    }
}
