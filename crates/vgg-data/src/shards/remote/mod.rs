//! Shards in an object store: images are fetched by concurrent range requests and cached on a local disk.

mod cache;
mod config;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

pub use config::RemoteConfig;
pub(super) use store::Store;

use self::cache::Cache;
use super::{Manifest, Record, ShardFile};
use crate::{Result, Split};

/// The images of a split in an object store.
pub(super) struct Remote {
    store: Store,
    cache: Cache,
    /// Limits the number of concurrent requests.
    at_once: Arc<Semaphore>,
    /// Prefetched images.
    under_way: Mutex<HashMap<usize, JoinHandle<Result<Vec<u8>>>>>,
}

impl Remote {
    pub(super) fn new(
        store: Store,
        config: &RemoteConfig,
        manifest: &Manifest,
        split: Split,
    ) -> Result<Remote> {
        let bytes_of = |split: Split| {
            manifest.splits.get(&split).map_or(0, |own| own.shards.iter().map(|shard| shard.bytes).sum())
        };
        let all: u64 = manifest.splits.keys().map(|&split| bytes_of(split)).sum();
        // The cache is divided between the splits in proportion to their size, assuming that all images are
        // used equally often.
        let share =
            (u128::from(config.cache_bytes) * u128::from(bytes_of(split)) / u128::from(all.max(1))) as u64;
        let own = &manifest.splits[&split];
        let name = format!("{}-{}", own.hash(&manifest.classes).short(), split.name());
        let cache = Cache::open(&config.cache.join(name), own.images, share)?;
        Ok(Remote {
            store,
            cache,
            at_once: Arc::new(Semaphore::new(config.requests.max(1))),
            under_way: Mutex::default(),
        })
    }

    /// Starts fetching an image, unless it is cached or already being fetched.
    pub(super) fn prefetch(&self, index: usize, record: Record, shards: &[ShardFile]) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if !under_way.contains_key(&index) && !self.cache.has(index) {
            under_way.extend(self.fetch(record, shards).map(|fetched| (index, fetched)));
        }
    }

    /// Bytes of an image file, from a prefetch, the cache or a request. They match the CRC-32 in the index.
    pub(super) fn bytes(&self, index: usize, record: Record, shards: &[ShardFile]) -> Result<Vec<u8>> {
        let begun = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
        if begun.is_none()
            && let Some(bytes) = self.cache.get(index, record)
        {
            return Ok(bytes);
        }
        let mut fetched = begun;
        // Fetch once more if the CRC-32 differs.
        for _ in 0..2 {
            let Some(on_its_way) = fetched.take().or_else(|| self.fetch(record, shards)) else { break };
            let bytes = self.store.wait(on_its_way)?;
            if crc32fast::hash(&bytes) == record.crc32 {
                self.cache.put(index, &bytes);
                return Ok(bytes);
            }
        }
        let file = shards.get(record.shard as usize).map_or("", |shard| &shard.file);
        let reason =
            "an image's CRC-32 differs from the index: the shard or the index was replaced or is damaged"
                .to_owned();
        Err(self.store.folder().not_fetched(file, reason))
    }

    fn fetch(&self, record: Record, shards: &[ShardFile]) -> Option<JoinHandle<Result<Vec<u8>>>> {
        let (folder, at_once) = (self.store.folder(), self.at_once.clone());
        let file = shards.get(record.shard as usize).map_or(String::new(), |shard| shard.file.clone());
        let range = record.offset..record.offset + u64::from(record.bytes);
        self.store.spawn(async move {
            // The semaphore is never closed, so `acquire` cannot fail.
            let _permit = at_once.acquire().await;
            folder.range(&file, range).await
        })
    }
}
