//! [`Record`]: the index entry of an image, 32 bytes.

/// Block size of tar files in bytes.
pub(crate) const BLOCK: usize = 512;

/// Location, name and class of an image. Stored in little-endian order: `offset`, `name`, `bytes`, `shard`,
/// `target`, `crc32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// Offset of the image file in the shard.
    pub(crate) offset: u64,
    /// Offset of the image's line in the file of names.
    pub(crate) name: u64,
    /// Size of the image file in bytes.
    pub(crate) bytes: u32,
    /// Number of the shard in the split.
    pub(crate) shard: u32,
    /// Class index.
    pub(crate) target: u32,
    /// CRC-32 of the image file.
    pub(crate) crc32: u32,
}

impl Record {
    pub(crate) const BYTES: usize = 32;

    #[cfg(any(test, feature = "prepare"))]
    pub(crate) fn to_bytes(self) -> [u8; Record::BYTES] {
        let mut bytes = [0; Record::BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.name.to_le_bytes());
        for (i, value) in [self.bytes, self.shard, self.target, self.crc32].into_iter().enumerate() {
            bytes[16 + 4 * i..][..4].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Record::BYTES]) -> Record {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(number(at)) | u64::from(number(at + 4)) << 32;
        Record {
            offset: long(0),
            name: long(8),
            bytes: number(16),
            shard: number(20),
            target: number(24),
            crc32: number(28),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_round_trips() {
        let (offset, name) = (0x0102_0304_0506, 0x0908_0706_0504);
        let record = Record { offset, name, bytes: 7, shard: 0x0800_0000, target: 999, crc32: 0xdead_beef };
        assert_eq!(Record::from_bytes(&record.to_bytes()), record);
    }
}
