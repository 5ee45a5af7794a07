//! Measures how many training images per second one core loads: decoding, scale jitter, crop, flip, PCA
//! colour jitter and mean.
//!
//! `cargo run --release -p vgg-data --example loader_speed DIR [LOW,HIGH] [SECONDS] [bytes]`
//!
//! DIR is a data set, in class folders or prepared. The training scale S is drawn from LOW to HIGH (default
//! 256,512) and the measurement takes SECONDS (default 5). With `bytes`, pixels are not converted to `f32`,
//! as for a GPU.

use std::path::Path;
use std::time::{Duration, Instant};

use vgg_data::{
    AugmentConfig, Geometry, ImageSet, Interpolation, Loader, LoaderConfig, OnBadImage, Partition, PcaJitter,
    PixelStatistics, Split,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dir = arguments.first().ok_or("usage: loader_speed DIR [LOW,HIGH] [SECONDS] [bytes]")?;
    let sides = arguments.get(1).map_or("256,512", String::as_str);
    let sides = sides.split_once(',').ok_or("LOW,HIGH must be two numbers, such as 256,512")?;
    let seconds: f64 = arguments.get(2).map_or(Ok(5.0), |text| text.parse())?;
    let bytes = arguments.get(3).is_some_and(|text| text == "bytes");
    let set = std::sync::Arc::new(ImageSet::open(Path::new(dir), Split::Train)?);
    let statistics = PixelStatistics {
        pixels: 1000,
        sums: [120_000, 115_000, 104_000],
        products: [19_300_000, 18_000_000, 16_300_000, 17_900_000, 16_300_000, 15_900_000],
    };
    let config = LoaderConfig {
        augment: AugmentConfig {
            train_scale: [sides.0.parse()?, sides.1.parse()?],
            crop: 224,
            interpolation: Interpolation::Bilinear,
            geometry: Geometry::Paper,
            flip: true,
            pca_jitter: Some(PcaJitter::new(&statistics, 0.1)),
        },
        mean_rgb: [123.68, 116.779, 103.939],
        batch: 10,
        seed: 1,
        on_bad_image: OnBadImage::Stop,
        workers: 1,
        partition: Partition::WHOLE,
    };
    let mut loader = Loader::new(set, config)?;
    let (mut images, start, mut used) = (0, Instant::now(), 0.0_f64);
    let mut input = vec![0.0_f32; 224 * 224 * 3];
    let most = Duration::from_secs_f64(seconds);
    for epoch in 0.. {
        loader.for_each(epoch, 0, |batch, _| {
            // Conversion to the network's input on the CPU; a GPU converts the bytes itself.
            let floats = if bytes { 0 } else { batch.len() };
            for (pixels, offset) in batch.pixels.outer_iter().zip(batch.offset.outer_iter()).take(floats) {
                for (out, pixel) in input.chunks_exact_mut(3).zip(pixels.rows()) {
                    (0..3).for_each(|c| out[c] = f32::from(pixel[c]) + offset[c]);
                }
                used += f64::from(input[0]);
            }
            images += batch.len();
            Ok::<_, vgg_data::Error>(start.elapsed() < most)
        })?;
        if start.elapsed() >= most {
            break;
        }
    }
    let took = start.elapsed();
    println!(
        "{:.1} images/s ({images} in {took:.1?}; {})",
        images as f64 / took.as_secs_f64(),
        used.is_finite()
    );
    Ok(())
}
