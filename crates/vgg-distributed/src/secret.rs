//! The secret that the ranks of a run share, and the proofs that a process knows it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Shortest secret in bytes.
const SHORTEST: usize = 16;
/// Longest secret in bytes.
const LONGEST: u64 = 4096;

/// Length of a nonce and of a proof.
pub(crate) const PROOF_BYTES: usize = 32;

/// A random number that is used once, so that a recorded proof is worthless.
pub(crate) type Nonce = [u8; PROOF_BYTES];

/// The secret of a run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    key: [u8; 32],
    /// Whether the user has given no secret.
    is_empty: bool,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// No secret: every process that can connect knows it.
    pub(crate) fn none() -> Secret {
        Secret { is_empty: true, ..Secret::of(b"") }
    }

    fn of(secret: &[u8]) -> Secret {
        Secret {
            key: blake3::derive_key("vgg-distributed 2026-11-30 secret of ranks", secret),
            is_empty: false,
        }
    }

    /// Reads `VGG_RANKS_SECRET`, or the file `VGG_RANKS_SECRET_FILE`. Rank 0 makes the file with a random secret if it
    /// does not exist; other ranks wait for it until `deadline`.
    pub(crate) fn from(
        get: &dyn Fn(&str) -> Option<String>,
        rank: usize,
        deadline: Instant,
    ) -> Result<Secret, String> {
        let of = |name: &str| get(name).filter(|value| !value.is_empty());
        match (of("VGG_RANKS_SECRET"), of("VGG_RANKS_SECRET_FILE")) {
            (Some(text), _) if text.trim().len() < SHORTEST => {
                Err(format!("VGG_RANKS_SECRET must have at least {SHORTEST} characters"))
            }
            (Some(text), _) => Ok(Secret::of(text.trim().as_bytes())),
            (None, Some(path)) => {
                let path = Path::new(&path);
                if rank == 0 {
                    make(path).map_err(|e| cannot("write", path, &e))?;
                    // Rank 0 does not wait for itself.
                    return read(path, Instant::now());
                }
                read(path, deadline)
            }
            (None, None) => Ok(Secret::none()),
        }
    }

    /// Whether the user has given no secret.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Proof that a process knows the secret. `role` tells both sides apart; `messages` are what both have said.
    pub(crate) fn proof(&self, role: &str, messages: &[&[u8]]) -> [u8; PROOF_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(role.as_bytes());
        for message in messages {
            hasher.update(&(message.len() as u64).to_le_bytes());
            hasher.update(message);
        }
        *hasher.finalize().as_bytes()
    }

    /// Compares a proof in constant time.
    pub(crate) fn accepts(&self, proof: &[u8], role: &str, messages: &[&[u8]]) -> bool {
        let proof: Result<[u8; PROOF_BYTES], _> = proof.try_into();
        proof.is_ok_and(|proof| blake3::Hash::from(proof) == blake3::Hash::from(self.proof(role, messages)))
    }
}

/// A new nonce.
pub(crate) fn nonce() -> Result<Nonce, String> {
    let mut nonce = [0; PROOF_BYTES];
    getrandom::fill(&mut nonce).map_err(|e| format!("the system has no random numbers: {e}"))?;
    Ok(nonce)
}

/// Makes a file with a random secret that only its owner can read, unless it exists.
fn make(path: &Path) -> std::io::Result<()> {
    let secret: String = nonce().map_err(std::io::Error::other)?.iter().map(|b| format!("{b:02x}")).collect();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Waits for the file and reads it.
fn read(path: &Path, deadline: Instant) -> Result<Secret, String> {
    loop {
        let mut bytes = Vec::new();
        match open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound && Instant::now() < deadline => {}
            Err(e) => return Err(cannot("read", path, &e)),
            Ok(file) => {
                check_mode(path, &file)?;
                file.take(LONGEST).read_to_end(&mut bytes).map_err(|e| cannot("read", path, &e))?;
            }
        }
        let text = bytes.trim_ascii();
        if text.len() >= SHORTEST {
            return Ok(Secret::of(text));
        }
        // Rank 0 may not have written it yet.
        if Instant::now() >= deadline {
            return Err(format!("{} has fewer than {SHORTEST} characters", path.display()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Opens the file, unless it is a directory, a device or a named pipe, which would be waited for.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    match std::fs::metadata(path)?.is_file() {
        true => std::fs::File::open(path),
        false => Err(std::io::Error::other("it is not a regular file")),
    }
}

fn check_mode(path: &Path, file: &std::fs::File) -> Result<(), String> {
    let metadata = file.metadata().map_err(|e| cannot("read", path, &e))?;
    if metadata.len() > LONGEST {
        return Err(format!("{} must be a file of at most {LONGEST} bytes", path.display()));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o077 != 0 {
            let path = path.display();
            return Err(format!("other users can access {path}; run chmod 600 {path}"));
        }
    }
    Ok(())
}

fn cannot(action: &str, path: &Path, e: &std::io::Error) -> String {
    format!("cannot {action} {}, the VGG_RANKS_SECRET_FILE: {e}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)], rank: usize) -> Result<Secret, String> {
        let get = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, v)| (*v).to_owned());
        Secret::from(&get, rank, Instant::now() + Duration::from_millis(300))
    }

    #[test]
    fn secret_is_read_from_the_environment() {
        assert!(from(&[], 0).unwrap().is_empty());
        let secret = from(&[("VGG_RANKS_SECRET", "0123456789abcdef")], 1).unwrap();
        assert!(!secret.is_empty() && secret != Secret::none());
        assert!(from(&[("VGG_RANKS_SECRET", "short")], 1).unwrap_err().contains("at least 16"));
    }

    #[cfg(unix)]
    #[test]
    fn rank_0_makes_the_file_of_the_secret() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let variables = [("VGG_RANKS_SECRET_FILE", path.to_str().unwrap())];
        assert!(from(&variables, 1).unwrap_err().contains("cannot read"));
        let first = from(&variables, 0).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(from(&variables, 1).unwrap() == first && from(&variables, 0).unwrap() == first);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(from(&variables, 1).unwrap_err().contains("chmod 600"));
    }

    #[test]
    fn proofs_depend_on_secret_role_and_messages() {
        let [a, b] = [Secret::of(b"a"), Secret::of(b"b")];
        let proof = a.proof("client", &[b"x", b"yz"]);
        assert!(a.accepts(&proof, "client", &[b"x", b"yz"]));
        assert!(!b.accepts(&proof, "client", &[b"x", b"yz"]));
        assert!(!a.accepts(&proof, "server", &[b"x", b"yz"]));
        assert!(!a.accepts(&proof, "client", &[b"xy", b"z"]));
        assert!(!a.accepts(&proof[1..], "client", &[b"x", b"yz"]));
    }
}
