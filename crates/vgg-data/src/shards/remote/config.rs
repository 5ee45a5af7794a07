//! What is kept of a remote set, and where.

use std::path::PathBuf;

use crate::{Error, Result};

/// How a remote data set is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Folder of the cache, on a local disk.
    pub cache: PathBuf,
    /// Bytes of images of one data set that are kept there at most.
    pub cache_bytes: u64,
    /// Requests at a time.
    pub requests: usize,
}

impl RemoteConfig {
    /// Requests at a time: at 30 ms each they bring 2,000 images a second.
    pub const REQUESTS: usize = 64;

    /// `VGG_CACHE_DIR` (`$XDG_CACHE_HOME/vgg/remote` or `~/.cache/vgg/remote` if not set) and `VGG_CACHE_GIB` (32).
    ///
    /// # Errors
    /// [`Error::Config`] if `VGG_CACHE_GIB` is no number, or there is no folder that could be used.
    pub fn from_environment() -> Result<RemoteConfig> {
        let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let standard = || {
            let home = || Some(PathBuf::from(of("HOME")?).join(".cache"));
            Some(of("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("vgg/remote"))
        };
        let none = || Error::Config("there is no home directory: set VGG_CACHE_DIR".into());
        let cache = of("VGG_CACHE_DIR").map(PathBuf::from).or_else(standard).ok_or_else(none)?;
        let gib: f64 = match of("VGG_CACHE_GIB") {
            None => 32.0,
            Some(text) => {
                let number = text.to_str().and_then(|text| text.parse().ok()).filter(|gib| *gib >= 0.0);
                number.ok_or_else(|| Error::Config("VGG_CACHE_GIB is a number of GiB, such as 32".into()))?
            }
        };
        let cache_bytes = (gib * f64::from(1 << 30)) as u64;
        Ok(RemoteConfig { cache, cache_bytes, requests: RemoteConfig::REQUESTS })
    }
}
