//! `vgg convert`: weights between libraries and file formats.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vgg_layers::Config;
use vgg_tensor::Device;
use vgg_weights::{Pixels, Target, convert, load_with};

use super::options::one_of;
use crate::console::note;
use crate::exit::UsageError;
use vgg_error::printable;

/// Configurations with published weights in torchvision and timm: vgg11, vgg13, vgg16 and vgg19.
const PUBLISHED: [Config; 4] = [Config::A, Config::B, Config::D, Config::E];

#[derive(Args)]
pub(crate) struct Convert {
    /// Weights file: native, torchvision or timm safetensors, .pth, .caffemodel, or .npz with
    /// Keras or TensorFlow names.
    input: PathBuf,
    /// Output file.
    output: PathBuf,
    /// Output format: native, torchvision, timm, caffe (also writes a .prototxt), onnx or onnx-dense.
    #[arg(long, default_value = "native", value_parser = target)]
    to: Target,
    /// Pixel preprocessing, if the file does not state it. torchvision: RGB in 0..1, minus mean, divided by standard
    /// deviation; caffe-bgr: BGR in 0..255, minus mean; caffe-rgb: the same in RGB order. Default: that of the library
    /// whose tensor names the file uses.
    #[arg(long)]
    pixels: Option<Pixels>,
    /// Overwrite existing files.
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
            let what = format!("{} is also the prototxt's name; choose another", printable(&files[0]));
            return Err(UsageError(what).into());
        }
        if let Some(file) = files.iter().find(|file| file.exists() && !self.force) {
            let what = format!("{} already exists; pass --force to overwrite it", printable(&file));
            return Err(UsageError(what).into());
        }
        let mut loaded = load_with(&self.input, &Device::cpu(1)?, self.pixels)?;
        vgg::name_classes(&mut loaded);
        loaded.notes.iter().for_each(|text| note(text));
        let spec = loaded.network.spec();
        if matches!(self.to, Target::Torchvision | Target::Timm) && !PUBLISHED.contains(&spec.config) {
            note(&format!("note: that library has no config {}; only the names follow it", spec.config));
        }
        for file in convert(&self.output, &loaded.network, &loaded.metadata, self.to)? {
            note(&format!("wrote {}", printable(&file)));
        }
        Ok(())
    }
}
