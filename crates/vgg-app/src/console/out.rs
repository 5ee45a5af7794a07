//! Stdout that tolerates a closed pipe.

use std::io::{ErrorKind, Result, Stdout, Write};

/// Stdout for data. On a broken pipe, as with `| head`, the process exits with code 0.
pub(crate) fn out() -> Out {
    Out(std::io::stdout())
}

pub(crate) struct Out(Stdout);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        quiet_end(self.0.write(bytes))
    }

    fn flush(&mut self) -> Result<()> {
        quiet_end(self.0.flush())
    }
}

fn quiet_end<T>(result: Result<T>) -> Result<T> {
    match result {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}
