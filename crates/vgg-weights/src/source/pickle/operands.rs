//! Operands of the opcodes: numbers, strings and raw bytes.

use super::{MAX_TEXT, Machine, Result, Value};

impl Machine<'_> {
    /// LONG1 and LONG4: an integer of `n` bytes. One of more than 64 bits, such as the magic number of the legacy
    /// format, is ignored.
    pub(super) fn long(&mut self, n: usize) -> Result<()> {
        let bytes = self.take(n)?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        if n > 8 {
            return self.push(Value::Other);
        }
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..n].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(all)))
    }

    pub(super) fn text(&mut self, code: u8) -> Result<()> {
        let n = match code {
            b'X' | b'T' | b'B' => u64::from(u32::from_le_bytes(self.array()?)),
            0x8d | 0x8e | 0x96 => u64::from_le_bytes(self.array()?),
            _ => u64::from(self.byte()?),
        };
        let text = self.take(usize::try_from(n).map_err(|_| "it is truncated")?)?;
        let value = match text.len() > MAX_TEXT {
            true => Value::Other,
            false => Value::Text(String::from_utf8_lossy(text).into_owned()),
        };
        self.push(value)
    }

    pub(super) fn line(&mut self) -> Result<String> {
        let end =
            self.bytes[self.at..].iter().take(1000).position(|b| *b == b'\n').ok_or("a name has no end")?;
        let text = String::from_utf8_lossy(&self.bytes[self.at..self.at + end]).into_owned();
        self.at += end + 1;
        Ok(text)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len()).ok_or("it is truncated")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
}
