//! `consumer WEIGHTS IMAGE DATASET OUT` classifies an image, extracts features and fine-tunes on a folder.

use vgg::{Classifier, FeatureExtractor, Finetune};

fn main() -> vgg::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, image, dataset, out] = arguments.as_slice() else {
        panic!("usage: consumer WEIGHTS IMAGE DATASET OUT")
    };
    for answer in Classifier::open(weights)?.classify(image)?.iter().take(3) {
        println!("{:5.1} %  {}", 100.0 * answer.posterior, answer.name);
    }
    let features: vgg::ndarray::Array1<f32> = FeatureExtractor::open(weights, "fc7")?.extract(image)?;
    println!("{} features", features.len());
    let run = Finetune { epochs: 2, batch: 8, ..Finetune::default() }.run(weights, dataset, out)?;
    println!("{} epochs: {}", run.epochs, run.weights_file().display());
    Ok(())
}
