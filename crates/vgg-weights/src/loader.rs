//! The plan for loading a file: its configuration, inferred from shapes if there are no metadata, and the
//! conversion of its layers to the native layout.

use std::path::Path;

use vgg_layers::{Config, Conv, LayerSpec, NamedTensor, NetworkSpec, PoolRounding, Stages, unnamed_classes};

use crate::axes::{NORM, flat, fold, from_rsck, reversed_channels, shape_of, transposed};
use crate::naming::{LayerSource, Library, Recognised};
use crate::source::{Entry, Source, corrupt, is_counter};
use crate::{ChannelOrder, Error, Pixels, Result, WeightsMetadata};

/// Which layers to load from a file, and how to convert them.
pub(crate) struct LoadPlan {
    pub(crate) metadata: WeightsMetadata,
    pub(crate) library: Library,
    entries: Vec<Entry>,
    layers: Vec<LayerSource>,
    bgr: bool,
    /// Layers that the file lacks.
    pub(crate) missing: Vec<String>,
    /// Messages for the user: what was detected and what is converted.
    pub(crate) notes: Vec<String>,
}

impl LoadPlan {
    /// Plans the loading of a file and compares its shapes with the network's. `override_pixels` is an explicit pixel
    /// convention, `native` the vgg metadata of the file, if any; `partial` allows missing layers.
    pub(crate) fn new(
        source: &Source,
        path: &Path,
        recognised: Recognised,
        override_pixels: Option<Pixels>,
        native: Option<WeightsMetadata>,
        partial: bool,
    ) -> Result<LoadPlan> {
        let entries = source.entries();
        let Recognised { library, layers } = recognised;
        let shape = |l: &LayerSource| Some((l.layer.clone(), shape_of(&entries, &l.weight, library)?));
        let shapes: Vec<(String, Vec<usize>)> = layers.iter().filter_map(shape).collect();
        let ours = native.is_some();
        let pixels = override_pixels.unwrap_or(Pixels::of(library));
        let metadata = match native {
            Some(metadata) => metadata,
            None => metadata(guess(&shapes, library).map_err(|reason| corrupt(path, reason))?, pixels),
        };
        // `convert` writes Caffe files with conv1_1 in BGR order.
        let bgr = if ours { library == Library::Caffe } else { pixels.is_bgr() };
        let (missing, notes) = (Vec::new(), source.notes.clone());
        let mut plan = LoadPlan { metadata, library, entries, layers, bgr, missing, notes };
        plan.compare(path, partial, &source.ignored)?;
        plan.describe(source.format(), ours, override_pixels.is_some());
        Ok(plan)
    }

