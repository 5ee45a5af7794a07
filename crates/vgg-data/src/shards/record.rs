//! Where an image is: a record of the index, and what surrounds it in a tar file.

/// Tar files are made of blocks of this many bytes.
pub(crate) const BLOCK: usize = 512;

/// Place and class of an image. Little-endian, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// First byte of its file within the shard.
    pub(crate) offset: u64,
    /// Bytes of its file.
    pub(crate) bytes: u32,
    /// Which shard of the split.
    pub(crate) shard: u32,
    /// Class index.
    pub(crate) target: u32,
}

impl Record {
    /// With four to spare.
    pub(crate) const BYTES: usize = 24;

    #[cfg(any(test, feature = "prepare"))]
    pub(crate) fn to_bytes(self) -> [u8; Record::BYTES] {
        let mut bytes = [0; Record::BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        for (i, value) in [self.bytes, self.shard, self.target].into_iter().enumerate() {
            bytes[8 + 4 * i..][..4].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Record::BYTES]) -> Record {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let offset = u64::from(number(0)) | u64::from(number(4)) << 32;
        Record { offset, bytes: number(8), shard: number(12), target: number(16) }
    }
}

/// Name of a member from its header; names of prepared shards fit into its first field.
pub(crate) fn name_in(header: &[u8]) -> String {
    let name = &header[..header.len().min(100)];
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_was_written() {
        let record = Record { offset: 0x0102_0304_0506, bytes: 7, shard: 0x0800_0000, target: 999 };
        assert_eq!(Record::from_bytes(&record.to_bytes()), record);
    }
}
