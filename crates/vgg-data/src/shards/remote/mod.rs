//! Shards in an object store: images are fetched by their place in a tar file, many at a time, and kept on a local disk.

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

/// The images of a split that are elsewhere.
pub(super) struct Remote {
    store: Store,
    cache: Cache,
    /// Requests at a time.
    at_once: Arc<Semaphore>,
    /// What somebody will ask for.
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
        // Each split has its share, as each of its images comes round as often.
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

    /// Begins to fetch an image, unless it is here or on its way.
    pub(super) fn prefetch(&self, index: usize, record: Record, shards: &[ShardFile]) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if !under_way.contains_key(&index) && !self.cache.has(index) {
            under_way.extend(self.fetch(record, shards).map(|fetched| (index, fetched)));
        }
    }

    /// The file of an image, as it was when the set was prepared.
    pub(super) fn bytes(&self, index: usize, record: Record, shards: &[ShardFile]) -> Result<Vec<u8>> {
        let begun = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
        if begun.is_none()
            && let Some(bytes) = self.cache.get(index, record)
        {
            return Ok(bytes);
        }
        let mut fetched = begun;
        // Once more if what came is not what was sent.
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
            "it does not hold what was prepared there: was it replaced? Its index is another's".to_owned();
        Err(self.store.folder().not_fetched(file, reason))
    }

    fn fetch(&self, record: Record, shards: &[ShardFile]) -> Option<JoinHandle<Result<Vec<u8>>>> {
        let (folder, at_once) = (self.store.folder(), self.at_once.clone());
        let file = shards.get(record.shard as usize).map_or(String::new(), |shard| shard.file.clone());
        let range = record.offset..record.offset + u64::from(record.bytes);
        self.store.spawn(async move {
            // Never closed.
            let _permit = at_once.acquire().await;
            folder.range(&file, range).await
        })
    }
}
