//! [`ImageCache`]: decoded images in memory, up to a limit that shrinks when memory becomes scarce.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use crate::Image;

/// The free memory is asked for once in so many new images.
const CHECK_EVERY: u64 = 64;
/// Memory that stays free, in bytes: 256 MiB, or an eighth of what was free at first, if that is less.
const KEEP_FREE_BYTES: u64 = 256 << 20;

/// Decoded images by index.
#[derive(Default)]
pub(crate) struct ImageCache {
    images: RwLock<Images>,
    limit_bytes: u64,
    free_memory: Option<FreeMemory>,
    inserted: AtomicU64,
}

#[derive(Default)]
struct Images {
    by_index: HashMap<usize, Arc<Image>>,
    bytes: u64,
}

struct FreeMemory {
    free_bytes: fn() -> u64,
    keep_bytes: u64,
}

impl ImageCache {
    pub(crate) fn with_limit(limit_bytes: u64) -> ImageCache {
        ImageCache { limit_bytes, ..ImageCache::default() }
    }

    /// Keeps memory free. `free_bytes` is called once in a while.
    pub(crate) fn with_free_memory(mut self, free_bytes: fn() -> u64) -> ImageCache {
        let keep_bytes = KEEP_FREE_BYTES.min(free_bytes() / 8);
        self.free_memory = Some(FreeMemory { free_bytes, keep_bytes });
        self
    }

    pub(crate) fn get(&self, index: usize) -> Option<Arc<Image>> {
        self.images.read().unwrap_or_else(PoisonError::into_inner).by_index.get(&index).cloned()
    }

    pub(crate) fn has(&self, index: usize) -> bool {
        self.images.read().unwrap_or_else(PoisonError::into_inner).by_index.contains_key(&index)
    }

    /// Adds an image if there is room. Images are not replaced by others: every image is used once an epoch.
    pub(crate) fn insert(&self, index: usize, image: &Arc<Image>) {
        let bytes = image.len() as u64;
        if bytes > self.limit_bytes {
            return;
        }
        let mut images = self.images.write().unwrap_or_else(PoisonError::into_inner);
        if self.inserted.fetch_add(1, Relaxed).is_multiple_of(CHECK_EVERY)
            && let Some(memory) = &self.free_memory
        {
            let free_bytes = (memory.free_bytes)();
            images.shrink_by(memory.keep_bytes.saturating_sub(free_bytes));
            if free_bytes < memory.keep_bytes + CHECK_EVERY * bytes {
                // Ask again before the next image is added.
                self.inserted.store(0, Relaxed);
                return;
            }
        }
        if images.bytes + bytes <= self.limit_bytes && images.by_index.insert(index, image.clone()).is_none()
        {
            images.bytes += bytes;
        }
    }
}

impl Images {
    /// Removes images with `bytes` bytes together, or all.
    fn shrink_by(&mut self, bytes: u64) {
        let least = self.bytes.saturating_sub(bytes);
        let mut left = self.bytes;
        self.by_index.retain(|_, image| {
            let keep = left <= least;
            left -= if keep { 0 } else { image.len() as u64 };
            keep
        });
        self.bytes = left;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn image() -> Arc<Image> {
        Arc::new(Image::zeros((10, 10, 3)))
    }

    fn cached(cache: &ImageCache, of: usize) -> usize {
        (0..of).filter(|&i| cache.get(i).is_some()).count()
    }

    #[test]
    fn cache_keeps_as_many_images_as_fit() {
        let cache = ImageCache::with_limit(1000);
        (0..9).for_each(|i| cache.insert(i, &image()));
        // The same image twice takes room once.
        cache.insert(1, &image());
        assert_eq!(cached(&cache, 9), 3);
        assert!(cache.has(2) && !cache.has(3));
        assert_eq!(cached(&ImageCache::default(), 9), 0);
    }

    #[test]
    fn cache_shrinks_and_stops_when_memory_is_scarce() {
        static FREE: AtomicU64 = AtomicU64::new(1_000_000);
        let cache = ImageCache::with_limit(1 << 30).with_free_memory(|| FREE.load(Relaxed));
        (0..100).for_each(|i| cache.insert(i, &image()));
        assert_eq!(cached(&cache, 100), 100);
        // An eighth of the memory, 125,000 bytes, must stay free; 12,000 are missing, so 40 images of 300 bytes go.
        FREE.store(113_000, Relaxed);
        (100..300).for_each(|i| cache.insert(i, &image()));
        let left = cached(&cache, 300);
        assert!(left < 100, "{left} images are cached");
        FREE.store(1_000_000, Relaxed);
        (300..400).for_each(|i| cache.insert(i, &image()));
        assert_eq!(cached(&cache, 400), left + 100);
    }
}
