//! Notes on stderr, from one rank of several.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on this process says nothing but what goes wrong: another rank says the rest.
pub(crate) fn be_quiet() {
    QUIET.store(true, Relaxed);
}

pub(crate) fn is_quiet() -> bool {
    QUIET.load(Relaxed)
}

/// Says something, unless another rank does.
pub(crate) fn note(text: &str) {
    if !is_quiet() {
        eprintln!("{text}");
    }
}
