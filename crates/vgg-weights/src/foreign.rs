//! Networks from files of other libraries: configuration and classes from shapes, then every layer in our layout. What is
//! changed on the way is said.

use std::path::Path;

use vgg_layers::{NamedArray, NetworkSpec, PoolRounding};

use crate::naming::{LayerSource, Library, Recognised, config_of};
use crate::source::{Entry, Source, corrupt};
use crate::{ChannelOrder, Error, Pixels, Result, WeightsMetadata};

/// Added to variances by batch normalisation in torch.
const EPSILON: f64 = 1e-5;

/// What is to be read from a file, and how.
pub(crate) struct Plan {
    pub(crate) metadata: WeightsMetadata,
    pub(crate) library: Library,
    layers: Vec<LayerSource>,
    bgr: bool,
    /// Layers that the file does not have.
    pub(crate) missing: Vec<String>,
    /// What was found out, and what is changed.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// Finds out what a file holds. `native` is what its metadata say, if they are ours; `partial` allows layers to be
    /// missing.
    pub(crate) fn new(
        source: &Source,
        path: &Path,
        recognised: Recognised,
        (pixels, native, partial): (Option<Pixels>, Option<WeightsMetadata>, bool),
    ) -> Result<Plan> {
        let entries = source.entries();
        let Recognised { library, layers } = recognised;
        let shapes: Vec<(String, Vec<usize>)> = layers
            .iter()
            .filter_map(|l| Some((l.layer.clone(), shape_of(&entries, &l.weight, library)?)))
            .collect();
        let spec = match &native {
            Some(metadata) => metadata.spec.clone(),
            None => guess(&shapes, library).map_err(|reason| corrupt(path, reason))?,
        };
        let pixels = pixels.unwrap_or(Pixels::of(library));
        let metadata = native.clone().unwrap_or_else(|| metadata(spec, pixels));
        let mut plan =
            Plan { metadata, library, layers, bgr: pixels.is_bgr(), missing: Vec::new(), notes: Vec::new() };
        if native.is_some() {
            plan.bgr = false;
        }
        plan.compare(&entries, path, partial)?;
        plan.describe(source.format(), native.is_some());
        Ok(plan)
    }

    /// Lists everything that does not fit.
    fn compare(&mut self, entries: &[Entry], path: &Path, partial: bool) -> Result<()> {
        let mut differences = Vec::new();
        let mut used: Vec<&str> = Vec::new();
        let layers = self.metadata.spec.layers()?;
        for layer in layers.iter().filter(|layer| layer.weight_shape().is_some()) {
            let expected = layer.weight_shape().unwrap_or_default();
            let Some(of) = self.layers.iter().find(|of| of.layer == layer.name) else {
                self.missing.push(layer.name.clone());
                continue;
            };
            match shape_of(entries, &of.weight, self.library) {
                None => self.missing.push(layer.name.clone()),
                Some(shape) if shape != expected => {
                    differences.push(format!("{} has shape {shape:?} instead of {expected:?}", of.weight));
                }
                Some(_) => {}
            }
            let mut vectors = vec![of.bias.clone()];
            vectors.extend(of.norm.iter().flat_map(|norm| NORM.map(|part| format!("{norm}.{part}"))));
            for name in vectors {
                match entries.iter().find(|e| e.name == name) {
                    Some(entry) if flat(&entry.shape) != expected[..1] => {
                        let shape = &entry.shape;
                        differences
                            .push(format!("{name} has shape {shape:?} instead of {:?}", &expected[..1]));
                    }
                    None if !name.is_empty()
                        && !self.missing.contains(&layer.name)
                        && (of.norm.is_none() || name != of.bias) =>
                    {
                        differences.push(format!("{name} is missing"));
                    }
                    _ => {}
                }
            }
            used.extend([of.weight.as_str(), of.bias.as_str()]);
        }
        if !partial {
            differences.extend(self.missing.iter().map(|layer| format!("{layer} is missing")));
        }
        let norms: Vec<&String> = self.layers.iter().filter_map(|of| of.norm.as_ref()).collect();
        let of_norm = |name: &str| {
            norms.iter().any(|norm| name.strip_prefix(norm.as_str()).is_some_and(|r| r.starts_with('.')))
        };
        let extra = entries.iter().filter(|e| !used.contains(&e.name.as_str()) && !of_norm(&e.name));
        differences.extend(extra.map(|e| format!("{} is superfluous", e.name)));
        if differences.is_empty() {
            return Ok(());
        }
        let config = self.metadata.spec.config.name();
        Err(Error::Tensors { path: path.to_owned(), config, differences })
    }

