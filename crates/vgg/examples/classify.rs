//! Prints the most likely classes of an image: `cargo run --release -p vgg --example classify -- WEIGHTS
//! IMAGE`.

fn main() -> vgg::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, image] = arguments.as_slice() else { panic!("usage: classify WEIGHTS IMAGE") };
    for answer in vgg::Classifier::open(weights)?.classify(image)?.iter().take(5) {
        println!("{:5.1} %  {}", 100.0 * answer.posterior, answer.name);
    }
    Ok(())
}
