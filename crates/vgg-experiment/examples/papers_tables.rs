//! Prints the paper's Tables 1 and 2, computed, and its Table 3, quoted: `cargo run -p vgg-experiment --example
//! papers_tables`.

use vgg_experiment::{paper, paper_networks, table1, table2};

fn main() -> vgg_experiment::Result<()> {
    println!("{}", table1(&paper_networks())?.markdown());
    println!("{}", table2(&paper_networks())?.markdown());
    for row in paper::rows("table3") {
        let percent =
            |share: Option<f64>| share.map_or("none".to_owned(), |share| format!("{:.1} %", 100.0 * share));
        println!("{:12} top-1 {}, top-5 {}", row.name, percent(row.top1_error), percent(row.top5_error));
    }
    Ok(())
}
