//! JPEG headers: size, colour components and EXIF orientation, and whether the stream is complete. `turbo`
//! decodes the pixels.

#[cfg(feature = "turbojpeg")]
pub(crate) mod turbo;

use memchr::memchr_iter;

/// What the segments of a JPEG stream state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outline {
    /// Number of colour components of the frame, if there is a frame.
    pub(crate) components: Option<u8>,
    /// Height and width of the frame.
    pub(crate) size: Option<(u32, u32)>,
    /// Orientation in the EXIF data, if there are any.
    pub(crate) exif: Option<Exif>,
    /// Whether the end marker follows the compressed data. Decoders fill the missing part of a truncated file
    /// with grey, which would become training data.
    pub(crate) whole: bool,
}

/// EXIF orientation. It is reported but not applied, as is usual in ImageNet training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exif {
    /// No orientation, or orientation 1: the pixels are upright.
    Upright,
    /// Another orientation.
    Turned,
    /// The EXIF data cannot be read.
    Damaged,
}

impl Exif {
    /// Reads the orientation from the first directory (IFD0) of the TIFF data.
    fn of(tiff: &[u8]) -> Exif {
        Exif::read(tiff).unwrap_or(Exif::Damaged)
    }

    fn read(tiff: &[u8]) -> Option<Exif> {
        const ORIENTATION: u16 = 0x0112;
        let big = match tiff.get(..2)? {
            b"MM" => true,
            b"II" => false,
            _ => return None,
        };
        let short = |at: usize| {
            let pair: [u8; 2] = tiff.get(at..at + 2)?.try_into().ok()?;
            Some(if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
        };
        let (a, b) = (short(4)?, short(6)?);
        let directory =
            if big { usize::from(a) << 16 | usize::from(b) } else { usize::from(b) << 16 | usize::from(a) };
        let entries = usize::from(short(directory)?);
        let all = directory + 2..directory + 2 + 12 * entries;
        tiff.get(all.clone())?;
        let orientation =
            all.step_by(12).find(|&at| short(at) == Some(ORIENTATION)).and_then(|at| short(at + 8));
        Some(if orientation.is_none_or(|o| o == 1) { Exif::Upright } else { Exif::Turned })
    }
}

impl Outline {
    const END: u8 = 0xD9;
    const SCAN: u8 = 0xDA;

    /// Parses the segments one by one: searching for the end marker would find that of an embedded thumbnail.
    pub(crate) fn of(bytes: &[u8]) -> Outline {
        let mut outline = Outline { components: None, size: None, exif: None, whole: false };
        let (mut at, mut scanned) = (2, false);
        while let Some(&marker) = bytes.get(at + 1) {
            match (bytes[at], marker) {
                (0xFF, Outline::END) => return Outline { whole: scanned, ..outline },
                // Fill bytes, and markers without a segment.
                (0xFF, 0xFF) => at += 1,
                (0xFF, 0x01 | 0xD0..=0xD8) => at += 2,
                (0xFF, 0x02..) => {
                    let Some(length) = bytes.get(at + 2..at + 4) else { return outline };
                    // SOF0 to SOF15, without DHT (C4), JPG (C8) and DAC (CC).
                    if matches!(marker, 0xC0..=0xCF)
                        && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
                        && let Some(&[h1, h0, w1, w0, components]) = bytes.get(at + 5..at + 10)
                    {
                        let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                        outline.components.get_or_insert(components);
                        outline.size.get_or_insert((side(h1, h0), side(w1, w0)));
                    }
                    if marker == 0xE1 {
                        let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                        let segment = bytes.get(at + 4..end).and_then(|s| s.strip_prefix(b"Exif\0\0"));
                        outline.exif = outline.exif.or(segment.map(Exif::of));
                    }
                    at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                    if marker == Outline::SCAN {
                        scanned = true;
                        at += compressed(bytes.get(at..).unwrap_or_default());
                    }
                }
                // Stray bytes between segments.
                _ => at += 1,
            }
        }
        outline
    }
}

/// Length of the compressed data, in which every FF byte is followed by 00, FF or a restart marker.
fn compressed(data: &[u8]) -> usize {
    let is_end = |&at: &usize| data.get(at + 1).is_some_and(|next| !matches!(next, 0 | 0xD0..=0xD7 | 0xFF));
    memchr_iter(0xFF, data).find(is_end).unwrap_or(data.len())
}

#[cfg(test)]
mod tests {
    use super::Outline;

    #[test]
    fn end_marker_of_a_thumbnail_is_not_the_end_of_the_image() {
        let thumbnail = [0xFF, 0xE1, 0, 6, 0xFF, 0xD8, 0xFF, 0xD9];
        let frame = [7, 0xFF, 0xC2, 0, 11, 8, 0, 40, 0, 56, 4, 0, 0, 0];
        let scan = [0xFF, 0xDA, 0, 4, 1, 2, 7, 0xFF, 0, 0xFF, 0xD3, 9];
        let whole = [&[0xFF, 0xD8][..], &thumbnail, &frame, &scan, &[0xFF, 0xD9, 1, 2]].concat();
        assert_eq!(
            Outline::of(&whole),
            Outline { components: Some(4), size: Some((40, 56)), exif: None, whole: true }
        );
        let cuts = 0..whole.len() - 2;
        assert!(
            cuts.clone().all(|cut| !Outline::of(&whole[..cut]).whole),
            "every truncation before the end marker is detected"
        );
    }
}
