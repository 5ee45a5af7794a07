//! Reader of MATLAB 5 files, limited to what `meta.mat` of the ILSVRC2012 development kit needs: structure
//! arrays of text and numbers.

use std::io::Read;

use flate2::read::ZlibDecoder;

/// Types of data elements.
const INT8: u32 = 1;
const UINT32: u32 = 6;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// Classes of arrays.
const STRUCT: u8 = 2;
const CHAR: u8 = 4;
/// Largest decompressed element, more than any list of classes has.
const MAX_BYTES: u64 = 64 << 20;

/// A value in a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A row of characters.
    Text(String),
    /// Real numbers, in column-major order.
    Numbers(Vec<f64>),
}

/// A structure array. Each element has the values of its fields, in the order of `fields`.
#[derive(Debug)]
pub(super) struct StructArray {
    pub(super) fields: Vec<String>,
    pub(super) elements: Vec<Vec<Value>>,
}

/// Reads the structure array `name` of a file.
pub(super) fn struct_array(file: &[u8], name: &str) -> Result<StructArray, String> {
    if file.starts_with(b"MATLAB 7.3") || file.get(..8) == Some(b"\x89HDF\r\n\x1a\n") {
        return Err("it is a MATLAB file of version 7.3 (HDF5), but the development kit's is of version 5: \
                    save it with save('meta.mat', 'synsets', '-v6')"
            .into());
    }
    if !file.starts_with(b"MATLAB 5.0") {
        return Err("it is not a MATLAB file of version 5".into());
    }
    if file.get(126..128) != Some(b"IM") {
        return Err("it is a big-endian MATLAB file; only little-endian byte order is supported".into());
    }
    let mut rest = file.get(128..).unwrap_or_default();
    while !rest.is_empty() {
        let element = take(&mut rest)?;
        let unpacked;
        let element = if element.kind == COMPRESSED {
            let mut bytes = Vec::new();
            let inflated = ZlibDecoder::new(element.data).take(MAX_BYTES).read_to_end(&mut bytes);
            inflated.map_err(|e| format!("a compressed element cannot be decompressed: {e}"))?;
            unpacked = bytes;
            take(&mut unpacked.as_slice())?
        } else {
            element
        };
        if element.kind == MATRIX
            && let Some(array) = named_struct(element.data, name)?
        {
            return Ok(array);
        }
    }
    Err(format!("it has no structure array {name}"))
}

struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

/// Takes the next data element and skips its padding.
fn take<'a>(rest: &mut &'a [u8]) -> Result<Element<'a>, String> {
    let cut = || "it is truncated".to_owned();
    let word = |bytes: &[u8], at: usize| -> Result<u32, String> {
        let bytes = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or_else(cut)?;
        Ok(u32::from_le_bytes(bytes))
    };
    let first = word(rest, 0)?;
    // Small element format: up to four bytes of data are in the tag.
    if first >> 16 != 0 {
        let data = rest.get(4..4 + (first >> 16) as usize).ok_or_else(cut)?;
        *rest = rest.get(8..).ok_or_else(cut)?;
        return Ok(Element { kind: first & 0xffff, data });
    }
    let bytes = word(rest, 4)? as usize;
    let data = rest.get(8..8 + bytes).ok_or_else(cut)?;
    // Compressed elements are not padded.
    let end = if first == COMPRESSED { 8 + bytes } else { 8 + bytes.next_multiple_of(8) };
    *rest = rest.get(end.min(rest.len())..).unwrap_or_default();
    Ok(Element { kind: first, data })
}

/// Reads the header of an array: class, number of elements, name.
fn header<'a>(rest: &mut &'a [u8]) -> Result<(u8, usize, &'a [u8]), String> {
    let (flags, dimensions, name) = (take(rest)?, take(rest)?, take(rest)?);
    if flags.kind != UINT32 || name.kind != INT8 {
        return Err("the header of an array is invalid".into());
    }
    let class = *flags.data.first().ok_or("an array has no class")?;
    let mut count = 1_usize;
    for dimension in dimensions.data.chunks_exact(4) {
        let dimension = u32::from_le_bytes([dimension[0], dimension[1], dimension[2], dimension[3]]) as usize;
        count = count.checked_mul(dimension).ok_or("an array is too large")?;
    }
    Ok((class, count, name.data))
}

fn named_struct(mut rest: &[u8], name: &str) -> Result<Option<StructArray>, String> {
    let (class, count, found) = header(&mut rest)?;
    if class != STRUCT || found != name.as_bytes() {
        return Ok(None);
    }
    let length = take(&mut rest)?;
    let length = length.data.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_le_bytes);
    let length = length
        .and_then(|l| usize::try_from(l).ok())
        .filter(|&l| l > 0)
        .ok_or("field names have no length")?;
    let names = take(&mut rest)?;
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let fields: Vec<String> = names.data.chunks(length).map(text).collect();
    // Each value takes at least the 8 bytes of its tag.
    if fields.is_empty() || count > rest.len() / 8 {
        return Err("its header gives more elements than the file has".into());
    }
    let mut elements = Vec::new();
    for _ in 0..count {
        let values = fields.iter().map(|_| value(&mut rest)).collect::<Result<_, _>>()?;
        elements.push(values);
    }
    Ok(Some(StructArray { fields, elements }))
}

fn value(rest: &mut &[u8]) -> Result<Value, String> {
    let element = take(rest)?;
    if element.kind != MATRIX {
        return Err(format!("a field holds an element of type {}", element.kind));
    }
    let mut inner = element.data;
    if inner.is_empty() {
        return Ok(Value::Numbers(Vec::new()));
    }
    let (class, _, _) = header(&mut inner)?;
    if inner.is_empty() {
        return Ok(Value::Numbers(Vec::new()));
    }
    let numbers = numbers(&take(&mut inner)?)?;
    if class != CHAR {
        return Ok(Value::Numbers(numbers));
    }
    let characters = numbers.iter().map(|&n| char::from_u32(n as u32).unwrap_or(char::REPLACEMENT_CHARACTER));
    Ok(Value::Text(characters.collect()))
}

/// The numbers of an element. MATLAB may store them in a smaller type than the class of the array.
fn numbers(element: &Element) -> Result<Vec<f64>, String> {
    let data = element.data;
    macro_rules! of {
        ($type:ty) => {
            data.chunks_exact(size_of::<$type>())
                .map(|b| b.try_into().map(<$type>::from_le_bytes).unwrap_or_default() as f64)
                .collect()
        };
    }
    Ok(match element.kind {
        1 => of!(i8),
        2 => of!(u8),
        3 => of!(i16),
        4 | 17 => of!(u16),
        5 => of!(i32),
        6 | 18 => of!(u32),
        7 => of!(f32),
        9 => of!(f64),
        // UTF-8.
        16 => String::from_utf8_lossy(data).chars().map(|c| f64::from(u32::from(c))).collect(),
        other => return Err(format!("numbers of type {other} are not supported")),
    })
}
