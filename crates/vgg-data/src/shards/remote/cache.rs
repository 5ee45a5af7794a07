//! Images that were fetched, on a local disk, up to a number of bytes.
//!
//! `data` holds images one after another; `slots` holds for each image where it is. Once it is full nothing more is added:
//! every image comes round once an epoch, and then what is thrown away for a newer one would have been needed as soon.
//!
//! Several processes may share a cache. Each takes room by one atomic addition, writes there, and then says where. What a
//! crash leaves half written does not have the checksum of the image, and is fetched again.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use memmap2::MmapRaw;

use crate::error::at;
use crate::shards::Record;
use crate::{Error, Result};

pub(super) struct Cache {
    /// How many bytes are taken, then for each image one more than where it begins, or 0.
    slots: MmapRaw,
    data: Mutex<File>,
    path: PathBuf,
    budget: u64,
    /// Set when the disk is full.
    full: AtomicBool,
}

impl Cache {
    /// A cache for `images` images in a folder that may be there already.
    pub(super) fn open(folder: &Path, images: u64, budget: u64) -> Result<Cache> {
        std::fs::create_dir_all(folder).map_err(at("create", folder))?;
        let open = |name: &str| {
            let path = folder.join(name);
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            Ok::<_, Error>((file.map_err(at("open", &path))?, path))
        };
        let (slots, slots_path) = open("slots")?;
        // Zeros, where it grows: nothing is there.
        slots.set_len((images + 1) * 8).map_err(at("write", &slots_path))?;
        let slots = MmapRaw::map_raw(&slots).map_err(at("map", &slots_path))?;
        let (data, path) = open("data")?;
        Ok(Cache { slots, data: Mutex::new(data), path, budget, full: AtomicBool::new(false) })
    }

    /// Whether an image was put here; what is here may turn out to be damaged.
    pub(super) fn has(&self, index: usize) -> bool {
        self.slot(index + 1).load(Ordering::Acquire) != 0
    }

    /// An image that is here, and whole.
    pub(super) fn get(&self, index: usize, record: Record) -> Result<Option<Vec<u8>>> {
        let Some(start) = self.slot(index + 1).load(Ordering::Acquire).checked_sub(1) else {
            return Ok(None);
        };
        let mut bytes = vec![0; record.bytes as usize];
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let read = data.seek(SeekFrom::Start(start)).and_then(|_| data.read_exact(&mut bytes));
        match read {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(at("read", &self.path))?,
        }
        Ok((crc32fast::hash(&bytes) == record.crc32).then_some(bytes))
    }

    /// Keeps an image, if there is room.
    pub(super) fn put(&self, index: usize, bytes: &[u8]) -> Result<()> {
        let (taken, length) = (self.slot(0), bytes.len() as u64);
        if self.full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let start = taken.fetch_add(length, Ordering::Relaxed);
        if start.saturating_add(length) > self.budget {
            taken.fetch_sub(length, Ordering::Relaxed);
            return Ok(());
        }
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        match data.seek(SeekFrom::Start(start)).and_then(|_| data.write_all(bytes)) {
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                // A smaller cache than was allowed is no reason to stop.
                self.full.store(true, Ordering::Relaxed);
                return Ok(());
            }
            other => other.map_err(at("write", &self.path))?,
        }
        self.slot(index + 1).store(start + 1, Ordering::Release);
        Ok(())
    }

    fn slot(&self, i: usize) -> &AtomicU64 {
        assert!((i + 1) * 8 <= self.slots.len());
        // SAFETY: eight bytes of a mapping, aligned since it begins at a page, to which all access is atomic, and which lives
        // as long as the reference. The file keeps its length: every process gives it the same.
        unsafe { AtomicU64::from_ptr(self.slots.as_mut_ptr().add(i * 8).cast()) }
    }
}
