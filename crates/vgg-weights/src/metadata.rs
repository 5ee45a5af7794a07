//! Metadata of a weights file: the network, its classes and its preprocessing.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use vgg_error::shortened;
use vgg_layers::{NetworkSpec, unnamed_classes};

use crate::{Error, Result};

/// Number of characters of a value that messages show.
const SHOWN: usize = 100;
/// The rules for sizes and offsets of crops.
const GEOMETRIES: [&str; 3] = ["paper", "torchvision", "caffe"];

/// Channel order that the first convolution expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red first. All networks in memory use it.
    Rgb,
}

/// Everything but the weights that is needed to classify an image.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightsMetadata {
    /// Architecture of the network.
    pub spec: NetworkSpec,
    /// Names of the classes, in the order of the logits.
    pub classes: Vec<String>,
    /// Channel order of the input.
    pub channel_order: ChannelOrder,
    /// Factor for pixels of 0..255 after the mean is subtracted; 1 in the paper.
    pub pixel_scale: f32,
    /// Mean of the training pixels, 0..255.
    pub mean_rgb: [f32; 3],
    /// Divisor per channel, such as torchvision's standard deviation; 1 in the paper.
    pub std_rgb: [f32; 3],
    /// Training scale: one value, or the two ends of the range for scale jitter.
    pub train_scale: Vec<usize>,
    /// Rule for sizes and offsets of crops: `paper`, `torchvision` or `caffe`.
    pub geometry: String,
}

impl WeightsMetadata {
    /// Metadata for random weights: unnamed classes, no normalisation of pixels, and a training scale in the
    /// paper's proportion to the crop, 256 for a crop of 224.
    pub fn untrained(spec: NetworkSpec) -> WeightsMetadata {
        WeightsMetadata {
            classes: unnamed_classes(spec.classes),
            channel_order: ChannelOrder::Rgb,
            pixel_scale: 1.0,
            mean_rgb: [0.0; 3],
            std_rgb: [1.0; 3],
            train_scale: vec![(spec.crop * 256 + 112) / 224],
            geometry: "paper".into(),
            spec,
        }
    }

    /// Offset and scale per channel for pixels of 0..255: the input is `(pixel + offset) * scale`.
    pub fn offset_and_scale(&self) -> ([f32; 3], [f32; 3]) {
        (self.mean_rgb.map(|m| -m), self.std_rgb.map(|s| self.pixel_scale / s))
    }

    /// Checks the values for preprocessing; the error has the key and the reason.
    fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        let scale = self.pixel_scale;
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(("pixel_scale", format!("must be positive and finite, not {scale}")));
        }
        if !self.std_rgb.iter().all(|v| *v > 0.0 && v.is_finite()) {
            return Err(("std_rgb", format!("must be positive and finite, not {:?}", self.std_rgb)));
        }
        if !self.offset_and_scale().1.iter().all(|scale| scale.is_finite()) {
            return Err(("std_rgb", format!("is too small for pixel_scale {scale}: {:?}", self.std_rgb)));
        }
        if !self.mean_rgb.iter().all(|v| v.is_finite()) {
            return Err(("mean_rgb", format!("must be finite, not {:?}", self.mean_rgb)));
        }
        if self.train_scale.is_empty()
            || self.train_scale.len() > 2
            || self.train_scale.iter().any(|s| *s > 1 << 16)
        {
            return Err((
                "train_scale",
                format!("must be one or two scales of at most 65536, not {:?}", self.train_scale),
            ));
        }
        if !GEOMETRIES.contains(&self.geometry.as_str()) {
            let known = GEOMETRIES.join(", ");
            return Err((
                "geometry",
                format!("is the unknown rule {}; must be one of {known}", shortened(&self.geometry, SHOWN)),
            ));
        }
        Ok(())
    }

    /// The metadata as strings by key, each one a JSON value.
    pub(crate) fn to_strings(&self) -> serde_json::Result<BTreeMap<String, String>> {
        let s = &self.spec;
        Ok(BTreeMap::from([
            ("channel_order".into(), serde_json::to_string(&self.channel_order)?),
            ("classes".into(), serde_json::to_string(&self.classes)?),
            ("config".into(), serde_json::to_string(&s.config)?),
            ("crop".into(), serde_json::to_string(&s.crop)?),
            ("dropout".into(), serde_json::to_string(&s.dropout)?),
            ("geometry".into(), serde_json::to_string(&self.geometry)?),
            ("head".into(), serde_json::to_string(&s.head)?),
            ("lrn_style".into(), serde_json::to_string(&s.lrn_style)?),
            ("mean_rgb".into(), serde_json::to_string(&self.mean_rgb)?),
            ("pixel_scale".into(), serde_json::to_string(&self.pixel_scale)?),
            ("pool_rounding".into(), serde_json::to_string(&s.pool_rounding)?),
            ("std_rgb".into(), serde_json::to_string(&self.std_rgb)?),
            ("train_scale".into(), serde_json::to_string(&self.train_scale)?),
            ("width".into(), serde_json::to_string(&s.width)?),
        ]))
    }

    pub(crate) fn from_strings(strings: &BTreeMap<String, String>, path: &Path) -> Result<WeightsMetadata> {
        let entries = Entries { strings, path };
        let classes: Vec<String> = entries.get("classes")?;
        let spec = NetworkSpec {
            config: entries.get("config")?,
            width: entries.get("width")?,
            classes: classes.len(),
            head: entries.get("head")?,
            crop: entries.get("crop")?,
            dropout: entries.get("dropout")?,
            lrn_style: entries.get("lrn_style")?,
            pool_rounding: entries.get("pool_rounding")?,
        };
        let metadata = WeightsMetadata {
            spec,
            classes,
            channel_order: entries.get("channel_order")?,
            pixel_scale: entries.get("pixel_scale")?,
            mean_rgb: entries.get("mean_rgb")?,
            std_rgb: entries.get("std_rgb")?,
            train_scale: entries.get("train_scale")?,
            geometry: entries.get("geometry")?,
        };
        metadata.check().map_err(|(key, reason)| Error::Metadata { path: path.to_owned(), key, reason })?;
        Ok(metadata)
    }
}

