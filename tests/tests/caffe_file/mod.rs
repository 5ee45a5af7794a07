//! Caffe's two files of a network, decoded and computed with plain f64 loops by Caffe's rules.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, Array4};
use prost::Message as _;
use vgg_layers::Network;
use vgg_testkit::{conv2d, linear, lrn, max_pool2d};
use vgg_weights::{Target, WeightsMetadata, convert};

#[derive(Clone, PartialEq, prost::Message)]
pub struct NetParameter {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(message, repeated, tag = "100")]
    pub layer: Vec<LayerParameter>,
    /// Our extension: metadata.
    #[prost(string, optional, tag = "21000")]
    pub metadata: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LayerParameter {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(string, optional, tag = "2")]
    r#type: Option<String>,
    #[prost(message, repeated, tag = "7")]
    pub blobs: Vec<BlobProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BlobProto {
    #[prost(float, repeated, tag = "5")]
    pub data: Vec<f32>,
    #[prost(message, optional, tag = "7")]
    pub shape: Option<BlobShape>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BlobShape {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dim: Vec<i64>,
}

impl BlobProto {
    pub fn dims(&self) -> Vec<usize> {
        self.shape.as_ref().unwrap().dim.iter().map(|side| usize::try_from(*side).unwrap()).collect()
    }
}

/// Fields of a message in protobuf's text format, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields(pub Vec<(String, Field)>);

#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Scalar(String),
    Message(Fields),
}

impl Fields {
    pub fn parse(text: &str) -> Fields {
        let lines = text.lines().map(|line| line.split('#').next().unwrap());
        let spaced = lines.collect::<Vec<_>>().join(" ").replace(':', " : ");
        let mut tokens = spaced.split_whitespace();
        let fields = Fields::until(&mut tokens, None);
        assert_eq!(tokens.next(), None);
        fields
    }

    pub fn until<'a>(tokens: &mut impl Iterator<Item = &'a str>, end: Option<&str>) -> Fields {
        let mut fields = Vec::new();
        loop {
            let name = tokens.next();
            if name == end {
                return Fields(fields);
            }
            let field = match tokens.next() {
                Some(":") => Field::Scalar(tokens.next().unwrap().to_owned()),
                Some("{") => Field::Message(Fields::until(tokens, Some("}"))),
                other => panic!("{name:?} is followed by {other:?}"),
            };
            fields.push((name.unwrap().to_owned(), field));
        }
    }

    /// Removes the field with this name, if there is one; asserts that it is unique.
    pub fn take(&mut self, name: &str) -> Option<Field> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        let (_, field) = self.0.remove(at);
        assert!(self.0.iter().all(|(key, _)| key != name), "{name} is not unique");
        Some(field)
    }

    pub fn scalar(&mut self, name: &str) -> Option<String> {
        self.take(name).map(|field| match field {
            Field::Scalar(value) => value,
            Field::Message(_) => panic!("{name} is a message"),
        })
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        let quoted = self.scalar(name)?;
        Some(quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap().to_owned())
    }

    pub fn number<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        let text = self.scalar(name)?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}")))
    }

    pub fn message(&mut self, name: &str) -> Fields {
        match self.take(name) {
            Some(Field::Message(fields)) => fields,
            other => panic!("{name} is {other:?}"),
        }
    }

    /// Asserts that all fields have been read, and hence checked.
    pub fn finish(self) {
        assert!(self.0.is_empty(), "unknown fields {:?}", self.0);
    }
}

/// A network as deployed in Caffe.
pub struct Deployed {
    pub weights: NetParameter,
    /// The prototxt, and its comment.
    pub text: Fields,
    pub comment: String,
}

impl Deployed {
    pub fn of(network: &Network, metadata: &WeightsMetadata) -> Deployed {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.caffemodel");
        let prototxt = dir.path().join("model.prototxt");
        let files = convert(&path, network, metadata, Target::Caffe).unwrap();
        assert_eq!(files, [path.as_path(), prototxt.as_path()]);
        let bytes = std::fs::read(&path).unwrap();
        let weights = NetParameter::decode(bytes.as_slice()).unwrap();
        assert_eq!(weights.encoded_len(), bytes.len(), "the file has unknown fields");
        let text = std::fs::read_to_string(&prototxt).unwrap();
        Deployed { weights, comment: text.lines().next().unwrap().to_owned(), text: Fields::parse(&text) }
    }

    /// The layers of the prototxt; the network has no other field but its name.
    pub fn layers(&self) -> Vec<Fields> {
        let mut text = self.text.clone();
        assert_eq!(text.text("name").as_deref(), Some("VGG"));
        let layer = |(name, field)| match (name, field) {
            (name, Field::Message(fields)) if name == "layer" => fields,
            other => panic!("{other:?}"),
        };
        text.0.into_iter().map(layer).collect()
    }