    /// Compares names and shapes with the network's; the error lists all differences.
    /// `ignored` are the names of the tensors of the file that do not belong to the network.
    fn compare(&mut self, path: &Path, partial: bool, ignored: &[String]) -> Result<()> {
        let (mut differences, mut used) = (Vec::new(), Vec::new());
        let layers = self.metadata.spec.layers()?;
        for (layer, expected) in layers.iter().filter_map(|layer| Some((layer, layer.weight_shape()?))) {
            let of = self.layers.iter().find(|of| of.layer == layer.name);
            let shape = of.and_then(|of| shape_of(&self.entries, &of.weight, self.library));
            let (Some(of), Some(shape)) = (of, shape) else {
                self.missing.push(layer.name.clone());
                // The layer counts as missing; do not also report its other tensors as unexpected.
                let rest = self
                    .entries
                    .iter()
                    .filter(|e| e.name.rsplit_once('.').is_some_and(|(l, _)| l == layer.name));
                used.extend(rest.map(|e| e.name.clone()));
                continue;
            };
            if shape != expected {
                differences.push(format!("{} has shape {shape:?} instead of {expected:?}", of.weight));
            }
            for (name, optional) in of.vectors() {
                match self.entry(&name) {
                    Some(entry) if flat(&entry.shape) != expected[..1] => differences.push(format!(
                        "{name} has shape {:?} instead of {:?}",
                        entry.shape,
                        &expected[..1]
                    )),
                    None if !optional => differences.push(format!("{name} is missing")),
                    _ => {}
                }
                used.push(name);
            }
            used.push(of.weight.clone());
        }
        let missing = self.missing.iter().map(|layer| format!("{layer} is missing"));
        let missing: Vec<String> = missing.collect();
        let extra = self.entries.iter().filter(|e| !used.contains(&e.name) && !is_counter(&e.name));
        differences.extend(extra.map(|e| format!("{} is unexpected", e.name)));
        if differences.is_empty() && (partial || missing.is_empty()) {
            return Ok(());
        }
        // Include missing layers even if `partial` allows them, so that the error is complete.
        differences.splice(0..0, missing);
        differences.extend(ignored.iter().map(|name| format!("{name} is outside the network")));
        let config = self.metadata.spec.config.name();
        Err(Error::Tensors { path: path.to_owned(), config, differences })
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    fn describe(&mut self, format: &str, ours: bool, override_pixels: bool) {
        if ours && self.library == Library::Native {
            return;
        }
        let WeightsMetadata { spec, mean_rgb, pixel_scale, std_rgb, .. } = &self.metadata;
        let (library, config, classes) = (self.library.name(), &spec.config, spec.classes);
        let layers = match self.library {
            Library::Onnx => "layers in the order of the graph".to_owned(),
            _ => format!("{library} tensor names"),
        };
        let mut notes = std::mem::take(&mut self.notes);
        notes.push(format!("{format} file with {layers}: config {config}, {classes} classes"));
        let whose = if override_pixels { "as specified".to_owned() } else { format!("{library} convention") };
        if !ours {
            notes.push(format!(
                "preprocessing ({whose}): (RGB 0..255 - {mean_rgb:?}) * {pixel_scale} / {std_rgb:?}"
            ));
        }
        if self.bgr {
            notes.push("conv1_1: input channels converted from BGR to RGB".into());
        }
        if self.library.channels_last() {
            notes.push("fc6: inputs permuted from H, W, C to C, H, W".into());
        }
        let norms = self.layers.iter().filter(|of| of.norm.is_some()).count();
        if norms > 0 {
            notes.push(format!("batch normalisation folded into {norms} convolutions, for inference"));
        }
        if !self.missing.is_empty() {
            notes.push(format!("layers not in the file: {}", self.missing.join(", ")));
        }
        self.notes = notes;
    }

    /// Passes the weights and biases of the `wanted` layers in the file to `each`, in the native layout.
    pub(crate) fn read(
        &self,
        source: &mut Source,
        path: &Path,
        wanted: &dyn Fn(&str) -> bool,
        each: &mut dyn FnMut(NamedTensor) -> Result<()>,
    ) -> Result<()> {
        let layers = self.metadata.spec.layers()?;
        for layer in layers.iter().filter(|layer| wanted(&layer.name) && !self.missing.contains(&layer.name))
        {
            let Some(shape) = layer.weight_shape() else { continue };
            let (weight, bias) = self.layer(source, path, layer, &shape)?;
            for (part, shape, values) in [("weight", shape.clone(), weight), ("bias", vec![shape[0]], bias)] {
                let name = format!("{}.{part}", layer.name);
                if !values.iter().all(|v| v.is_finite()) {
                    return Err(Error::NotFinite { path: path.to_owned(), tensor: name });
                }
                each(NamedTensor { name, shape, values })?;
            }
        }
        Ok(())
    }

    fn layer(
        &self,
        source: &mut Source,
        path: &Path,
        layer: &LayerSpec,
        shape: &[usize],
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let mut get = |name: &str| match self.entry(name) {
            Some(entry) => source.read(path, entry),
            None => Err(corrupt(path, format!("no tensor named {name}"))),
        };
        let Some(of) = self.layers.iter().find(|of| of.layer == layer.name) else {
            return Err(corrupt(path, format!("no layer named {}", layer.name)));
        };
        let mut weight = get(&of.weight)?;
        if self.library.channels_last() {
            weight = match shape.len() {
                4 => from_rsck(&weight, shape),
                _ => transposed(&weight, shape, layer.input),
            };
        }
        if self.bgr && layer.name == "conv1_1" {
            weight = reversed_channels(&weight, shape);
        }
        let mut bias = if self.entry(&of.bias).is_some() { get(&of.bias)? } else { vec![0.0; shape[0]] };
        if let Some(norm) = &of.norm {
            let [gamma, beta, mean, variance] = NORM.map(|part| get(&format!("{norm}.{part}")));
            fold(&mut weight, &mut bias, [&gamma?, &beta?, &mean?, &variance?]);
        }
        Ok((weight, bias))
    }
}

impl LayerSource {
    /// Names of the tensors with one value per filter, and whether each is optional.
    fn vectors(&self) -> Vec<(String, bool)> {
        let norm = self.norm.iter().flat_map(|norm| NORM.map(|part| (format!("{norm}.{part}"), false)));
        std::iter::once((self.bias.clone(), self.norm.is_some())).chain(norm).collect()
    }
}

/// Infers the network from its weights' shapes: a column of Table 1 if one matches, otherwise a custom one.
fn guess(shapes: &[(String, Vec<usize>)], library: Library) -> std::result::Result<NetworkSpec, String> {
    let stages = stages(shapes)?;
    let last = stages.iter().flat_map(|convs| convs.last()).last().map_or(1, |conv| conv.filters);
    let width = last as f64 / 512.0;
    let is_column = |config: &Config| {
        let column = NetworkSpec { width, ..NetworkSpec::paper(config.clone()) };
        column.stages().is_ok_and(|column| column == stages)
    };
    let (config, width) = match Config::all().find(is_column) {
        Some(config) => (config, width),
        None => (Config::Custom(stages), 1.0),
    };
    let of = |name: &str| shapes.iter().find(|(layer, _)| layer == name).map(|(_, shape)| shape.as_slice());
    let paper = NetworkSpec::paper(config);
    let crop = match of("fc6") {
        Some([_, inputs]) => paper.stride() * ((*inputs / last) as f64).sqrt().round() as usize,
        _ => paper.crop,
    };
    let outputs = |name: &str, or: usize| of(name).map_or(or, |shape| shape[0]);
    Ok(NetworkSpec {
        width,
        classes: outputs("fc8", paper.classes),
        head: [outputs("fc6", paper.head[0]), outputs("fc7", paper.head[1])],
        crop,
        pool_rounding: if library == Library::Caffe { PoolRounding::Ceil } else { PoolRounding::Floor },
        ..paper
    })
}

/// Groups convolutions into stages by their names, which must be numbered without gaps.
fn stages(shapes: &[(String, Vec<usize>)]) -> std::result::Result<Stages, String> {
    let mut stages: Vec<Vec<Conv>> = Vec::new();
    for (name, shape) in shapes {
        let [filters, _, kernel, _] = *shape.as_slice() else { continue };
        let (stage, place) = (stages.len(), stages.last().map_or(0, Vec::len));
        if *name == format!("conv{}_1", stage + 1) {
            stages.push(Vec::new());
        } else if *name != format!("conv{stage}_{}", place + 1) {
            return Err(format!("it has {name}, but lacks the convolution before it"));
        }
        stages.last_mut().into_iter().for_each(|convs| convs.push(Conv { filters, kernel }));
    }
    Stages::new(stages).map_err(|e| e.to_string())
}

fn metadata(spec: NetworkSpec, pixels: Pixels) -> WeightsMetadata {
    let (mean_rgb, pixel_scale, std_rgb, train_scale) = pixels.convention();
    WeightsMetadata {
        classes: unnamed_classes(spec.classes),
        spec,
        channel_order: ChannelOrder::Rgb,
        pixel_scale,
        mean_rgb,
        std_rgb,
        train_scale,
        geometry: pixels.geometry().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vgg_layers::Config;

    type Shapes = Vec<(String, Vec<usize>)>;

    /// Names and shapes of C's convolutions, with the number of filters divided by `share`, and of `head`.
    fn shapes(share: usize, head: &[(&str, [usize; 2])]) -> Shapes {
        let convolutions = [
            ("conv1_1", 64, 3),
            ("conv1_2", 64, 3),
            ("conv2_1", 128, 3),
            ("conv2_2", 128, 3),
            ("conv3_1", 256, 3),
            ("conv3_2", 256, 3),
            ("conv3_3", 256, 1),
            ("conv4_1", 512, 3),
            ("conv4_2", 512, 3),
            ("conv4_3", 512, 1),
            ("conv5_1", 512, 3),
            ("conv5_2", 512, 3),
            ("conv5_3", 512, 1),
        ];
        let shape = |(name, filters, kernel): (&str, usize, usize)| {
            (name.to_owned(), vec![filters / share, 8, kernel, kernel])
        };
        let head = head.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec()));
        convolutions.into_iter().map(shape).chain(head).collect()
    }