    fn describe(&mut self, format: &str, native: bool) {
        if native && self.library == Library::Native {
            return;
        }
        let WeightsMetadata { spec, mean_rgb, pixel_scale, std_rgb, .. } = &self.metadata;
        let (library, config, classes) = (self.library.name(), spec.config, spec.classes);
        let mut notes =
            vec![format!("{format} file with {library}'s names: config {config}, {classes} classes")];
        if !native {
            notes.push(format!(
                "pixels, by {library}'s custom: 0..255 less {mean_rgb:?} (RGB), times {pixel_scale}, divided by {std_rgb:?}"
            ));
        }
        if self.bgr {
            notes.push("conv1_1: its channels were in the order B, G, R and are exchanged".into());
        }
        if self.library.channels_last() {
            notes.push("fc6: its inputs were in the order H, W, C and are permuted".into());
        }
        let norms = self.layers.iter().filter(|of| of.norm.is_some()).count();
        if norms > 0 {
            notes.push(format!("batch normalisation is folded into {norms} convolutions, for inference"));
        }
        if !self.missing.is_empty() {
            notes.push(format!("not in the file: {}", self.missing.join(", ")));
        }
        self.notes = notes;
    }

    /// Weight and bias of every layer that the file has, in our layout.
    pub(crate) fn read(
        &self,
        source: &mut Source,
        path: &Path,
        each: &mut dyn FnMut(NamedArray) -> Result<()>,
    ) -> Result<()> {
        let layers = self.metadata.spec.layers()?;
        for layer in layers.iter().filter(|layer| !self.missing.contains(&layer.name)) {
            let (Some(shape), Some(of)) =
                (layer.weight_shape(), self.layers.iter().find(|of| of.layer == layer.name))
            else {
                continue;
            };
            let mut weight = source.read(&of.weight)?;
            if self.library.channels_last() {
                weight = if shape.len() == 4 {
                    from_rsck(&weight, &shape)
                } else {
                    transposed(&weight, &shape, layer.input)
                };
            }
            if self.bgr && layer.name == "conv1_1" {
                weight = reversed_channels(&weight, &shape);
            }
            let entries = source.entries();
            let has = |name: &str| entries.iter().any(|e| e.name == name);
            let mut bias = if has(&of.bias) { source.read(&of.bias)? } else { vec![0.0; shape[0]] };
            if let Some(norm) = &of.norm {
                let parts = NORM.map(|part| source.read(&format!("{norm}.{part}")));
                let [gamma, beta, mean, variance] = parts;
                fold((&mut weight, &mut bias), [&gamma?, &beta?, &mean?, &variance?]);
            }
            for (part, shape, values) in [("weight", shape.clone(), weight), ("bias", vec![shape[0]], bias)] {
                let name = format!("{}.{part}", layer.name);
                if !values.iter().all(|v| v.is_finite()) {
                    return Err(Error::NotFinite { path: path.to_owned(), tensor: name });
                }
                each(NamedArray { name, shape, values })?;
            }
        }
        Ok(())
    }
}

/// Parts of a batch normalisation: factor, offset, and statistics.
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// `y = gamma (w x + b - mean) / sqrt(variance + epsilon) + beta` as one convolution.
fn fold((weight, bias): (&mut [f32], &mut [f32]), [gamma, beta, mean, variance]: [&[f32]; 4]) {
    let per_filter = weight.len() / bias.len().max(1);
    for (k, filter) in weight.chunks_exact_mut(per_filter.max(1)).enumerate() {
        let factor = f64::from(gamma[k]) / (f64::from(variance[k]) + EPSILON).sqrt();
        filter.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
        bias[k] = ((f64::from(bias[k]) - f64::from(mean[k])) * factor + f64::from(beta[k])) as f32;
    }
}

