//! `vgg convert`: weights from one library to another.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vgg_layers::Config;
use vgg_tensor::Device;
use vgg_weights::{Pixels, Target, convert, load_with};

use super::options::one_of;
use crate::exit::UsageError;

/// Configurations that torchvision and timm have: their vgg11, 13, 16 and 19.
const PUBLISHED: [Config; 4] = [Config::A, Config::B, Config::D, Config::E];

#[derive(Args)]
pub(crate) struct Convert {
    /// Weights: ours, torchvision's or timm's safetensors, .pth, .caffemodel or .npz with Keras's names.
    input: PathBuf,
    /// File to write.
    output: PathBuf,
    /// native, torchvision, timm, caffe (with a prototxt beside it), onnx or onnx-dense.
    #[arg(long, default_value = "native", value_parser = target)]
    to: Target,
    /// How pixels were prepared for the network, if the file does not say: torchvision, caffe-bgr or caffe-rgb. Default:
    /// the custom of the library whose names the file uses.
    #[arg(long)]
    pixels: Option<Pixels>,
    /// Write over a file that is there.
    #[arg(long)]
    force: bool,
}

fn target(name: &str) -> Result<Target, String> {
    one_of(&Target::ALL, name)
}

impl Convert {
    pub(crate) fn run(self) -> Result<()> {
        let files = self.to.files(&self.output);
        if files.len() > 1 && files[0] == files[1] {
            let what =
                format!("{} is the name of the text beside the weights; give another", files[0].display());
            return Err(UsageError(what).into());
        }
        if let Some(file) = files.iter().find(|file| file.exists() && !self.force) {
            let what = format!("{} exists; --force writes over it", file.display());
            return Err(UsageError(what).into());
        }
        let mut loaded = load_with(&self.input, &Device::cpu(1)?, self.pixels)?;
        vgg::name_classes(&mut loaded);
        loaded.notes.iter().for_each(|note| eprintln!("{note}"));
        let spec = loaded.network.spec();
        if matches!(self.to, Target::Torchvision | Target::Timm) && !PUBLISHED.contains(&spec.config) {
            eprintln!(
                "note: that library has no model of config {}; only the names are its own",
                spec.config
            );
        }
        for file in convert(&self.output, &loaded.network, &loaded.metadata, self.to)? {
            eprintln!("wrote {}", file.display());
        }
        Ok(())
    }
}
