//! Durable file output: atomic writes of files and directories, manifests, locks, and safetensors files.
//!
//! A file or directory appears under its name only when it is complete: it is written under a temporary name
//! in the same folder, synced and renamed, and then the parent is synced. A [`DirectoryWriter`] adds a
//! manifest with the size and BLAKE3 hash of every file.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! use vgg_files::{read_json, write_json};
//! let path = dir.path().join("run.json");
//! write_json(&path, &["some", "values"])?;
//! let back: Vec<String> = read_json(&path)?;
//! assert_eq!(back, ["some", "values"]);
//! # Ok::<(), vgg_files::Error>(())
//! ```

#![warn(clippy::unwrap_used)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod atomic;
mod directory;
mod disk;
mod error;
mod hash;
mod json;
mod lock;
mod not_the_file;
mod space;
mod tensors;

pub use atomic::{
    FileWriter, create_directory, open_regular, read_bytes, remove_file, remove_partial_files, write_bytes,
    write_with,
};
pub use directory::{DirectoryWriter, Manifest, verify};
#[cfg(feature = "faults")]
pub use disk::faults;
pub use error::{Error, Result};
pub use hash::{Hash, Hasher, hash_bytes, hash_file};
pub use json::{read_checksummed_json, read_json, write_checksummed_json, write_json};
pub use lock::Lock;
pub use not_the_file::not_the_file;
pub use space::{free_bytes, probe};
pub use tensors::{TensorData, TensorFile, TensorValues, write_tensors};
