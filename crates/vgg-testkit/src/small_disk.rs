//! A file system of a few MiB, to test full disks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A tmpfs mounted at a folder until it is dropped.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts a file system of `kib` KiB. Reports a skip and returns `None` if this user may not mount.
    ///
    /// # Panics
    /// If the folder cannot be created.
    pub fn mount(at: &Path, kib: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a folder to mount at");
        let options = format!("size={kib}k");
        if run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at)) {
            return Some(SmallDisk { at: at.to_owned() });
        }
        crate::skip("mount", &"this user may not mount a file system");
        None
    }

    /// Remounts the file system read-only.
    ///
    /// # Panics
    /// If the file system cannot be remounted.
    pub fn make_read_only(&self) {
        let done = run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.at));
        assert!(done, "{} cannot be made read-only", self.at.display());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.at));
    }
}

fn run(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
