//! What a preparation will take, before it begins.

use std::path::{Path, PathBuf};

use super::pipeline::BYTES_AROUND_IMAGE;
use super::{Input, PrepareOptions, Source, inputs_of};
use crate::{Encoding, Error, Result};

/// What a preparation will take.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Files that are read, and their lengths.
    pub inputs: Vec<(PathBuf, u64)>,
    /// Where the result goes.
    pub out: PathBuf,
    /// Bytes that it may take, all in all.
    pub needed_bytes: u64,
    /// Bytes of it that are there already.
    pub there_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// How long it may take, in seconds, if a thread takes 200 images a second.
    pub seconds: f64,
}

/// An image of ILSVRC2012 in the mean.
const IMAGE_BYTES: u64 = 110_000;
/// Such images that a thread takes in a second.
const IMAGES_PER_SECOND: f64 = 200.0;

/// What the preparation of `source` in `out` will take.
///
/// # Errors
/// [`Error::Io`] if an input or the place for the result cannot be looked at.
pub fn plan(source: &dyn Source, options: &PrepareOptions, out: &Path, threads: usize) -> Result<Plan> {
    let inputs: Vec<Input> = inputs_of(source)?;
    let bytes: u64 = inputs.iter().map(|input| input.bytes).sum();
    let images = source.images().unwrap_or(bytes / IMAGE_BYTES + 1);
    let stored = match options.encoding {
        // Few are larger after they were made smaller; of a side that is given, photographs take about this much.
        Encoding::Jpeg { quality } => {
            let of_pixel = if quality > 90 { 0.6 } else { 0.4 };
            let of_image = |side: usize| (side * side) as f64 * 4.0 / 3.0 * of_pixel;
            options.smallest_side.map_or(bytes, |side| bytes.min((images as f64 * of_image(side)) as u64))
        }
        // Three by four, three bytes a pixel, but not many times what it is as JPEG.
        Encoding::Raw => {
            let side = options.smallest_side.unwrap_or(usize::from(u16::MAX)) as u64;
            (images * side * side * 4).min(bytes * 20)
        }
    };
    let parts = options.part.count.max(1) as u64;
    Ok(Plan {
        inputs: inputs.into_iter().map(|input| (source.root().join(input.path), input.bytes)).collect(),
        out: out.to_owned(),
        needed_bytes: (stored + images * BYTES_AROUND_IMAGE) / parts,
        there_bytes: bytes_in(out),
        free_bytes: vgg_files::free_bytes(out)?,
        seconds: images as f64 / IMAGES_PER_SECOND / threads.max(1) as f64 / parts as f64,
    })
}

fn bytes_in(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(|file| file.is_file()).map(|file| file.len()).sum()
}

impl Plan {
    /// # Errors
    /// [`Error::NoSpace`] if there is too little space.
    pub fn check(&self) -> Result<()> {
        let needed = self.needed_bytes.saturating_sub(self.there_bytes);
        if needed <= self.free_bytes {
            return Ok(());
        }
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let reason =
            format!("{:.2} GiB may be needed, and {:.2} GiB are free", gib(needed), gib(self.free_bytes));
        Err(Error::NoSpace { path: self.out.clone(), reason })
    }
}
