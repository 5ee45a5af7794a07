//! Access to the files of a data set in an object store.

use std::future::Future;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use vgg_files::{FileWriter, Hasher};

use super::RemoteConfig;
use crate::error::io_error;
use crate::shards::file::check_contents;
use crate::shards::{INDEX_FILE, IndexFile, Manifest};
use crate::{Error, Result};

/// Number of bytes of an index that are fetched with one request.
const PIECE: u64 = 8 << 20;

/// A folder of an object store, with the runtime that fetches from it.
pub(in crate::shards) struct Store {
    folder: Arc<Folder>,
    cache: PathBuf,
    /// Owned here and not by its tasks, because a task cannot drop its own runtime. `None` only during drop.
    runtime: Option<Runtime>,
}

/// A folder of an object store.
pub(super) struct Folder {
    url: PathBuf,
    store: Box<dyn ObjectStore>,
    path: object_store::path::Path,
}

impl Store {
    /// Opens a folder. Credentials and endpoints come from the environment variables `AWS_*` and `GOOGLE_*`.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL is invalid or its scheme is not supported.
    pub(in crate::shards) fn connect(url: &str, config: &RemoteConfig) -> Result<Store> {
        static PROVIDER: Once = Once::new();
        // It fails if the program that uses this crate has installed a provider already.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let refuse = |e: String| Error::Config(format!("{url}: {e}"));
        let parsed = url::Url::parse(url).map_err(|e| refuse(e.to_string()))?;
        if !matches!(parsed.scheme(), "s3" | "gs" | "http" | "https") {
            return Err(refuse(
                "the URL of a data set must begin with s3://, gs://, http:// or https://".into(),
            ));
        }
        let options =
            std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || name.starts_with("GOOGLE_"));
        // object_store rejects http:// URLs without this option.
        let plain = (parsed.scheme() == "http").then(|| ("allow_http".to_owned(), "true".to_owned()));
        let options = options.chain(plain);
        let (store, path) =
            object_store::parse_url_opts(&parsed, options).map_err(|e| refuse(e.to_string()))?;
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).thread_name("vgg-remote").enable_all().build();
        let runtime = Some(runtime.map_err(|e| refuse(e.to_string()))?);
        let folder = Arc::new(Folder { url: url.into(), store, path });
        Ok(Store { folder, cache: config.cache.clone(), runtime })
    }

    fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.as_ref().map_or(Err(Error::Worker), |runtime| runtime.block_on(work))
    }

    pub(in crate::shards) fn manifest(&self) -> Result<Manifest> {
        let bytes = self.run(self.folder.whole(INDEX_FILE))?;
        Manifest::from_json(&bytes).map_err(|reason| Error::Layout { path: self.folder.url.clone(), reason })
    }

    /// Downloads an index to the local cache, unless it is there, and returns its name in the cache.
    pub(in crate::shards) fn copy_of(&self, file: &IndexFile) -> Result<String> {
        let name = format!("{}-{}", file.blake3.short(), file.file);
        if check_contents(&self.cache, &name, file).is_err() {
            self.download(file, &self.cache.join(&name))?;
        }
        Ok(name)
    }

    fn download(&self, file: &IndexFile, path: &Path) -> Result<()> {
        let mut out = FileWriter::create(path)?;
        let (mut done, mut hasher) = (0, Hasher::default());
        while done < file.bytes {
            let piece = done..(done + PIECE).min(file.bytes);
            let bytes = self.run(self.folder.range(&file.file, piece.clone()))?;
            out.write_all(&bytes).map_err(io_error("write", path))?;
            hasher.update(&bytes);
            done = piece.end;
        }
        if hasher.hash() != file.blake3 {
            let reason = format!("the hash of {} differs from {INDEX_FILE}", file.file);
            return Err(Error::Layout { path: self.folder.url.clone(), reason });
        }
        Ok(out.commit()?)
    }

    /// The folder, to be moved into a task.
    pub(super) fn folder(&self) -> Arc<Folder> {
        self.folder.clone()
    }

    /// Starts a task; `None` if the runtime has been shut down.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Option<JoinHandle<Result<T>>> {
        self.runtime.as_ref().map(|runtime| runtime.spawn(work))
    }

    /// Waits for the result of a task.
    pub(super) fn wait<T>(&self, work: JoinHandle<Result<T>>) -> Result<T> {
        self.run(async { work.await.map_err(|_| Error::Worker)? })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The results of running tasks are not needed any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Folder {
    async fn whole(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.path.clone().join(file);
        let fetched = async { self.store.get(&path).await?.bytes().await };
        Ok(fetched.await.map_err(|e| self.failed(file, &e))?.into())
    }

    /// Fetches a byte range of a file.
    ///
    /// # Errors
    /// [`Error::Missing`] if the file does not exist; [`Error::Io`] if the request fails or has another
    /// length.
    pub(super) async fn range(&self, file: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let fetched = self.store.get_range(&self.path.clone().join(file), range.clone()).await;
        let bytes = fetched.map_err(|e| self.failed(file, &e))?;
        if bytes.len() as u64 != range.end - range.start {
            let reason =
                format!("the response has {} bytes instead of {}", bytes.len(), range.end - range.start);
            return Err(self.not_fetched(file, reason));
        }
        Ok(bytes.into())
    }

    pub(super) fn not_fetched(&self, file: &str, reason: String) -> Error {
        Error::Io { action: "fetch", path: self.url.join(file), reason }
    }

    fn failed(&self, file: &str, error: &object_store::Error) -> Error {
        match error {
            object_store::Error::NotFound { .. } => {
                Error::Missing { path: self.url.join(file), reason: "does not exist".into() }
            }
            other => self.not_fetched(file, other.to_string()),
        }
    }
}
