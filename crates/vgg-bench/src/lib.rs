//! Benchmark workloads of VGG networks (inference, dense evaluation, training steps, test protocols), times
//! per layer against peak throughput, and training checks for a GPU self-test.

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

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

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A benchmark that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Results that differ from those of direct convolutions, or are not finite.
    #[error("{0}")]
    WrongResult(String),
    /// A tensor operation or the device failed.
    #[error(transparent)]
    Tensor(#[from] vgg_tensor::Error),
    /// The network failed.
    #[error(transparent)]
    Network(#[from] vgg_layers::Error),
    /// The optimiser failed.
    #[error(transparent)]
    Optim(#[from] vgg_optim::Error),
    /// Training failed.
    #[error(transparent)]
    Train(#[from] vgg_train::Error),
    /// Evaluation failed.
    #[error(transparent)]
    Eval(#[from] vgg_eval::Error),
    /// The images could not be processed.
    #[error(transparent)]
    Data(#[from] vgg_data::Error),
}

impl Error {
    /// The kind of error, for an exit code for instance.
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
