//! Prints the fc7 features of an image: `cargo run --release -p vgg --example features -- WEIGHTS IMAGE`.

fn main() -> vgg::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, image] = arguments.as_slice() else { panic!("usage: features WEIGHTS IMAGE") };
    for value in vgg::FeatureExtractor::open(weights, "fc7")?.extract(image)? {
        println!("{value}");
    }
    Ok(())
}
