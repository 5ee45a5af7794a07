//! Reads the images of a source in order, converts them on worker threads, and writes them in units.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use vgg_files::{Hasher, hash_file, read_checksummed_json, write_checksummed_json};

use super::encode::{Stored, store};
use super::entry::Entry;
use super::unit::{UnitRecord, UnitWriter, count_path, record_path};
use super::{Event, PrepareOptions, Source};
use crate::{Error, Prefetcher, Result, Split};

/// Writes the units of a split that belong to this part and are not finished.
pub(super) fn run(
    source: &dyn Source,
    split: Split,
    options: &PrepareOptions,
    out: &Path,
    threads: usize,
    events: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<()> {
    let of_worker = options.clone();
    let work = move |mut entry: Entry| {
        let stored = catch_unwind(AssertUnwindSafe(|| store(&mut entry, &of_worker))).unwrap_or_else(|_| {
            // A panic in a decoder skips this image only.
            Err(Error::Decode { path: entry.path.clone(), reason: "the decoder panicked".into() })
        });
        entry.bytes = Vec::new();
        (entry, stored)
    };
    let mut pipeline = Pipeline {
        classes: source.classes().iter().map(|class| class.name.clone()).collect(),
        split,
        options,
        out,
        workers: Prefetcher::new(threads, 4 * threads, work)?,
        unit: None,
        units: 0,
        images: 0,
        events,
    };
    source.entries(split, &mut |entry| pipeline.take(entry))?;
    pipeline.close()?;
    let (units, images) = (pipeline.units, pipeline.images);
    if images == 0 {
        let reason = format!("the split {} has no images", split.name());
        return Err(Error::Source { path: out.to_owned(), reason });
    }
    write_checksummed_json(&count_path(out, split), &units)?;
    Ok(())
}

/// Upper bound, in most cases, of the tar headers, the label and the JSON description of an image, in bytes.
pub(super) const BYTES_AROUND_IMAGE: u64 = 4096;

struct Pipeline<'a, 'e> {
    classes: Vec<String>,
    split: Split,
    options: &'a PrepareOptions,
    out: &'a Path,
    workers: Prefetcher<Entry, (Entry, Result<Stored>)>,
    unit: Option<Unit<'a>>,
    units: usize,
    images: u64,
    events: &'e mut dyn FnMut(Event) -> ControlFlow<()>,
}

/// The unit that is being read.
struct Unit<'a> {
    number: usize,
    bytes: u64,
    entries: u64,
    input: Hasher,
    work: Work<'a>,
}

enum Work<'a> {
    Write(Box<UnitWriter<'a>>),
    /// Finished by an earlier preparation.
    Known(Box<UnitRecord>),
    /// Belongs to another part.
    Others,
}

impl<'a> Pipeline<'a, '_> {
    fn take(&mut self, entry: Entry) -> Result<()> {
        let bytes = entry.bytes.len() as u64;
        let room = bytes + BYTES_AROUND_IMAGE;
        if self.unit.as_ref().is_some_and(|unit| unit.bytes + room > self.options.shard_bytes) {
            self.close()?;
        }
        if self.unit.is_none() {
            self.unit = Some(self.open()?);
        }
        let Some(unit) = &mut self.unit else { return Ok(()) };
        unit.bytes += room;
        unit.entries += 1;
        unit.input.update(entry.source.as_bytes());
        unit.input.update(&entry.target.to_le_bytes());
        unit.input.update(&bytes.to_le_bytes());
        unit.input.update(&entry.bytes);
        if let Some(boxes) = &entry.boxes {
            unit.input.update(format!("{boxes:?}").as_bytes());
        }
        let ours = matches!(unit.work, Work::Write(_));
        self.images += 1;
        if self.images.is_multiple_of(16) {
            self.tell(Event::Images(self.split, self.images))?;
        }
        if !ours {
            return Ok(());
        }
        while !self.workers.has_room() {
            self.write_one()?;
        }
        self.workers.submit(entry)
    }

    fn tell(&mut self, event: Event) -> Result<()> {
        if (self.events)(event).is_break() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn open(&mut self) -> Result<Unit<'a>> {
        let number = self.units;
        self.units += 1;
        let part = self.options.part;
        let work = if number % part.count != part.index {
            Work::Others
        } else if let Some(record) = self.known(number)? {
            self.tell(Event::Kept(self.split, number))?;
            Work::Known(Box::new(record))
        } else {
            Work::Write(Box::new(UnitWriter::new(self.out, self.split, number, self.options.shard_bytes)))
        };
        Ok(Unit { number, bytes: 0, entries: 0, input: Hasher::default(), work })
    }

    /// The record of a finished unit, if its shards exist and have the recorded contents.
    fn known(&self, number: usize) -> Result<Option<UnitRecord>> {
        let record: UnitRecord = match read_checksummed_json(&record_path(self.out, self.split, number)) {
            Ok(record) => record,
            Err(e) if e.is_missing() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let whole = |file: &crate::ShardFile| {
            let path = self.out.join(&file.file);
            std::fs::metadata(&path).is_ok_and(|found| found.len() == file.bytes)
                && hash_file(&path).is_ok_and(|hash| hash == file.blake3)
        };
        Ok(record.shards.iter().all(whole).then_some(record))
    }

    /// Writes the result of the oldest submitted image.
    fn write_one(&mut self) -> Result<()> {
        let Some((entry, stored)) = self.workers.recv()? else { return Ok(()) };
        let Some(Unit { work: Work::Write(writer), .. }) = &mut self.unit else { return Ok(()) };
        match stored {
            Ok(stored) => writer.add(&entry, &self.classes[entry.target as usize], &stored),
            Err(error) if error.is_bad_image() => {
                // The event has the path, so the reason does not need it.
                let reason = match error {
                    Error::Decode { reason, .. } => reason,
                    other => other.to_string(),
                };
                writer.leave_out(&entry, reason.clone());
                self.tell(Event::Skipped(&entry.path.to_string_lossy(), &reason))
            }
            Err(error) => Err(error),
        }
    }

    fn close(&mut self) -> Result<()> {
        while self.workers.under_way() > 0 {
            self.write_one()?;
        }
        let Some(unit) = self.unit.take() else { return Ok(()) };
        let input = unit.input.hash();
        match unit.work {
            Work::Write(writer) => drop(writer.finish(input, unit.entries)?),
            Work::Known(record) if record.input != input => {
                let (split, number) = (self.split.name(), unit.number);
                let reason = format!(
                    "the input of {split}-{number:06}.tar has changed since it was written; remove the folder and prepare the data set again"
                );
                return Err(Error::Source { path: self.out.to_owned(), reason });
            }
            Work::Known(_) | Work::Others => {}
        }
        Ok(())
    }
}