    /// Weight and bias of a layer, by name.
    pub fn blobs(&self, name: &str) -> [&BlobProto; 2] {
        let layer = self.weights.layer.iter().find(|layer| layer.name() == name).unwrap();
        layer.blobs.iter().collect::<Vec<_>>().try_into().unwrap()
    }

    /// All blobs for maps `data [N, H, W, C]` in BGR order; unless `whole`, only those before the first inner
    /// product.
    pub fn compute(&self, data: Array4<f64>, whole: bool) -> BTreeMap<String, Array4<f64>> {
        let mut blobs = BTreeMap::from([("data".to_owned(), data)]);
        for mut layer in self.layers().into_iter().skip(1) {
            let kind = layer.text("type").unwrap();
            if kind == "InnerProduct" && !whole {
                break;
            }
            let name = layer.text("name").unwrap();
            let x = &blobs[&layer.text("bottom").unwrap()];
            let y = match kind.as_str() {
                "Convolution" => self.convolution(&name, x, layer.message("convolution_param")),
                "ReLU" => x.mapv(|v| if v < 0.0 { 0.0 } else { v }),
                "LRN" => normalise(x, layer.message("lrn_param")),
                "Pooling" => pool(x, layer.message("pooling_param")),
                "InnerProduct" => self.inner_product(&name, x, layer.message("inner_product_param")),
                "Dropout" => {
                    // No effect at test time.
                    let mut own = layer.message("dropout_param");
                    assert_eq!(own.number("dropout_ratio"), Some(0.375));
                    own.finish();
                    x.clone()
                }
                "Softmax" => softmax(x),
                other => panic!("{name}: {other}"),
            };
            blobs.insert(layer.text("top").unwrap(), y);
            layer.finish();
        }
        blobs
    }

    pub fn convolution(&self, name: &str, x: &Array4<f64>, mut own: Fields) -> Array4<f64> {
        let [weight, bias] = self.blobs(name);
        let outputs = own.number("num_output").unwrap();
        let side = own.number("kernel_size").unwrap();
        let pad = own.number("pad").unwrap_or(0);
        assert_eq!(own.number("stride").unwrap_or(1), 1);
        own.finish();
        let channels = x.dim().3;
        assert_eq!(
            (weight.dims(), bias.dims()),
            (vec![outputs, channels, side, side], vec![outputs]),
            "{name}"
        );
        let filters = Array4::from_shape_fn((outputs, side, side, channels), |(k, r, s, c)| {
            f64::from(weight.data[((k * channels + c) * side + r) * side + s])
        });
        conv2d(x, &filters, &bias.data.iter().map(|v| f64::from(*v)).collect(), pad)
    }

    /// Caffe's maps are `[N, C, H, W]`, so the inputs are in that order.
    pub fn inner_product(&self, name: &str, x: &Array4<f64>, mut own: Fields) -> Array4<f64> {
        let [weight, bias] = self.blobs(name);
        let outputs = own.number("num_output").unwrap();
        own.finish();
        let (n, h, w, c) = x.dim();
        assert_eq!((weight.dims(), bias.dims()), (vec![outputs, c * h * w], vec![outputs]), "{name}");
        let inputs = Array2::from_shape_fn((n, c * h * w), |(i, j)| x[[i, j / w % h, j % w, j / (h * w)]]);
        let matrix = weight.data.iter().map(|v| f64::from(*v)).collect();
        let matrix = Array2::from_shape_vec((outputs, c * h * w), matrix).unwrap();
        let bias: Array1<f64> = bias.data.iter().map(|v| f64::from(*v)).collect();
        linear(&inputs, &matrix, &bias).into_shape_with_order((n, 1, 1, outputs)).unwrap()
    }
}

/// Caffe divides alpha by the window size, and adds k.
pub fn normalise(x: &Array4<f64>, mut own: Fields) -> Array4<f64> {
    let size: usize = own.number("local_size").unwrap_or(5);
    let alpha: f64 = own.number("alpha").unwrap_or(1.0);
    let beta: f64 = own.number("beta").unwrap_or(0.75);
    let k: f64 = own.number("k").unwrap_or(1.0);
    own.finish();
    lrn(x, size, alpha / size as f64, beta, k)
}

/// Caffe rounds up unless the layer says FLOOR.
pub fn pool(x: &Array4<f64>, mut own: Fields) -> Array4<f64> {
    assert_eq!(own.scalar("pool").as_deref(), Some("MAX"));
    assert_eq!((own.number("kernel_size"), own.number("stride")), (Some(2), Some(2)));
    let ceil = match own.scalar("round_mode").as_deref() {
        None => true,
        Some("FLOOR") => false,
        other => panic!("round_mode is {other:?}"),
    };
    own.finish();
    max_pool2d(x, ceil)
}

pub fn softmax(x: &Array4<f64>) -> Array4<f64> {
    let largest = x.iter().copied().reduce(f64::max).unwrap();
    let exponentials = x.mapv(|v| (v - largest).exp());
    &exponentials / exponentials.sum()
}
