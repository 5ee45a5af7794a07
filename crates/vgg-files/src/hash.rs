//! BLAKE3 hashes.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Result, at};

/// A BLAKE3 hash, displayed and serialised as 64 lowercase hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(String);

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Hash, String> {
        let sound = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if sound {
            Ok(Hash(text))
        } else {
            Err(format!("{text:?} is not a BLAKE3 hash: expected 64 lowercase hexadecimal digits"))
        }
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> String {
        hash.0
    }
}

impl Hash {
    /// The 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for file names and messages.
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

/// Incremental BLAKE3 hashing.
#[derive(Clone, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes added so far. More bytes may be added afterwards.
    pub fn hash(&self) -> Hash {
        Hash(self.0.finalize().to_hex().to_string())
    }
}

/// Hash of `bytes`.
pub fn hash_bytes(bytes: &[u8]) -> Hash {
    Hash(blake3::hash(bytes).to_hex().to_string())
}

/// Hash of a file's contents.
///
/// # Errors
/// [`crate::Error::Missing`] if the file does not exist; [`crate::Error::Io`] if it cannot be read.
pub fn hash_file(path: &Path) -> Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let file = crate::open_regular(path).map_err(at("open", path))?;
    hasher.update_reader(file).map_err(at("read", path))?;
    Ok(Hash(hasher.finalize().to_hex().to_string()))
}
