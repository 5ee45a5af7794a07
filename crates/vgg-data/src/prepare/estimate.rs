//! Estimate of the space and time of a preparation.

use std::path::{Path, PathBuf};

use super::pipeline::BYTES_AROUND_IMAGE;
use super::{Input, PrepareOptions, Source, inputs_of};
use crate::{Encoding, Error, Result};

/// Estimated space and time of a preparation.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Input files and their sizes in bytes.
    pub inputs: Vec<(PathBuf, u64)>,
    /// Output folder.
    pub out: PathBuf,
    /// Estimated size of the output in bytes.
    pub needed_bytes: u64,
    /// Bytes of the output that have been written already.
    pub written_bytes: u64,
    /// Free space of the file system in bytes.
    pub free_bytes: u64,
    /// Estimated time in seconds, at 200 images per second per thread.
    pub seconds: f64,
}

/// Mean size of an ILSVRC2012 image in bytes.
const IMAGE_BYTES: u64 = 110_000;
/// Images per second per thread.
const IMAGES_PER_SECOND: f64 = 200.0;

/// Estimates the space and time of the preparation of `source` in `out`.
///
/// # Errors
/// [`Error::Missing`] or [`Error::Io`] if an input cannot be read; [`Error::File`] if the free space of `out`
/// cannot be determined.
pub fn estimate(
    source: &dyn Source,
    options: &PrepareOptions,
    out: &Path,
    threads: usize,
) -> Result<Estimate> {
    let inputs: Vec<Input> = inputs_of(source)?;
    let bytes: u64 = inputs.iter().map(|input| input.bytes).sum();
    let images = source.images().unwrap_or(bytes / IMAGE_BYTES + 1);
    let stored = match options.encoding {
        // Bytes per pixel of typical photographs; reduction rarely makes a file larger than the original.
        Encoding::Jpeg { quality } => {
            let of_pixel = if quality > 90 { 0.6 } else { 0.4 };
            let of_image = |side: usize| (side * side) as f64 * 4.0 / 3.0 * of_pixel;
            options.smallest_side.map_or(bytes, |side| bytes.min((images as f64 * of_image(side)) as u64))
        }
        // Aspect ratio 4:3 at three bytes per pixel, but at most 20 times the size as JPEG.
        Encoding::Raw => {
            let side = options.smallest_side.unwrap_or(usize::from(u16::MAX)) as u64;
            (images * side * side * 4).min(bytes * 20)
        }
    };
    let parts = options.part.count.max(1) as u64;
    Ok(Estimate {
        inputs: inputs.into_iter().map(|input| (source.root().join(input.path), input.bytes)).collect(),
        out: out.to_owned(),
        needed_bytes: (stored + images * BYTES_AROUND_IMAGE) / parts,
        written_bytes: bytes_in(out),
        free_bytes: vgg_files::free_bytes(out)?,
        seconds: images as f64 / IMAGES_PER_SECOND / threads.max(1) as f64 / parts as f64,
    })
}

fn bytes_in(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(|file| file.is_file()).map(|file| file.len()).sum()
}

impl Estimate {
    /// Checks the free space.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if there is too little space.
    pub fn check(&self) -> Result<()> {
        let needed = self.needed_bytes.saturating_sub(self.written_bytes);
        if needed <= self.free_bytes {
            return Ok(());
        }
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let reason = format!(
            "up to {:.2} GiB are needed, but only {:.2} GiB are free",
            gib(needed),
            gib(self.free_bytes)
        );
        Err(Error::NoSpace { path: self.out.clone(), reason })
    }
}
