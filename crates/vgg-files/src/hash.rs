//! BLAKE3 hashes.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Result, at};

/// A BLAKE3 hash, shown and stored in hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(String);

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Hash, String> {
        let sound = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if sound { Ok(Hash(text)) } else { Err(format!("{text:?} is no BLAKE3 hash")) }
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> String {
        hash.0
    }
}

impl Hash {
    /// All 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for names of files and for people.
    pub fn short(&self) -> &str {
        &self.0[..self.0.len().min(12)]
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hash of bytes that come in pieces.
#[derive(Clone, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Takes some more.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all so far.
    pub fn hash(&self) -> Hash {
        Hash(self.0.finalize().to_hex().to_string())
    }
}

/// Hash of some bytes.
pub fn hash_bytes(bytes: &[u8]) -> Hash {
    Hash(blake3::hash(bytes).to_hex().to_string())
}

/// Hash of a file's contents.
///
/// # Errors
/// [`crate::Error::Missing`] or [`crate::Error::Io`].
pub fn hash_file(path: &Path) -> Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(path).map_err(at("open", path))?;
    hasher.update_reader(file).map_err(at("read", path))?;
    Ok(Hash(hasher.finalize().to_hex().to_string()))
}
