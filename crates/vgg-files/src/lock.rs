//! [`Lock`]: exclusive use of a directory by one process.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::disk;
use crate::error::{Error, Result, at};

/// An exclusive lock on a directory, held until dropped. The system releases it if the process dies.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Locks the file `.lock` in `directory`. Creates both if they do not exist. Does not wait.
    ///
    /// # Errors
    /// [`Error::Locked`] if the lock is held already; [`Error::Io`] if the lock file cannot be opened.
    pub fn acquire(directory: &Path) -> Result<Lock> {
        disk::create_dir_all(directory).map_err(at("create", directory))?;
        let path = directory.join(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(at("write", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path: directory.to_owned() }),
            Err(TryLockError::Error(source)) => Err(at("lock", &path)(source)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file does not release the lock while a child process that is being started has a copy
        // of the descriptor.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_of_the_descriptor_does_not_hold_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(dir.path()).unwrap();
        let _copy = lock.file.try_clone().unwrap();
        drop(lock);
        Lock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn second_lock_fails_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::acquire(dir.path()).unwrap();
        assert!(matches!(Lock::acquire(dir.path()), Err(Error::Locked { .. })));
        drop(first);
        Lock::acquire(dir.path()).unwrap();
    }
}
