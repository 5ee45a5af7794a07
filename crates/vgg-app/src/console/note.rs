//! Lines on stderr. What cannot be written, on a full disk or a closed pipe, is discarded: a message must not end a
//! command.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use vgg_error::printable_lines;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Suppresses notes and progress, but not warnings and errors. Ranks other than 0 call it.
pub(crate) fn be_quiet() {
    QUIET.store(true, Relaxed);
}

pub(crate) fn is_quiet() -> bool {
    QUIET.load(Relaxed)
}

/// Prints a note, on rank 0 only.
pub(crate) fn note(text: &str) {
    if !is_quiet() {
        warning(text);
    }
}

/// Prints a warning or an error, on every rank. Control characters are escaped.
pub(crate) fn warning(text: &str) {
    // One write, so that lines of several ranks do not mix.
    let line = format!("{}\n", printable_lines(text));
    let _ = std::io::stderr().write_all(line.as_bytes());
}
