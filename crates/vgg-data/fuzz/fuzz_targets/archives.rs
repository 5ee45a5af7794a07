//! Fuzzes the reading of tar members and annotations. The first byte of the input chooses: a class archive of ImageNet,
//! a compressed archive of annotations with the input as tar file, or one annotation.

#![no_main]

use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use vgg_data::Split;
use vgg_data::prepare::{Files, Ilsvrc, IlsvrcOptions, Layout, Source};

const OPTIONS: IlsvrcOptions = IlsvrcOptions { allow_incomplete: true, skip_md5: true };

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    std::fs::write(path, bytes)
}

fn read_all(source: &dyn Source) {
    let _ = source.entries(Split::Train, &mut |entry| {
        std::hint::black_box(entry.bytes.len());
        Ok(())
    });
}

fn run(which: u8, data: &[u8], root: &Path) -> std::io::Result<()> {
    match which % 3 {
        0 => write(&root.join("train/n01440764.tar"), data)?,
        1 => {
            write(&root.join("train/n01440764.tar"), &[0; 1024])?;
            let mut file = GzEncoder::new(Vec::new(), Compression::fast());
            file.write_all(data)?;
            write(&root.join("ILSVRC2012_bbox_train_v2.tar.gz"), &file.finish()?)?;
        }
        _ => {
            write(&root.join("JPEGImages/1.ppm"), b"P6\n1 1\n255\nabc")?;
            write(&root.join("Annotations/1.xml"), data)?;
            if let Ok(files) = Files::open(root, Layout::Voc { seed: 1 }) {
                read_all(&files);
            }
            return Ok(());
        }
    }
    if let Ok(source) = Ilsvrc::open(root, OPTIONS) {
        read_all(&source);
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    if let Ok(root) = tempfile::tempdir() {
        let _ = run(*which, data, root.path());
    }
});
