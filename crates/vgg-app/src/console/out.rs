//! Stdout for data.

use std::io::{Error, ErrorKind, Result, Stdout, Write};
use std::sync::{Mutex, PoisonError};

use vgg_error::printable_lines;

/// The first error of writing to stdout, if the reader has not just closed the pipe.
static FAILED: Mutex<Option<Error>> = Mutex::new(None);

/// Stdout for data, with control characters escaped. Writing never fails: after an error, the rest is
/// discarded, so that a command completes its work, and [`take_stdout_error`] reports the error at the end.
pub(crate) fn out() -> Out {
    Out(std::io::stdout())
}

/// Flushes stdout. Returns the first error of writing to it; a closed pipe, as with `| head`, is none.
pub(crate) fn take_stdout_error() -> Option<Error> {
    // Errors are recorded, not returned.
    let _ = out().flush();
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner).take();
    failed.filter(|error| error.kind() != ErrorKind::BrokenPipe)
}

pub(crate) struct Out(Stdout);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let safe = printable_lines(&String::from_utf8_lossy(bytes));
        record(|| self.0.write_all(safe.as_bytes()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        record(|| self.0.flush());
        Ok(())
    }
}

fn record(write: impl FnOnce() -> Result<()>) {
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    if failed.is_none() {
        *failed = write().err();
    }
}