    #[test]
    fn network_spec_is_inferred_from_shapes() {
        let paper = NetworkSpec::paper(Config::C);
        let head = [("fc6", [100, 64 * 9]), ("fc7", [50, 100]), ("fc8", [20, 50])];
        let spec = guess(&shapes(8, &head), Library::Torchvision).unwrap();
        // 576 inputs with 64 channels are a 3x3 map, at a stride of 32 pixels.
        let expected = NetworkSpec { width: 0.125, classes: 20, head: [100, 50], crop: 96, ..paper.clone() };
        assert_eq!(spec, expected);
        // Caffe's pooling rounds up; everything else is the same.
        let spec = guess(&shapes(8, &head), Library::Caffe).unwrap();
        assert_eq!(spec, NetworkSpec { pool_rounding: PoolRounding::Ceil, ..expected });
        // Missing layers get the paper's sizes: 1000 classes, 4096 units in fc6 and fc7, a crop of 224.
        assert_eq!(guess(&shapes(1, &[]), Library::Keras), Ok(paper.clone()));
        let spec = guess(&shapes(1, &[("fc8", [7, 4096])]), Library::Timm).unwrap();
        assert_eq!(spec, NetworkSpec { classes: 7, ..paper.clone() });
        let spec = guess(&shapes(1, &[("fc6", [30, 512 * 49])]), Library::Timm).unwrap();
        assert_eq!(spec, NetworkSpec { head: [30, 4096], ..paper });
    }

