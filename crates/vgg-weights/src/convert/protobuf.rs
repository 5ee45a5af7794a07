//! Writing messages in the wire format of protocol buffers, without copying tensor values.

use std::io::{Result, Write};

/// The value of a field.
pub(super) enum Value<'a> {
    Number(u64),
    Float(f32),
    Text(String),
    /// Packed floats.
    Floats(&'a [f32]),
    Message(Message<'a>),
}

/// A message: its fields with their numbers, in order.
#[derive(Default)]
pub(super) struct Message<'a>(Vec<(u32, Value<'a>)>);

impl<'a> Message<'a> {
    pub(super) fn new() -> Message<'a> {
        Message::default()
    }

    /// Appends a field.
    pub(super) fn with(mut self, field: u32, value: Value<'a>) -> Message<'a> {
        self.0.push((field, value));
        self
    }

    pub(super) fn number(self, field: u32, number: i64) -> Message<'a> {
        self.with(field, Value::Number(number as u64))
    }

    pub(super) fn text(self, field: u32, text: &str) -> Message<'a> {
        self.with(field, Value::Text(text.to_owned()))
    }

    pub(super) fn message(self, field: u32, message: Message<'a>) -> Message<'a> {
        self.with(field, Value::Message(message))
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> Result<()> {
        for (field, value) in &self.0 {
            varint(out, u64::from(field << 3 | value.kind()))?;
            if value.kind() == 2 {
                varint(out, value.len() as u64)?;
            }
            match value {
                Value::Number(number) => varint(out, *number)?,
                Value::Float(value) => out.write_all(&value.to_le_bytes())?,
                Value::Text(text) => out.write_all(text.as_bytes())?,
                Value::Floats(values) => floats(out, values)?,
                Value::Message(message) => message.write(out)?,
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        let of = |(field, value): &(u32, Value)| {
            let prefix = if value.kind() == 2 { varint_len(value.len() as u64) } else { 0 };
            varint_len(u64::from(field << 3)) + prefix + value.len()
        };
        self.0.iter().map(of).sum()
    }
}

impl Value<'_> {
    fn kind(&self) -> u32 {
        match self {
            Value::Number(_) => 0,
            Value::Float(_) => 5,
            _ => 2,
        }
    }

    fn len(&self) -> usize {
        match self {
            Value::Number(number) => varint_len(*number),
            Value::Float(_) => 4,
            Value::Text(text) => text.len(),
            Value::Floats(values) => 4 * values.len(),
            Value::Message(message) => message.len(),
        }
    }
}

fn varint_len(value: u64) -> usize {
    (64 - value.leading_zeros()).max(1).div_ceil(7) as usize
}

fn varint(out: &mut dyn Write, mut value: u64) -> Result<()> {
    while value >= 0x80 {
        out.write_all(&[value as u8 | 0x80])?;
        value >>= 7;
    }
    out.write_all(&[value as u8])
}

fn floats(out: &mut dyn Write, values: &[f32]) -> Result<()> {
    let mut buffer = Vec::with_capacity(1 << 16);
    for chunk in values.chunks(1 << 14) {
        buffer.clear();
        buffer.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
        out.write_all(&buffer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_length_equals_encoded_bytes() {
        // The examples of the protocol buffers documentation: field 1 = 150, field 2 = "testing", in field 3.
        let message = Message::new().message(3, Message::new().number(1, 150).text(2, "testing"));
        let mut bytes = Vec::new();
        message.write(&mut bytes).unwrap();
        let expected = [&[0x1a, 12, 0x08, 0x96, 0x01, 0x12, 7][..], b"testing"].concat();
        assert_eq!((bytes, message.len()), (expected, 14));
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            let mut bytes = Vec::new();
            varint(&mut bytes, value).unwrap();
            assert_eq!(bytes.len(), varint_len(value), "{value}");
        }
    }

    #[test]
    fn fields_use_the_protobuf_wire_types() {
        let values = [1.5, -2.0];
        let message = Message::new()
            .number(1, -1)
            .with(16, Value::Float(1.5))
            .with(2, Value::Floats(&values))
            .text(21_000, "");
        let mut bytes = Vec::new();
        message.write(&mut bytes).unwrap();
        // A tag is 8 * field number + wire type: 0 varint, 2 length-delimited, 5 four bytes.
        let expected: [&[u8]; 5] = [
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            // 16 * 8 + 5 = 133 takes two bytes.
            &[0x85, 0x01, 0x00, 0x00, 0xc0, 0x3f],
            &[0x12, 8, 0x00, 0x00, 0xc0, 0x3f, 0x00, 0x00, 0x00, 0xc0],
            // 21000 * 8 + 2 = 168002 = 0b1010_0100000_1000010.
            &[0xc2, 0xa0, 0x0a],
            &[0],
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(message.len(), bytes.len());
    }

    #[test]
    fn float_arrays_larger_than_the_buffer_are_written_in_order() {
        // More than one buffer, and not a multiple of its size.
        let values: Vec<f32> = (0..40_000).map(|i| i as f32).collect();
        let message = Message::new().with(1, Value::Floats(&values));
        let mut bytes = Vec::new();
        message.write(&mut bytes).unwrap();
        let (header, floats) = bytes.split_at(bytes.len() - 160_000);
        // 160000 = 0b1001_1100010_0000000.
        assert_eq!(header, [0x0a, 0x80, 0xe2, 0x09]);
        let floats: Vec<f32> = floats.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_eq!(floats, values);
    }
}
