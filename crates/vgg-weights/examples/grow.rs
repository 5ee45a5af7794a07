//! Initialises D from a weights file of A, with the paper's layers and with all matching layers:
//! `cargo run -p vgg-weights --example grow`.

use vgg_layers::{Config, Init, LayerSelection, Network, NetworkSpec};
use vgg_tensor::Device;
use vgg_weights::{WeightsMetadata, load_layers, save};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::cpu(0)?;
    let spec =
        |config| NetworkSpec { width: 0.25, head: [256, 256], classes: 10, ..NetworkSpec::paper(config) };
    let a = Network::random(spec(Config::A), Init::He, 1, &device)?;
    let file = std::env::temp_dir().join("grow-a.safetensors");
    save(&file, &a, &WeightsMetadata::untrained(spec(Config::A)))?;
    for selection in [LayerSelection::Paper, LayerSelection::AllMatching] {
        let mut d = Network::random(spec(Config::D), Init::He, 2, &device)?;
        let report = load_layers(&file, &selection, &mut d)?;
        let (loaded, not_loaded) = (report.loaded.join(" "), report.not_loaded.join(" "));
        println!("{selection:?}: loaded {loaded}; not loaded {not_loaded}");
    }
    Ok(())
}
