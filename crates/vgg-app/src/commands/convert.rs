//! `vgg convert`: weights from one library to another.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vgg_tensor::Device;
use vgg_weights::{LoadOptions, Pixels, Target, convert, load_with};

use super::options::name_classes;
use crate::settings::SettingsError;

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
    let names = Target::ALL.map(|(name, _)| name).join(", ");
    let found = Target::ALL.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, target)| target).ok_or_else(|| format!("it is one of {names}"))
}

impl Convert {
    pub(crate) fn run(self) -> Result<()> {
        if self.output.exists() && !self.force {
            let what = format!("{} exists; --force writes over it", self.output.display());
            return Err(SettingsError(what).into());
        }
        let options = LoadOptions { pixels: self.pixels, partial: false };
        let mut loaded = load_with(&self.input, &Device::cpu(1)?, options)?;
        name_classes(&mut loaded);
        loaded.notes.iter().for_each(|note| eprintln!("{note}"));
        for file in convert(&self.output, &loaded.network, &loaded.metadata, self.to)? {
            eprintln!("wrote {}", file.display());
        }
        Ok(())
    }
}
