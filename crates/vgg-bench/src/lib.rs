//! Benchmark workloads of VGG networks (inference, dense evaluation, training steps, test protocols), times
//! per layer against peak throughput, and training checks for a GPU self-test.

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
    #[error("{0}")]
    Tensor(#[from] vgg_tensor::Error),
    /// The network failed.
    #[error("{0}")]
    Network(#[from] vgg_layers::Error),
    /// The optimiser failed.
    #[error("{0}")]
    Optim(#[from] vgg_optim::Error),
    /// Training failed.
    #[error("{0}")]
    Train(#[from] vgg_train::Error),
    /// Evaluation failed.
    #[error("{0}")]
    Eval(#[from] vgg_eval::Error),
    /// The images could not be processed.
    #[error("{0}")]
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
