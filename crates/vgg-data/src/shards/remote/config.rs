//! Settings of data sets in object stores.

use std::path::PathBuf;

use crate::{Error, Result};

/// Settings for reading a data set from an object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Folder of the cache, on a local disk.
    pub cache: PathBuf,
    /// Largest size of the cached images of one data set, in bytes.
    pub cache_bytes: u64,
    /// Largest number of concurrent requests.
    pub requests: usize,
}

impl RemoteConfig {
    /// Default number of concurrent requests. At 30 ms per request they fetch 2,000 images per second.
    pub const REQUESTS: usize = 64;

    /// Reads the environment variables `VGG_CACHE_DIR` (default `$XDG_CACHE_HOME/vgg/remote`, or
    /// `~/.cache/vgg/remote`) and `VGG_CACHE_GIB` (default 32).
    ///
    /// # Errors
    /// [`Error::Config`] if `VGG_CACHE_GIB` is not a non-negative number, or there is no cache folder.
    pub fn from_environment() -> Result<RemoteConfig> {
        let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let standard = || {
            let home = || Some(PathBuf::from(of("HOME")?).join(".cache"));
            Some(of("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("vgg/remote"))
        };
        let none = || Error::Config("no cache folder: HOME is not set; set VGG_CACHE_DIR".into());
        let cache = of("VGG_CACHE_DIR").map(PathBuf::from).or_else(standard).ok_or_else(none)?;
        let gib: f64 = match of("VGG_CACHE_GIB") {
            None => 32.0,
            Some(text) => {
                let number = text.to_str().and_then(|text| text.parse().ok()).filter(|gib| *gib >= 0.0);
                number.ok_or_else(|| {
                    Error::Config("VGG_CACHE_GIB must be a number of GiB, such as 32".into())
                })?
            }
        };
        let cache_bytes = (gib * f64::from(1 << 30)) as u64;
        Ok(RemoteConfig { cache, cache_bytes, requests: RemoteConfig::REQUESTS })
    }
}
