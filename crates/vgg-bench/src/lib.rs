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
use vgg_error::ErrorKind;
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
    #[error("{0}")]
    Tensor(#[from] vgg_tensor::Error),
    /// The network.
    #[error("{0}")]
    Network(#[from] vgg_layers::Error),
    /// The optimiser.
    #[error("{0}")]
    Optim(#[from] vgg_optim::Error),
    /// Training.
    #[error("{0}")]
    Train(#[from] vgg_train::Error),
    /// Evaluation.
    #[error("{0}")]
    Eval(#[from] vgg_eval::Error),
    /// The images.
    #[error("{0}")]
    Data(#[from] vgg_data::Error),
}

impl Error {
    /// The kind of error, such as for an exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::WrongResult(_) => ErrorKind::Other,
            Error::Tensor(source) => source.kind(),
            Error::Network(source) => source.kind(),
            Error::Optim(source) => source.kind(),
            Error::Train(source) => source.kind(),
            Error::Eval(source) => source.kind(),
            Error::Data(source) => source.kind(),
        }
    }
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::WrongResult(otherwise())) }
}