/// `[R, S, C, K]` to `[K, C, R, S]`, whose shape is given.
fn from_rsck(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let [k, c, r, s] = [shape[0], shape[1], shape[2], shape[3]];
    let mut out = Vec::with_capacity(values.len());
    for filter in 0..k {
        for channel in 0..c {
            out.extend((0..r * s).map(|place| values[(place * c + channel) * k + filter]));
        }
    }
    out
}

/// `[in, out]` with inputs in the order H, W, C to `[out, in]` with inputs in the order C, H, W.
fn transposed(values: &[f32], shape: &[usize], [h, w, c]: [usize; 3]) -> Vec<f32> {
    let outputs = shape[0];
    let mut out = Vec::with_capacity(values.len());
    for output in 0..outputs {
        for channel in 0..c {
            out.extend((0..h * w).map(|place| values[(place * c + channel) * outputs + output]));
        }
    }
    out
}

/// `[K, 3, R, S]` with the channels in the opposite order.
pub(crate) fn reversed_channels(weight: &[f32], shape: &[usize]) -> Vec<f32> {
    let plane = shape[2] * shape[3];
    weight
        .chunks_exact(3 * plane)
        .flat_map(|f| [&f[2 * plane..], &f[plane..2 * plane], &f[..plane]].concat())
        .collect()
}

/// Shape of a weight in our layout: `[K, C, R, S]` or `[out, in]`.
fn shape_of(entries: &[Entry], name: &str, library: Library) -> Option<Vec<usize>> {
    let shape = &entries.iter().find(|e| e.name == name)?.shape;
    let is_filter = shape.len() == 4 && !(shape[0] == 1 && shape[1] == 1);
    let fully_connected = layer_is_fully_connected(name);
    Some(match shape.as_slice() {
        [r, s, c, k] if library.channels_last() => vec![*k, *c, *r, *s],
        [inputs, outputs] if library.channels_last() => vec![*outputs, *inputs],
        // As a convolution of the whole map, which timm has, or as a blob of four axes, which old Caffe has.
        [k, rest @ ..] if is_filter && fully_connected => vec![*k, rest.iter().product()],
        [1, 1, k, inputs] => vec![*k, *inputs],
        other => other.to_vec(),
    })
}

fn layer_is_fully_connected(name: &str) -> bool {
    ["fc", "classifier"].iter().any(|part| name.contains(part))
}

/// A vector's shape without sides of 1.
fn flat(shape: &[usize]) -> Vec<usize> {
    vec![shape.iter().product()]
}

/// The network that has these weights.
fn guess(shapes: &[(String, Vec<usize>)], library: Library) -> std::result::Result<NetworkSpec, String> {
    let convolutions: Vec<&Vec<usize>> =
        shapes.iter().filter(|(_, s)| s.len() == 4).map(|(_, s)| s).collect();
    let kernels: Vec<usize> = convolutions.iter().map(|shape| shape[2]).collect();
    let config = config_of(&kernels).ok_or_else(|| {
        format!("its {} convolutions of {kernels:?} are those of no configuration", kernels.len())
    })?;
    let last = convolutions[convolutions.len() - 1][0];
    let of = |name: &str| shapes.iter().find(|(layer, _)| layer == name).map(|(_, shape)| shape.as_slice());
    let paper = NetworkSpec::paper(config);
    let crop = match of("fc6") {
        Some([_, inputs]) => 32 * ((*inputs / last.max(1)) as f64).sqrt().round() as usize,
        _ => paper.crop,
    };
    let outputs = |name: &str, or: usize| of(name).map_or(or, |shape| shape[0]);
    Ok(NetworkSpec {
        width: last as f64 / 512.0,
        classes: outputs("fc8", paper.classes),
        head: [outputs("fc6", paper.head[0]), outputs("fc7", paper.head[1])],
        crop,
        pool_rounding: if library == Library::Caffe { PoolRounding::Ceil } else { PoolRounding::Floor },
        ..paper
    })
}

fn metadata(spec: NetworkSpec, pixels: Pixels) -> WeightsMetadata {
    let (mean_rgb, pixel_scale, std_rgb, train_side) = pixels.convention();
    WeightsMetadata {
        classes: (0..spec.classes).map(|i| format!("class{i}")).collect(),
        spec,
        channel_order: ChannelOrder::Rgb,
        pixel_scale,
        mean_rgb,
        std_rgb,
        train_side,
        geometry: "paper".into(),
    }
}
