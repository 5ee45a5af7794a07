//! Checks a gradient by finite differences: `cargo run -p vgg-testkit --example check_a_gradient`.

use vgg_testkit::{finite_difference, pseudo_random};

fn main() {
    let x: Vec<f64> = pseudo_random("x", 1.0, 5).into_iter().map(f64::from).collect();
    let measured = finite_difference(&x, |x| x.iter().map(|v| v.powi(3)).sum());
    for (i, (v, measured)) in x.iter().zip(measured).enumerate() {
        println!("x[{i}] = {v:6.3}: gradient {:.8}, finite difference {measured:.8}", 3.0 * v * v);
    }
}
