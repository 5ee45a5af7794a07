//! Images that were fetched, on a local disk, up to a number of bytes.
//!
//! `data` holds images one after another; `slots` holds for each image where it is. Once it is full nothing more is added:
//! every image comes round once an epoch, and then what is thrown away for a newer one would have been needed as soon.
//!
//! Several processes may share a cache. Each takes room by one atomic addition, writes there, and then says where. What a
//! crash leaves half written does not have the checksum of the image, and is fetched again. So is whatever cannot be read, and what
//! cannot be written is not kept: a cache that is too small is no reason to stop.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::MmapRaw;

use crate::error::at;
use crate::shards::Record;
use crate::{Error, Result};

pub(super) struct Cache {
    /// How many bytes are taken, then for each image one more than where it begins, or 0.
    slots: MmapRaw,
    data: File,
    budget: u64,
    /// Set when nothing more can be written.
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
        let (slots, path) = open("slots")?;
        // Zeros, where it grows: nothing is there. Room for all of it, as a mapped file that finds none ends the program.
        fs4::FileExt::allocate(&slots, (images + 1) * 8).map_err(at("write", &path))?;
        let slots = MmapRaw::map_raw(&slots).map_err(at("map", &path))?;
        Ok(Cache { slots, data: open("data")?.0, budget, full: AtomicBool::new(false) })
    }

    /// Whether an image was put here; what is here may turn out to be damaged.
    pub(super) fn has(&self, index: usize) -> bool {
        self.slot(index + 1).load(Ordering::Acquire) != 0
    }

    /// An image that is here, and whole.
    pub(super) fn get(&self, index: usize, record: Record) -> Option<Vec<u8>> {
        let start = self.slot(index + 1).load(Ordering::Acquire).checked_sub(1)?;
        let mut bytes = vec![0; record.bytes as usize];
        read_at(&self.data, &mut bytes, start).ok()?;
        (crc32fast::hash(&bytes) == record.crc32).then_some(bytes)
    }

    /// Keeps an image, if there is room, unless another process has.
    pub(super) fn put(&self, index: usize, bytes: &[u8]) {
        let length = bytes.len() as u64;
        // One that turned out to be damaged has lost its room.
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
        // Of two that were written at once, one is enough.
        let _ =
            self.slot(index + 1).compare_exchange(before, start + 1, Ordering::Release, Ordering::Relaxed);
    }

    fn slot(&self, i: usize) -> &AtomicU64 {
        assert!((i + 1) * 8 <= self.slots.len());
        // SAFETY: eight bytes of a mapping, aligned since it begins at a page, to which all access is atomic, and which lives
        // as long as the reference. The file keeps its length: every process gives it the same.
        unsafe { AtomicU64::from_ptr(self.slots.as_mut_ptr().add(i * 8).cast()) }
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, start)
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], start: u64) -> io::Result<()> {
    let read = std::os::windows::fs::FileExt::seek_read(file, bytes, start)?;
    if read == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(windows)]
fn write_at(file: &File, bytes: &[u8], start: u64) -> io::Result<()> {
    let written = std::os::windows::fs::FileExt::seek_write(file, bytes, start)?;
    if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
