//! Starts net D from net A by the paper's map, and by every layer that matches: `cargo run -p vgg-layers --example grow`.

use vgg_layers::{Config, Device, Init, Network, NetworkSpec, TransferMap};

fn main() -> vgg_layers::Result<()> {
    let device = Device::cpu(0)?;
    let spec =
        |config| NetworkSpec { width: 0.25, head: [256, 256], classes: 10, ..NetworkSpec::paper(config) };
    let a = Network::random(spec(Config::A), Init::He, 1, &device)?;
    for map in [TransferMap::Paper, TransferMap::AllMatching] {
        let mut d = Network::random(spec(Config::D), Init::He, 2, &device)?;
        let report = d.copy_from(&a, &map)?;
        println!("{map:?}: copied {}; drawn {}", report.copied.join(" "), report.drawn.join(" "));
    }
    Ok(())
}
