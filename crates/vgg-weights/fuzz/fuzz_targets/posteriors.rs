//! Fuzzes the reader of posteriors files.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vgg_eval::Posteriors;

fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("vgg-fuzz-posteriors-{}", std::process::id()));
    if std::fs::write(&path, data).is_ok() {
        let _ = Posteriors::load(&path);
    }
});
