//! Prints the paper's Tables 1 and 2, computed, and its Table 3, quoted:
//! `cargo run -p vgg-experiment --example papers_tables`.

use vgg_experiment::{TableName, paper, table1, table2};
use vgg_layers::{Config, NetworkSpec};

fn main() -> vgg_experiment::Result<()> {
    let networks: Vec<NetworkSpec> = Config::all().map(NetworkSpec::paper).collect();
    println!("{}", table1(&networks)?.markdown());
    println!("{}", table2(&networks)?.markdown());
    for row in paper::rows(&TableName::Table3) {
        let percent =
            |share: Option<f64>| share.map_or("none".to_owned(), |share| format!("{:.1} %", 100.0 * share));
        println!("{:12} top-1 {}, top-5 {}", row.name, percent(row.top1_error), percent(row.top5_error));
    }
    Ok(())
}
