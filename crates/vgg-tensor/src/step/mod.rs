//! What a loop of steps uses besides operations: results on their way to the host, and steps that are captured and launched as one.

mod async_readback;
mod step_graph;

pub use async_readback::AsyncReadback;
pub use step_graph::StepGraph;
