//! What a loop of steps uses besides operations: results on their way to the host, and steps that are captured and launched as one.

mod readback;
mod replay;

pub use readback::AsyncReadback;
pub use replay::StepGraph;
