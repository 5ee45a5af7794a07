//! JSON files, with or without a checksum of their contents.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::{Hash, hash_bytes, read_bytes, write_bytes};

/// Writes `value` to a file atomically, as indented JSON with a final newline.
///
/// # Errors
/// As [`write_bytes`]; [`Error::Corrupt`] if the value cannot be serialised.
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| Error::corrupt(path, e))?;
    json.push(b'\n');
    write_bytes(path, &json)
}

/// Reads a JSON file.
///
/// # Errors
/// As [`read_bytes`]; [`Error::Corrupt`] with the parser's message if it is not JSON of this type.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read_bytes(path)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(path, e))
}

/// A value and the hash of its JSON.
#[derive(Serialize, Deserialize)]
struct Checksummed<T> {
    value: T,
    blake3: Hash,
}

/// As [`write_json`], with a checksum, so that [`read_checksummed_json`] detects a damaged file.
///
/// # Errors
/// As [`write_json`].
pub fn write_checksummed_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_json(path, &Checksummed { value, blake3: checksum(path, value)? })
}

/// Reads a file of [`write_checksummed_json`].
///
/// # Errors
/// As [`read_json`]; [`Error::Corrupt`] if the checksum does not match.
pub fn read_checksummed_json<T: Serialize + DeserializeOwned>(path: &Path) -> Result<T> {
    let Checksummed { value, blake3 } = read_json::<Checksummed<T>>(path)?;
    if checksum(path, &value)? != blake3 {
        return Err(Error::corrupt(path, "its checksum does not match"));
    }
    Ok(value)
}

fn checksum<T: Serialize>(path: &Path, value: &T) -> Result<Hash> {
    Ok(hash_bytes(&serde_json::to_vec(value).map_err(|e| Error::corrupt(path, e))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        assert!(read_json::<u32>(&path).unwrap_err().is_missing());
        write_bytes(&path, b"[1, 2").unwrap();
        let error = read_json::<Vec<u32>>(&path).unwrap_err().to_string();
        assert!(error.contains("x.json") && error.contains("EOF"), "{error}");
    }

    #[test]
    fn every_changed_byte_of_a_checksummed_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let value = vec![1u32, 234, 5];
        write_checksummed_json(&path, &value).unwrap();
        let bytes = read_bytes(&path).unwrap();
        assert_eq!(read_checksummed_json::<Vec<u32>>(&path).unwrap(), value);
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            write_bytes(&path, &changed).unwrap();
            match read_checksummed_json::<Vec<u32>>(&path) {
                Err(Error::Corrupt { .. }) => {}
                // White space between the values may change.
                Ok(read) => assert!(bytes[place].is_ascii_whitespace() && read == value, "byte {place}"),
                Err(other) => panic!("byte {place}: {other}"),
            }
        }
    }
}
