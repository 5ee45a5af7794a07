//! Fine-tunes a network on a folder with train/<class>/* and val/<class>/*:
//! `cargo run --release -p vgg --example finetune -- WEIGHTS DATASET OUT`.

fn main() -> vgg::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, dataset, out] = arguments.as_slice() else { panic!("usage: finetune WEIGHTS DATASET OUT") };
    let run = vgg::Finetune { epochs: 5, ..Default::default() }.run(weights, dataset, out)?;
    println!("validation error {:?}: {}", run.last.val_top1_error, run.weights_file().display());
    Ok(())
}
