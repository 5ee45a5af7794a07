//! Mapping of each library's tensor names to the paper's layers.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Entry;

/// The library whose tensor names a file uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// vgg itself.
    Native,
    /// torchvision.
    Torchvision,
    /// timm.
    Timm,
    /// Caffe.
    Caffe,
    /// Keras.
    Keras,
    /// Caffe's layer names with TensorFlow's axis order, as in the well-known `vgg16_weights.npz`.
    TensorFlow,
    /// No library: the layers of an ONNX file, in the order of its graph.
    Onnx,
}

/// Names of a layer's tensors.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerSource {
    /// The paper's name of the layer.
    pub(crate) layer: String,
    pub(crate) weight: String,
    /// The file may lack this tensor if batch normalisation follows.
    pub(crate) bias: String,
    /// Prefix of the tensors of the batch normalisation that follows, if any.
    pub(crate) norm: Option<String>,
}

/// The library and the layers of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recognised {
    pub(crate) library: Library,
    /// In network order.
    pub(crate) layers: Vec<LayerSource>,
}

impl Library {
    /// Name of the library.
    pub fn name(self) -> &'static str {
        match self {
            Library::Native => "vgg",
            Library::Torchvision => "torchvision",
            Library::Timm => "timm",
            Library::Caffe => "Caffe",
            Library::Keras => "Keras",
            Library::TensorFlow => "TensorFlow",
            Library::Onnx => "ONNX",
        }
    }

    /// Whether filters are `[R, S, C, K]`, matrices `[in, out]`, and fc6's inputs in the order H, W, C.
    pub(crate) fn channels_last(self) -> bool {
        matches!(self, Library::Keras | Library::TensorFlow)
    }
}

/// torchvision's names of fc6, fc7 and fc8.
pub(crate) const TORCHVISION_HEAD: [&str; 3] = ["classifier.0", "classifier.3", "classifier.6"];
/// torchvision's names in 2016, with dropout before fc6; conversions of the authors' weights still use them.
const OLD_TORCHVISION_HEAD: [&str; 3] = ["classifier.1", "classifier.4", "classifier.6"];
/// timm's names of fc6, fc7 and fc8.
pub(crate) const TIMM_HEAD: [&str; 3] = ["pre_logits.fc1", "pre_logits.fc2", "head.fc"];

/// Maps tensors to layers by their names; `None` if the names are not those of a VGG network.
pub(crate) fn recognise(entries: &[Entry]) -> Option<Recognised> {
    sequential(entries).or_else(|| by_layer(entries))
}

/// Maps the names of torchvision and timm: `features.N`, then `classifier.N`, or `pre_logits.fc1`,
/// `pre_logits.fc2` and `head.fc`.
fn sequential(entries: &[Entry]) -> Option<Recognised> {
    let names: BTreeSet<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    // Index in the `Sequential`, and whether batch normalisation follows.
    let mut convolutions = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.shape.len() == 4) {
        let number = entry.name.strip_prefix("features.").and_then(|n| n.strip_suffix(".weight"));
        if let Some(number) = number.and_then(|n| n.parse::<u32>().ok()) {
            let is_norm = names.contains(format!("features.{}.running_mean", number + 1).as_str());
            convolutions.insert(number, is_norm);
        }
    }
    let layers = convolutions.iter().zip(names_in_sequence(&convolutions)?);
    let mut layers: Vec<LayerSource> = layers
        .map(|((number, is_norm), layer)| LayerSource {
            layer,
            weight: format!("features.{number}.weight"),
            bias: format!("features.{number}.bias"),
            norm: is_norm.then(|| format!("features.{}", number + 1)),
        })
        .collect();
    let timm = names.iter().any(|name| name.starts_with("pre_logits."));
    let heads = match timm {
        true => TIMM_HEAD,
        false if names.contains("classifier.1.weight") => OLD_TORCHVISION_HEAD,
        false => TORCHVISION_HEAD,
    };
    layers.extend(["fc6", "fc7", "fc8"].into_iter().zip(heads).map(|(layer, of)| LayerSource {
        layer: layer.into(),
        weight: format!("{of}.weight"),
        bias: format!("{of}.bias"),
        norm: None,
    }));
    let library = if timm { Library::Timm } else { Library::Torchvision };
    Some(Recognised { library, layers })
}

