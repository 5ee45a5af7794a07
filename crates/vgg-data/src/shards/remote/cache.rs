//! Cache of fetched images on a local disk, of limited size.
//!
//! The file `data` has the images one after another; the file `slots` has the position of each image in
//! `data`. A full cache does not evict: every image is used once an epoch, so an evicted image would be
//! needed as soon as the one that replaces it.
//!
//! Several processes may share a cache. A process reserves space by one atomic addition, writes the image,
//! and then publishes its position. An image that is incomplete after a crash does not match its CRC-32, and
//! is fetched again, like any image that cannot be read. An image that cannot be written is not cached; this
//! is not an error.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::MmapRaw;

use crate::error::io_error;
use crate::shards::Record;
use crate::shards::file::read_at;
use crate::{Error, Result};

pub(super) struct Cache {
    /// The number of reserved bytes of `data`, then per image its position plus 1, or 0 if it is not cached.
    slots: MmapRaw,
    data: File,
    budget: u64,
    /// Set if a write failed; nothing more is written then.
    full: AtomicBool,
}

impl Cache {
    /// Opens or creates a cache for `images` images in a folder.
    pub(super) fn open(folder: &Path, images: u64, budget: u64) -> Result<Cache> {
        std::fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        let open = |name: &str| {
            let path = folder.join(name);
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            Ok::<_, Error>((file.map_err(io_error("open", &path))?, path))
        };
        let (slots, path) = open("slots")?;
        // New slots are zero: not cached. The space is allocated, because writing to a mapped sparse file on
        // a full disk ends the process by a signal.
        fs4::FileExt::allocate(&slots, (images + 1) * 8).map_err(io_error("write", &path))?;
        let slots = MmapRaw::map_raw(&slots).map_err(io_error("map", &path))?;
        Ok(Cache { slots, data: open("data")?.0, budget, full: AtomicBool::new(false) })
    }

    /// Whether an image is cached. It may be damaged.
    pub(super) fn has(&self, index: usize) -> bool {
        self.slot(index + 1).load(Ordering::Acquire) != 0
    }

    /// Reads an image; `None` if it is not cached, or damaged.
    pub(super) fn get(&self, index: usize, record: Record) -> Option<Vec<u8>> {
        let start = self.slot(index + 1).load(Ordering::Acquire).checked_sub(1)?;
        let mut bytes = vec![0; record.bytes as usize];
        read_at(&self.data, &mut bytes, start).ok()?;
        (crc32fast::hash(&bytes) == record.crc32).then_some(bytes)
    }

    /// Stores an image if there is space. If two processes store it at the same time, one copy is used.
    pub(super) fn put(&self, index: usize, bytes: &[u8]) {
        let length = bytes.len() as u64;
        // The space of a damaged image is not reused.
        let before = self.slot(index + 1).load(Ordering::Acquire);
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        let room = |taken: u64| taken.checked_add(length).filter(|&end| end <= self.budget);
        let Ok(start) = self.slot(0).fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) else { return };
        if write_at(&self.data, bytes, start).is_err() {
            self.full.store(true, Ordering::Relaxed);
            return;
        }
        // If another process has published the image in the meantime, its copy is used.
        let _ =
            self.slot(index + 1).compare_exchange(before, start + 1, Ordering::Release, Ordering::Relaxed);
    }

    fn slot(&self, i: usize) -> &AtomicU64 {
        assert!((i + 1) * 8 <= self.slots.len());
        // SAFETY: the eight bytes are inside the mapping, as asserted, and aligned, because a mapping begins
        // at a page. All access to them is atomic, and the mapping lives as long as the reference. The file
        // keeps its length: every process allocates the same.
        unsafe { AtomicU64::from_ptr(self.slots.as_mut_ptr().add(i * 8).cast()) }
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, start)
}

#[cfg(windows)]
fn write_at(file: &File, bytes: &[u8], start: u64) -> io::Result<()> {
    let written = std::os::windows::fs::FileExt::seek_write(file, bytes, start)?;
    if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
