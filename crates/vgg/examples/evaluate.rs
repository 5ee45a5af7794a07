//! Measures errors on validation images: `cargo run --release -p vgg --example evaluate -- WEIGHTS DATASET`.

fn main() -> vgg::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, dataset] = arguments.as_slice() else { panic!("usage: evaluate WEIGHTS DATASET") };
    let errors = vgg::evaluate(weights, dataset)?.errors;
    println!(
        "top-1 error {:.4}, top-5 error {:.4} of {} images",
        errors.top1_error, errors.top5_error, errors.n
    );
    Ok(())
}