struct Entries<'a> {
    strings: &'a BTreeMap<String, String>,
    path: &'a Path,
}

impl Entries<'_> {
    fn get<T: DeserializeOwned>(&self, key: &'static str) -> Result<T> {
        let error = |reason: String| Error::Metadata { path: self.path.to_owned(), key, reason };
        let value = self.strings.get(key).ok_or_else(|| error("is missing".into()))?;
        serde_json::from_str(value).map_err(|e| {
            let (problem, value) = (e.to_string(), shortened(value, SHOWN));
            error(format!("is invalid: {} in {value}", shortened(&problem, SHOWN)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vgg_layers::{Config, LrnStyle, PoolRounding};

    /// Metadata whose values all differ from each other and from the defaults.
    fn metadata() -> WeightsMetadata {
        WeightsMetadata {
            spec: NetworkSpec {
                config: Config::ALrn,
                width: 0.125,
                classes: 2,
                head: [16, 8],
                crop: 64,
                dropout: 0.25,
                lrn_style: LrnStyle::Caffe,
                pool_rounding: PoolRounding::Ceil,
            },
            classes: vec!["great grey owl".into(), "\"ß\"".into()],
            channel_order: ChannelOrder::Rgb,
            pixel_scale: 0.5,
            mean_rgb: [123.5, 116.25, 103.75],
            std_rgb: [1.5, 2.5, 4.0],
            train_scale: vec![256, 512],
            geometry: "paper".into(),
        }
    }

    const STRINGS: [(&str, &str); 14] = [
        ("channel_order", r#""rgb""#),
        ("classes", r#"["great grey owl","\"ß\""]"#),
        ("config", r#""A-LRN""#),
        ("crop", "64"),
        ("dropout", "0.25"),
        ("geometry", r#""paper""#),
        ("head", "[16,8]"),
        ("lrn_style", r#""caffe""#),
        ("mean_rgb", "[123.5,116.25,103.75]"),
        ("pixel_scale", "0.5"),
        ("pool_rounding", r#""ceil""#),
        ("std_rgb", "[1.5,2.5,4.0]"),
        ("train_scale", "[256,512]"),
        ("width", "0.125"),
    ];

    fn strings() -> BTreeMap<String, String> {
        STRINGS.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn read(strings: &BTreeMap<String, String>) -> Result<WeightsMetadata> {
        WeightsMetadata::from_strings(strings, Path::new("w.safetensors"))
    }

    /// Key and reason of the error if `key` has this value.
    fn refused(key: &str, value: &str) -> (&'static str, String) {
        let mut strings = strings();
        strings.insert(key.into(), value.into());
        match read(&strings) {
            Err(Error::Metadata { path, key, reason }) if path == Path::new("w.safetensors") => (key, reason),
            other => panic!("{key} = {value}: {other:?}"),
        }
    }

    #[test]
    fn every_field_round_trips_as_a_json_string() {
        assert_eq!(metadata().to_strings().unwrap(), strings());
        assert_eq!(read(&strings()).unwrap(), metadata());
    }

    #[test]
    fn custom_config_round_trips() {
        let mut metadata = metadata();
        let json = r#"[[12,{"filters":16,"kernel":1}],[24]]"#;
        metadata.spec.config = serde_json::from_str(json).unwrap();
        let strings = metadata.to_strings().unwrap();
        assert_eq!((strings["config"].as_str(), read(&strings).unwrap()), (json, metadata));
    }

    #[test]
    fn errors_name_the_missing_or_invalid_key() {
        for (key, _) in STRINGS {
            let mut without = strings();
            without.remove(key);
            let missing = read(&without).unwrap_err().to_string();
            assert_eq!(missing, format!("w.safetensors: metadata key {key} is missing"));
            // No field may be null or an object.
            for wrong in ["null", "{}", "", "[1,"] {
                let (named, reason) = refused(key, wrong);
                assert_eq!(named, key);
                assert!(reason.ends_with(&format!(" in {wrong}")), "{reason}");
            }
        }
        for (key, wrong) in [
            ("channel_order", r#""bgr""#),
            ("config", r#""F""#),
            ("head", "[16]"),
            ("head", "[16,8,4]"),
            ("crop", "-64"),
            ("lrn_style", r#""Caffe""#),
            ("mean_rgb", "[1.0,2.0]"),
            ("pool_rounding", r#""round""#),
            ("std_rgb", "[1.0,1.0,1.0,1.0]"),
        ] {
            assert_eq!(refused(key, wrong).0, key);
        }
    }

    #[test]
    fn invalid_normalisation_values_are_rejected() {
        for (key, value, reason) in [
            ("pixel_scale", "0.0", "must be positive and finite, not 0"),
            ("pixel_scale", "-1.0", "must be positive and finite, not -1"),
            ("std_rgb", "[1.0,0.0,1.0]", "must be positive and finite, not [1.0, 0.0, 1.0]"),
            ("std_rgb", "[1.0,1.0,-1.0]", "must be positive and finite, not [1.0, 1.0, -1.0]"),
            ("train_scale", "[]", "must be one or two scales of at most 65536, not []"),
            ("train_scale", "[1,2,3]", "must be one or two scales of at most 65536, not [1, 2, 3]"),
            ("train_scale", "[256,65537]", "must be one or two scales of at most 65536, not [256, 65537]"),
            (
                "geometry",
                r#""square""#,
                "is the unknown rule square; must be one of paper, torchvision, caffe",
            ),
        ] {
            assert_eq!(refused(key, value), (key, reason.to_owned()));
        }
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        for key in ["geometry", "head"] {
            let (_, reason) = refused(key, &long);
            assert!(reason.len() < 400 && reason.contains("more characters"), "{reason}");
        }
        for (key, value) in [
            ("pixel_scale", "1e-30"),
            ("std_rgb", "[1e-30,1.0,1.0]"),
            ("mean_rgb", "[-1.0,0.0,300.0]"),
            ("train_scale", "[65536]"),
            ("train_scale", "[65536,256]"),
        ] {
            let mut strings = strings();
            strings.insert(key.into(), value.into());
            assert!(read(&strings).is_ok(), "{key} = {value}");
        }
    }

    #[test]
    fn infinities_and_nan_are_rejected() {
        // JSON cannot express them, but code can construct such metadata.
        let check = |change: fn(&mut WeightsMetadata)| {
            let mut metadata = metadata();
            change(&mut metadata);
            metadata.check().map_err(|(key, _)| key)
        };
        assert_eq!(check(|_| ()), Ok(()));
        assert_eq!(check(|m| m.pixel_scale = f32::INFINITY), Err("pixel_scale"));
        assert_eq!(check(|m| m.pixel_scale = f32::NAN), Err("pixel_scale"));
        assert_eq!(check(|m| m.std_rgb[2] = f32::INFINITY), Err("std_rgb"));
        assert_eq!(check(|m| m.std_rgb[1] = f32::NAN), Err("std_rgb"));
        assert_eq!(check(|m| m.mean_rgb[1] = f32::NEG_INFINITY), Err("mean_rgb"));
    }

    #[test]
    fn offset_and_scale_subtract_the_mean_first() {
        // (pixel - mean) * pixel_scale / std = (pixel + offset) * scale.
        let (offset, scale) = metadata().offset_and_scale();
        assert_eq!(offset, [-123.5, -116.25, -103.75]);
        assert_eq!(scale, [0.5 / 1.5, 0.2, 0.125]);
    }
}
