//! Workloads of VGG networks to time: inference, dense evaluation, training steps, and all test protocols; what each layer takes
//! beside what would limit it; and training steps to check a GPU by.

#![warn(clippy::unwrap_used)]

mod figures;
mod protocols;
mod report;
mod speed;
mod training_checks;
mod workload;

pub use figures::{LayerFigures, layer_figures};
pub use protocols::{ProtocolCost, protocol_costs};
pub use report::{BenchReport, EngineFigures, engine_figures};
pub use speed::forward_gflops;
pub use training_checks::{TRAINING_CHECKS, training_tolerance};
pub use workload::{Mode, Workload};

/// Result of a benchmark.
pub type Result<T> = std::result::Result<T, Error>;

/// A benchmark that could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Results that are not those of direct convolutions, or not finite.
    #[error("{0}")]
    WrongResult(String),
    /// An operation.
    #[error(transparent)]
    Tensor(#[from] vgg_tensor::Error),
    /// The network.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
    /// The optimiser.
    #[error(transparent)]
    Optim(#[from] vgg_optim::Error),
    /// Training.
    #[error(transparent)]
    Train(#[from] vgg_train::Error),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] vgg_eval::Error),
    /// The images.
    #[error(transparent)]
    Data(#[from] vgg_data::Error),
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::WrongResult(otherwise())) }
}
