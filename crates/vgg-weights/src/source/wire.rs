//! Reading messages in the wire format of protocol buffers, field by field, without copying tensor values.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use super::{corrupt, io};
use crate::Result;

/// The value of a field, by wire type.
pub(super) enum Wire {
    /// An integer, already read.
    Varint(u64),
    /// Length-delimited bytes that end at this offset.
    Bytes(u64),
    /// A fixed number of bytes.
    Fixed(u64),
}

/// A file that is read field by field.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    pub(super) file: BufReader<File>,
    /// Offset of the next byte.
    pub(super) at: u64,
}

impl Reader<'_> {
    /// Reads the number and the value of the next field of a message that ends at `end`.
    pub(super) fn field(&mut self, end: u64) -> Result<(u64, Wire)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed(8),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.at.saturating_add(length))
            }
            5 => Wire::Fixed(4),
            kind => {
                return Err(corrupt(
                    self.path,
                    format!("a field has wire type {kind}, which no supported format uses"),
                ));
            }
        };
        let reach = match value {
            Wire::Varint(_) => self.at,
            Wire::Bytes(to) => to,
            Wire::Fixed(bytes) => self.at + bytes,
        };
        if reach > end {
            return Err(corrupt(self.path, "it ends inside a field; it may be truncated"));
        }
        Ok((tag >> 3, value))
    }

    pub(super) fn skip(&mut self, value: &Wire) -> Result<()> {
        match value {
            Wire::Varint(_) => Ok(()),
            Wire::Bytes(end) => self.seek(*end),
            Wire::Fixed(bytes) => self.seek(self.at + bytes),
        }
    }

    pub(super) fn seek(&mut self, to: u64) -> Result<()> {
        let by = (to - self.at) as i64;
        self.file.seek_relative(by).map_err(|e| io(self.path, e))?;
        self.at = to;
        Ok(())
    }

    pub(super) fn text(&mut self, end: u64, most: u64) -> Result<String> {
        let length = end - self.at;
        if length > most {
            return Err(corrupt(self.path, format!("a string of {length} bytes is too long")));
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes).map_err(|e| io(self.path, e))?;
        self.at = end;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.file.read_exact(&mut byte).map_err(|e| io(self.path, e))?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(corrupt(self.path, "a varint has too many bytes"))
    }
}
