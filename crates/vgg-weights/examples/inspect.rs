//! Prints the metadata of a weights file: `cargo run -p vgg-weights --example inspect FILE`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        println!("usage: inspect FILE");
        return Ok(());
    };
    let metadata = vgg_weights::read_metadata(&path)?;
    let spec = &metadata.spec;
    println!("config {} at width {}, {} classes, crop {}", spec.config, spec.width, spec.classes, spec.crop);
    println!("{} parameters, training scale {:?}", spec.parameter_count()?, metadata.train_scale);
    println!("(pixel - {:?}) * {}", metadata.mean_rgb, metadata.pixel_scale);
    Ok(())
}