    #[test]
    fn shapes_outside_table_1_give_a_custom_config() {
        let guessed = |change: &dyn Fn(&mut Shapes)| {
            let mut shapes = shapes(1, &[("fc6", [10, 24 * 9])]);
            change(&mut shapes);
            guess(&shapes, Library::Torchvision)
        };
        // Stages of 64 and 128 filters, and one of 5x5 filters; fc6's input is a 3x3 map at stride 8.
        let spec = guessed(&|shapes| {
            shapes.drain(5..13);
            shapes[4].1 = vec![24, 8, 5, 5];
        });
        let stages = vec![
            vec![Conv::new(64), Conv::new(64)],
            vec![Conv::new(128), Conv::new(128)],
            vec![Conv { filters: 24, kernel: 5 }],
        ];
        let spec = spec.unwrap();
        assert_eq!(spec.config, Config::Custom(Stages::new(stages).unwrap()));
        assert_eq!((spec.width, spec.crop, spec.head), (1.0, 24, [10, 4096]));
        // C's kernels with another number of filters in conv2_2.
        let spec = guessed(&|shapes| shapes[3].1[0] = 120).unwrap();
        assert_eq!(
            (spec.config.name(), spec.config.stages().iter().nth(1).unwrap()[1].filters),
            ("custom", 120)
        );
        for (place, words) in [(0, "it has conv1_2,"), (5, "it has conv3_3,"), (7, "it has conv4_2,")] {
            let refused = guessed(&|shapes| drop(shapes.remove(place))).unwrap_err();
            assert!(
                refused.starts_with(words) && refused.ends_with("lacks the convolution before it"),
                "{refused}"
            );
        }
        let refused = guessed(&|shapes| shapes[1].1 = vec![64, 64, 2, 2]).unwrap_err();
        assert!(refused.contains("conv1_2 has kernel 2"), "{refused}");
    }

    #[test]
    fn metadata_follows_the_pixel_convention() {
        let spec = NetworkSpec { classes: 3, ..NetworkSpec::paper(Config::A) };
        let expected = WeightsMetadata {
            spec: spec.clone(),
            classes: ["unnamed0", "unnamed1", "unnamed2"].map(str::to_owned).to_vec(),
            channel_order: ChannelOrder::Rgb,
            pixel_scale: 1.0,
            mean_rgb: [123.68, 116.779, 103.939],
            std_rgb: [1.0; 3],
            train_scale: vec![256, 512],
            geometry: "caffe".into(),
        };
        assert_eq!(metadata(spec.clone(), Pixels::CaffeBgr), expected);
        let torchvision = metadata(spec, Pixels::Torchvision);
        assert_eq!(torchvision.std_rgb, [0.229, 0.224, 0.225]);
        assert_eq!(torchvision.geometry, "torchvision");
        assert_eq!((torchvision.pixel_scale, torchvision.train_scale), (1.0 / 255.0, vec![256]));
    }

    #[test]
    fn bias_is_optional_before_batch_normalisation() {
        let layer = |norm: Option<&str>| LayerSource {
            layer: "conv1_1".into(),
            weight: "features.0.weight".into(),
            bias: "features.0.bias".into(),
            norm: norm.map(str::to_owned),
        };
        assert_eq!(layer(None).vectors(), [("features.0.bias".to_owned(), false)]);
        let expected = [
            ("features.0.bias", true),
            ("features.1.weight", false),
            ("features.1.bias", false),
            ("features.1.running_mean", false),
            ("features.1.running_var", false),
        ];
        let expected = expected.map(|(name, optional)| (name.to_owned(), optional));
        assert_eq!(layer(Some("features.1")).vectors(), expected);
    }
}
