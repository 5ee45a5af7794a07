//! Prints the 95% confidence interval of an error for several numbers of validation images: the smaller the
//! interval, the smaller the differences between networks that can be detected.

use vgg_eval::ErrorRate;

fn main() {
    for n in [100, 500, 1000, 5000, 50_000] {
        let [low, high] = ErrorRate { wrong: n / 4, n }.interval();
        println!("{n:6} images, error 25%: {:.1}% to {:.1}%", 100.0 * low, 100.0 * high);
    }
}
