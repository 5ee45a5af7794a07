//! The binary version of CIFAR-10: records of a label and three planes of 32 x 32 pixels.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use vgg_files::open_regular;

use super::{FileEntry, Files, classes, lines, wrong};
use crate::error::io_error;
use crate::{Result, Split};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PLANE;
/// Folder in the archive, which `root` may contain.
const INNER: &str = "cifar-10-batches-bin";

pub(super) fn open(root: &Path) -> Result<Files> {
    let prefix = if root.join(INNER).is_dir() { format!("{INNER}/") } else { String::new() };
    // The file lists the classes in sorted order.
    let names = lines(root, &format!("{prefix}batches.meta.txt"))?;
    let batch = |i: usize| format!("{prefix}data_batch_{i}.bin");
    let mut splits = Vec::new();
    for (split, files) in [
        (Split::Train, (1..=5).map(batch).collect::<Vec<_>>()),
        (Split::Val, vec![format!("{prefix}test_batch.bin")]),
    ] {
        let mut entries = Vec::new();
        for path in files {
            let at_path = root.join(&path);
            let bytes = vgg_files::read_bytes(&at_path)?;
            if bytes.is_empty() || bytes.len() % RECORD != 0 {
                return Err(wrong(
                    &at_path,
                    format!("its length of {} bytes is not a multiple of {RECORD}", bytes.len()),
                ));
            }
            for (i, record) in bytes.chunks_exact(RECORD).enumerate() {
                let target = u32::from(record[0]);
                if target as usize >= names.len() {
                    return Err(wrong(&at_path, format!("image {i} has the invalid label {target}")));
                }
                let stem = format!("{}_{i:05}", super::stem_of(&path));
                let record = Some((i * RECORD) as u64);
                entries.push(FileEntry { stem, record, ..FileEntry::plain(path.clone(), target) });
            }
        }
        splits.push((split, entries));
    }
    let names_of = [format!("{prefix}batches.meta.txt")];
    Ok(Files::new("CIFAR-10", root, classes(&names, |_| None), splits).also_reads(names_of))
}

/// Reads the record at offset `start` and converts its image to PPM.
pub(super) fn image(path: &Path, start: u64) -> Result<Vec<u8>> {
    let mut record = [0; RECORD];
    let mut file = open_regular(path).map_err(io_error("open", path))?;
    file.seek(SeekFrom::Start(start))
        .and_then(|_| file.read_exact(&mut record))
        .map_err(io_error("read", path))?;
    let mut ppm = format!("P6\n{SIDE} {SIDE}\n255\n").into_bytes();
    ppm.extend((0..PLANE).flat_map(|i| [0, 1, 2].map(|c| record[1 + c * PLANE + i])));
    Ok(ppm)
}
