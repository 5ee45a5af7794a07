//! Writes a directory atomically and verifies it: `cargo run -p vgg-files --example durable_directory [DIR]`.

use std::path::PathBuf;

use vgg_files::{DirectoryWriter, verify};

fn main() -> vgg_files::Result<()> {
    let target =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("vgg-example"), PathBuf::from);
    let mut writer = DirectoryWriter::new(&target)?;
    writer.add("numbers.txt", |out| writeln!(out, "1 2 3"))?;
    writer.add("letters.txt", |out| writeln!(out, "a b c"))?;
    writer.commit()?;
    let manifest = verify(&target)?;
    println!("{}: {} files verified", target.display(), manifest.files.len());
    Ok(())
}