/// Names of convolutions, such as `conv2_1`, from their indices in a `Sequential`: optional batch
/// normalisation and ReLU follow each convolution, and max pooling follows the last convolution of a stage.
fn names_in_sequence(convolutions: &BTreeMap<u32, bool>) -> Option<Vec<String>> {
    let (mut stage, mut place, mut next) = (1, 0, 0);
    let mut names = Vec::new();
    for (number, is_norm) in convolutions {
        match number.checked_sub(next)? {
            0 => place += 1,
            1 if place > 0 => (stage, place) = (stage + 1, 1),
            _ => return None,
        }
        names.push(format!("conv{stage}_{place}"));
        next = number + 2 + u32::from(*is_norm);
    }
    (!names.is_empty()).then_some(names)
}

/// Maps names that contain a layer's name, the paper's (`conv1_1`) or Keras's (`block1_conv1`).
fn by_layer(entries: &[Entry]) -> Option<Recognised> {
    let mut found: BTreeMap<String, [Option<&Entry>; 2]> = BTreeMap::new();
    let mut keras = false;
    for entry in entries {
        let Some((layer, of_keras)) = layer_of(&entry.name) else { continue };
        keras |= of_keras;
        found.entry(layer).or_default()[usize::from(is_bias(entry))].get_or_insert(entry);
    }
    let first = found.get("conv1_1").and_then(|[weight, _]| *weight)?;
    let channels_last = match first.shape.as_slice() {
        [_, 3, r, s] if r == s => false,
        [r, s, 3, _] if r == s => true,
        _ => return None,
    };
    let caffe = first.name.ends_with(".0");
    let library = match (keras, channels_last, caffe) {
        (true, true, _) => Library::Keras,
        (false, true, _) => Library::TensorFlow,
        (false, false, true) => Library::Caffe,
        (false, false, false) => Library::Native,
        (true, false, _) => return None,
    };
    let layers = found.into_iter().map(|(layer, [weight, bias])| LayerSource {
        weight: weight.map(|e| e.name.clone()).unwrap_or_default(),
        bias: bias.map_or_else(|| format!("{layer}.bias"), |e| e.name.clone()),
        layer,
        norm: None,
    });
    let mut layers: Vec<LayerSource> = layers.collect();
    layers.sort_by_key(|source| position(&source.layer));
    Some(Recognised { library, layers })
}

/// Sort key for network order: convolutions by stage and position, then fc6, fc7 and fc8.
fn position(layer: &str) -> (bool, Vec<u32>) {
    let numbers = layer.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    (layer.starts_with("fc"), numbers.collect())
}

/// Whether a tensor is a bias, by its name or, if that is ambiguous, by its shape.
fn is_bias(entry: &Entry) -> bool {
    let words: Vec<&str> = entry.name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let says = |names: [&str; 3]| words.iter().any(|word| names.contains(word));
    if says(["bias", "b", "biases"]) || entry.name.ends_with(".1") {
        return true;
    }
    if says(["weight", "kernel", "W"]) || entry.name.ends_with(".0") {
        return false;
    }
    entry.shape.iter().filter(|side| **side > 1).count() <= 1
}

/// The layer that a tensor's name contains, and whether it is Keras's name.
fn layer_of(name: &str) -> Option<(String, bool)> {
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let number = |word: &str, prefix: &str| word.strip_prefix(prefix).and_then(|n| n.parse::<u32>().ok());
    for pair in words.windows(2) {
        if let (Some(block), Some(place)) = (number(pair[0], "block"), number(pair[1], "conv")) {
            return Some((format!("conv{block}_{place}"), true));
        }
        if let (Some(block), Some(place)) = (number(pair[0], "conv"), number(pair[1], "")) {
            return Some((format!("conv{block}_{place}"), false));
        }
    }
    words.iter().find_map(|word| match *word {
        "fc6" | "fc7" | "fc8" => Some(((*word).to_owned(), false)),
        "fc1" => Some(("fc6".into(), true)),
        "fc2" => Some(("fc7".into(), true)),
        "predictions" => Some(("fc8".into(), true)),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
