//! Tests that span several crates, in `tests/`; the scripts that made the references are in `reference/`.
