//! Notes on stderr, printed by rank 0 only.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Suppresses notes and progress, but not warnings and errors. Ranks other than 0 call it.
pub(crate) fn be_quiet() {
    QUIET.store(true, Relaxed);
}

pub(crate) fn is_quiet() -> bool {
    QUIET.load(Relaxed)
}

pub(crate) fn note(text: &str) {
    if !is_quiet() {
        eprintln!("{text}");
    }
}
