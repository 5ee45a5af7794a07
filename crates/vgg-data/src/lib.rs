//! Image data sets for ConvNets: class folders and shards, decoding of images (JPEG, PNG, WebP, TIFF, BMP,
//! GIF or PNM), scale jitter, crops, flips, PCA colour jitter, and a parallel [`Loader`] whose batches depend
//! only on the seed and the epoch, not on the number of workers.
//!
//! Everything is in host memory: `u8` pixels `[H, W, 3]` in RGB order, and one RGB offset per image that the
//! network adds to the pixels. [`AugmentConfig::draw`] samples an [`Augmentation`]; [`AugmentConfig::apply`]
//! applies it.
//!
//! [`synthetic`] generates a data set.

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod augment;
mod batch;
mod batch_sheet;
mod decode;
mod decode_budget;
mod error;
mod folder;
mod format;
mod geometry;
mod hflip;
mod image_cache;
pub mod imagenet;
mod images;
mod jpeg;
mod listing;
mod loader;
mod partition;
mod pca_jitter;
mod prefetch;
#[cfg(feature = "prepare")]
pub mod prepare;
mod random;
mod resize;
mod shards;
mod sheet;
mod split;
mod split_folder;
mod statistics;
pub mod synthetic;
mod view;

/// RGB pixels `[H, W, 3]`, 0..255.
pub type Image = ndarray::Array3<u8>;

pub use augment::{AugmentConfig, Augmentation, MAX_SIDE, check_train_scale};
pub use batch::{BadImage, Batch};
pub use batch_sheet::BatchSheet;
pub use decode::{DecodeOptions, JPEG_DECODER, decode, decode_with, read_image};
pub use error::{Error, Result};
pub use format::{misnamed, sniff};
pub use geometry::{Geometry, grid_offset, scaled_size};
pub use images::ImageSet;
pub use loader::{EpochOrder, Loader, LoaderConfig, OnBadImage};
pub use partition::Partition;
pub use pca_jitter::{PcaJitter, eigenvectors};
pub use prefetch::Prefetcher;
pub use random::{KeyedRng, Permutation, Purpose};
pub use resize::{Interpolation, resize, resize_region};
#[cfg(feature = "remote")]
pub use shards::RemoteConfig;
pub use shards::{
    Anomaly, Encoding, INDEX_FILE, IndexFile, InputList, Manifest, ShardFile, SizeRow, Skipped, SplitManifest,
};
#[cfg(feature = "prepare")]
pub use shards::{Verified, verify};
pub use sheet::{LINE, captioned_sheet, contact_sheet, draw_text, write_png};
pub use split::Split;
pub use statistics::PixelStatistics;
pub use view::{GRID, Region, View, apply_views};
