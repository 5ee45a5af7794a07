//! Prints the paper's Tables 1 and 2, computed, and its Table 3, quoted: `cargo run -p vgg-experiment --example
//! papers_tables`.

use vgg_experiment::{paper, paper_networks, table1, table2};

fn main() -> vgg_experiment::Result<()> {
    println!("{}", table1(&paper_networks())?.markdown());
    println!("{}", table2(&paper_networks())?.markdown());
    for row in paper::TABLE_3 {
        println!(
            "{:12} top-1 {:.1} %, top-5 {:.1} %",
            row.name,
            100.0 * row.top1_error,
            100.0 * row.top5_error
        );
    }
    Ok(())
}
