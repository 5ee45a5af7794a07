//! Generates the synthetic data set in a folder:
//! `cargo run --release -p vgg-data --example make_synthetic OUT`

use std::path::PathBuf;
use std::time::Instant;

use vgg_data::synthetic::{SyntheticConfig, open_or_generate};

fn main() -> vgg_data::Result<()> {
    let Some(out) = std::env::args_os().nth(1).map(PathBuf::from) else {
        println!("usage: make_synthetic OUT");
        return Ok(());
    };
    let start = Instant::now();
    let [train, val] = open_or_generate(&out, &SyntheticConfig::default(), 2, &|_, _| ())?;
    println!("{} training and {} validation images in {:.1?}", train.len(), val.len(), start.elapsed());
    Ok(())
}
