//! JPEG headers: size, colour space and EXIF orientation, and whether the stream is complete. `turbo` decodes
//! the pixels.

#[cfg(feature = "turbojpeg")]
pub(crate) mod turbo;

use std::borrow::Cow;

use memchr::memchr_iter;

/// Markers of the end of the image and of the start of a scan.
const END: u8 = 0xD9;
const SCAN: u8 = 0xDA;

/// What the segments of a JPEG stream state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    /// Number of colour components of the frame, if there is a frame.
    pub(crate) components: Option<u8>,
    /// Identifiers of the first three components.
    ids: [u8; 3],
    /// Height and width of the frame.
    pub(crate) size: Option<(u32, u32)>,
    /// Whether the frame is sequential with Huffman codes: not progressive, lossless or arithmetic.
    pub(crate) is_baseline: bool,
    /// Whether there is a JFIF marker.
    jfif: bool,
    /// The colour transform of the last Adobe marker: position and value.
    adobe: Option<(usize, u8)>,
    /// Orientation in the EXIF data, if there are any.
    pub(crate) exif: Option<Exif>,
    /// Whether the end marker follows the compressed data. Decoders fill the missing part of a truncated file
    /// with grey, which would become training data.
    pub(crate) whole: bool,
}

/// EXIF orientation. It is reported, but applied only with `DecodeOptions::exif_orientation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exif {
    /// No orientation, or orientation 1: the pixels are upright.
    Upright,
    /// Another orientation, 2 to 8.
    Turned(u8),
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
        Some(match orientation {
            None | Some(1) => Exif::Upright,
            Some(other) => Exif::Turned(u8::try_from(other).unwrap_or(0)),
        })
    }
}

impl Outline {
    pub(crate) fn of(bytes: &[u8]) -> Outline {
        let mut outline = Outline::default();
        outline.whole = walk(bytes, |marker, start, contents| outline.segment(marker, start, contents));
        outline
    }

    /// Reads a segment whose contents start at `start`.
    fn segment(&mut self, marker: u8, start: usize, contents: &[u8]) {
        match (marker, contents) {
            // SOF0 to SOF15, without DHT (C4), JPG (C8) and DAC (CC).
            (0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF, &[_, h1, h0, w1, w0, components, ..])
                if self.components.is_none() =>
            {
                let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                self.components = Some(components);
                self.size = Some((side(h1, h0), side(w1, w0)));
                self.is_baseline = matches!(marker, 0xC0 | 0xC1);
                // Three bytes for each component.
                self.ids = [6, 9, 12].map(|at| contents.get(at).copied().unwrap_or(0));
            }
            (0xE0, [b'J', b'F', b'I', b'F', 0, ..]) if contents.len() >= 14 => self.jfif = true,
            (0xE1, [b'E', b'x', b'i', b'f', 0, 0, tiff @ ..]) => {
                self.exif = self.exif.or(Some(Exif::of(tiff)));
            }
            (0xEE, [b'A', b'd', b'o', b'b', b'e', ..]) if contents.len() >= 12 => {
                self.adobe = Some((start + 11, contents[11]));
            }
            _ => {}
        }
    }
}

/// Passes the marker, the position and the contents of each segment to `segment`; returns whether the end marker
/// follows a scan. Segments are parsed one by one: searching for the end marker would find that of an embedded
/// thumbnail.
fn walk(bytes: &[u8], mut segment: impl FnMut(u8, usize, &[u8])) -> bool {
    let (mut at, mut scanned) = (2, false);
    while let Some(&marker) = bytes.get(at + 1) {
        match (bytes[at], marker) {
            (0xFF, END) => return scanned,
            // Fill bytes, and markers without a segment.
            (0xFF, 0xFF) => at += 1,
            (0xFF, 0x01 | 0xD0..=0xD8) => at += 2,
            (0xFF, 0x02..) => {
                let Some(length) = bytes.get(at + 2..at + 4) else { return false };
                let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                segment(marker, at + 4, bytes.get(at + 4..end).unwrap_or_default());
                at = end;
                if marker == SCAN {
                    scanned = true;
                    at += compressed(bytes.get(at..).unwrap_or_default());
                }
            }
            // Stray bytes between segments.
            _ => at += 1,
        }
    }
    false
}

/// The file in a form from which zune-jpeg chooses the same colour space as libjpeg. A JFIF marker means YCbCr, an
/// unknown Adobe transform YCbCr or YCCK, and only without both markers do components named R, G and B mean RGB;
/// zune-jpeg goes by these names first, and then by the Adobe marker.
pub(crate) fn as_libjpeg_reads<'a>(bytes: &'a [u8], outline: &Outline) -> Cow<'a, [u8]> {
    const RGB_OR_CMYK: u8 = 0;
    const YCBCR: u8 = 1;
    const YCCK: u8 = 2;
    let named_rgb = outline.ids == *b"RGB";
    let transform = match (outline.components, outline.adobe) {
        (Some(3), Some((_, RGB_OR_CMYK))) if !outline.jfif => RGB_OR_CMYK,
        (Some(3), Some(_)) => YCBCR,
        (Some(3), None) if outline.jfif && named_rgb => YCBCR,
        (Some(4), Some((_, RGB_OR_CMYK))) => RGB_OR_CMYK,
        (Some(4), Some(_)) => YCCK,
        _ => return Cow::Borrowed(bytes),
    };
    let mut bytes = Cow::Borrowed(bytes);
    if let Some((at, _)) = outline.adobe.filter(|(_, found)| *found != transform) {
        bytes.to_mut()[at] = transform;
    }
    if named_rgb && transform == YCBCR {
        bytes = Cow::Owned(with_numbered_components(&bytes));
    }
    bytes
}

/// The file with components 1, 2 and 3 in place of R, G and B.
fn with_numbered_components(bytes: &[u8]) -> Vec<u8> {
    let mut places = Vec::new();
    walk(bytes, |marker, start, contents| {
        // A frame has three bytes for each component, a scan two.
        let (first, each) = match marker {
            0xC0..=0xC2 => (6, 3),
            SCAN => (1, 2),
            _ => return,
        };
        let count = contents.get(first - 1).map_or(0, |count| usize::from(*count).min(3));
        places.extend((0..count).map(|i| start + first + each * i));
    });
    let mut copy = bytes.to_vec();
    for at in places {
        if let Some(name) = copy.get_mut(at)
            && let Some(number) = b"RGB".iter().position(|letter| letter == name)
        {
            *name = number as u8 + 1;
        }
    }
    copy
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
        let outline = Outline::of(&whole);
        assert_eq!((outline.components, outline.size, outline.exif), (Some(4), Some((40, 56)), None));
        assert!(outline.whole && !outline.is_baseline);
        let cuts = 0..whole.len() - 2;
        assert!(
            cuts.clone().all(|cut| !Outline::of(&whole[..cut]).whole),
            "every truncation before the end marker is detected"
        );
    }
}
