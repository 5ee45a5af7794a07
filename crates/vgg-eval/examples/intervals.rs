//! How many validation images it takes to tell two networks apart: widths of the 95 % interval of an error.

use vgg_eval::ErrorRate;

fn main() {
    for n in [100, 500, 1000, 5000, 50_000] {
        let [low, high] = ErrorRate { wrong: n / 4, n }.interval();
        println!("{n:6} images, error 25 %: {:.1} % to {:.1} %", 100.0 * low, 100.0 * high);
    }
}
