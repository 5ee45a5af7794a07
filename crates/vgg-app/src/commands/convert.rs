//! `vgg convert`: weights between libraries and file formats.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vgg_error::printable;
use vgg_layers::Config;
use vgg_tensor::Device;
use vgg_weights::{Pixels, Target, convert, load_with};

use super::options::one_of;
use super::overwrite::Overwrite;
use crate::console::note;
use crate::exit::UsageError;

/// Configurations with published weights in torchvision and timm: vgg11, vgg13, vgg16 and vgg19.
const PUBLISHED: [Config; 4] = [Config::A, Config::B, Config::D, Config::E];

#[derive(Args)]
pub(crate) struct Convert {
    /// Weights file: native, torchvision or timm safetensors, .pth, .caffemodel, or .npz with
    /// Keras or TensorFlow names.
    input: PathBuf,
    /// Output file.
    output: PathBuf,
    /// Output format: native, torchvision, timm, caffe (also writes a .prototxt), onnx or onnx-dense. Default: by the
    /// extension of the output: native for .safetensors, caffe for .caffemodel, onnx for .onnx.
    #[arg(long, value_parser = target)]
    to: Option<Target>,
    /// Pixel preprocessing, if the file does not state it. torchvision: RGB in 0..1, minus mean, divided by standard
    /// deviation; caffe-bgr: BGR in 0..255, minus mean; caffe-rgb: the same in RGB order. Default: that of the library
    /// whose tensor names the file uses.
    #[arg(long)]
    pixels: Option<Pixels>,
    #[command(flatten)]
    overwrite: Overwrite,
}

fn target(name: &str) -> Result<Target, String> {
    one_of(&Target::ALL, name)
}

impl Convert {
    pub(crate) fn run(self) -> Result<()> {
        let to = self.target()?;
        let files = to.files(&self.output);
        if files.len() > 1 && files[0] == files[1] {
            let what = format!("{} is also the prototxt's name; choose another", printable(&files[0]));
            return Err(UsageError(what).into());
        }
        files.iter().try_for_each(|file| self.overwrite.check(file, &[&self.input]))?;
        let mut loaded = load_with(&self.input, &Device::cpu(1)?, self.pixels)?;
        vgg::name_classes(&mut loaded);
        loaded.notes.iter().for_each(|text| note(text));
        let spec = loaded.network.spec();
        if matches!(to, Target::Torchvision | Target::Timm) && !PUBLISHED.contains(&spec.config) {
            note(&format!("note: that library has no config {}; only the names follow it", spec.config));
        }
        for file in convert(&self.output, &loaded.network, &loaded.metadata, to)? {
            note(&format!("wrote {}", printable(&file)));
        }
        Ok(())
    }

    /// The output format, if `--to` and the extension of the output do not contradict each other.
    fn target(&self) -> Result<Target> {
        const NOT_WRITTEN: [&str; 6] = ["pth", "pt", "npz", "h5", "keras", "ckpt"];
        let extension = self.output.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let by_extension = Target::ALL.into_iter().find(|(_, target)| target.extension() == extension);
        let output = printable(&self.output);
        let what = match (self.to, by_extension) {
            (Some(to), _) if to.extension() == extension => return Ok(to),
            (Some(to), None) if !NOT_WRITTEN.contains(&extension.as_str()) => return Ok(to),
            (None, Some((_, to))) => return Ok(to),
            (Some(to), _) => {
                let name =
                    Target::ALL.into_iter().find(|(_, target)| *target == to).map_or("", |(name, _)| name);
                format!("--to {name} writes .{} files, but the output is {output}", to.extension())
            }
            (None, None) => format!(
                "the extension of {output} does not say the format: use .safetensors, .onnx or .caffemodel, or pass --to"
            ),
        };
        Err(UsageError(what).into())
    }
}
