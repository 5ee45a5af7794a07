//! Helpers of a training loop: asynchronous readback of results, and steps that are captured as CUDA graphs.

mod async_readback;
mod step_graph;

pub use async_readback::AsyncReadback;
pub use step_graph::StepGraph;
