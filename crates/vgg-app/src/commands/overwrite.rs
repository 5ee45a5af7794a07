//! The option `--force`: output files that exist are kept without it.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use vgg_error::printable;

use crate::exit::UsageError;

#[derive(Args)]
pub(super) struct Overwrite {
    /// Overwrite output files that exist.
    #[arg(long)]
    force: bool,
}

impl Overwrite {
    /// Checks that a file may be written, before the work starts. `inputs` are the files that the command reads.
    ///
    /// # Errors
    /// [`UsageError`] if `path` exists and `--force` is not given, or if it is an input.
    pub(super) fn check(&self, path: &Path, inputs: &[&Path]) -> Result<()> {
        if let Ok(real) = std::fs::canonicalize(path)
            && inputs.iter().any(|input| std::fs::canonicalize(input).is_ok_and(|input| input == real))
        {
            let what = format!("{} is an input of this command; choose another output", printable(path));
            return Err(UsageError(what).into());
        }
        if self.force || std::fs::symlink_metadata(path).is_err() {
            return Ok(());
        }
        let what = format!("{} already exists; pass --force to overwrite it", printable(path));
        Err(UsageError(what).into())
    }

    /// As [`Overwrite::check`]; `is_same` tells whether the file may be replaced because it is an earlier result of the
    /// same command.
    pub(super) fn check_unless(
        &self,
        path: &Path,
        inputs: &[&Path],
        is_same: impl FnOnce() -> bool,
    ) -> Result<()> {
        if !self.force && path.exists() && is_same() { Ok(()) } else { self.check(path, inputs) }
    }
}
