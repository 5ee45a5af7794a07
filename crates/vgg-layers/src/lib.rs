//! The ConvNets of Simonyan & Zisserman 2015 (Table 1): A, A-LRN, B, C, D, E, the 5x5 variant of B from
//! section 4.1, and custom networks defined by [`Stages`].
//!
//! A [`NetworkSpec`] defines the configuration, width, number of classes and crop of a network. It returns
//! layers, shapes and parameter counts without allocating memory. A [`Network`] has parameters on a device
//! and runs forward and backward passes; [`Network::into_fully_convolutional`] converts it to the dense
//! network of section 3.2.
//!
//! ```
//! use vgg_layers::{Config, NetworkSpec};
//! let d = NetworkSpec::paper(Config::D);
//! assert_eq!(d.parameter_count()?, 138_357_544); // Table 2: 138 million
//! # Ok::<(), vgg_layers::Error>(())
//! ```

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod config;
mod dense;
mod error;
mod init;
mod layout;
mod network;
mod passes;
mod spec;
mod stages;
mod stopwatch;
mod summary;
mod tiles;
mod transfer;

pub use config::Config;
pub use dense::DenseNetwork;
pub use error::{Error, Result};
pub use init::Init;
pub use layout::NamedTensor;
pub use network::Network;
pub use passes::{DropoutSeed, ForwardCache};
pub use spec::{LayerKind, LayerSpec, LrnStyle, NetworkSpec, PoolRounding, unnamed_classes};
pub use stages::{Conv, Stages};
pub use stopwatch::{LayerTime, Pass, Stopwatch};
pub use summary::{Summary, SummaryRow};
pub use transfer::LayerSelection;
// Part of this crate's public API.
pub use vgg_tensor::Device;
