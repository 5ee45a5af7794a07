//! Reading an ONNX `ModelProto`. The names of its tensors mean nothing, so layers are found by the order of the graph:
//! convolutions and max pooling, then three fully connected layers, which may also be convolutions. A head of another
//! form is left out.

mod chain;
mod messages;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use self::chain::Chain;
use self::messages::{Graph, Node, Stored};
use super::wire::{Reader, Wire};
use super::{Entry, corrupt, count, io};
use crate::Result;

/// An open file.
pub(crate) struct OnnxModel {
    path: PathBuf,
    file: BufReader<File>,
    /// Weights and biases by our names.
    tensors: BTreeMap<String, Tensor>,
    /// The metadata of the model; of vgg, if it wrote the file.
    pub(super) metadata: BTreeMap<String, String>,
}

/// A weight or bias, and how its values are stored.
struct Tensor {
    shape: Vec<usize>,
    stored: Option<Stored>,
    order: Order,
}

/// Order of a tensor's values.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    AsStored,
    /// A matrix `[in, out]`.
    Transposed,
    /// As `Transposed`, with the inputs in the order H, W, C of a map of this side.
    ChannelsLast {
        side: usize,
    },
}

/// Whether a file may be an ONNX model: its first field is the version of the format or the graph.
pub(super) fn may_be(start: &[u8]) -> bool {
    matches!(start, [0x08, 1..=0x40, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..] | [0x3a, _, ..])
}

impl OnnxModel {
    pub(super) fn open(path: &Path) -> Result<OnnxModel> {
        let file = File::open(path).map_err(|e| io(path, e))?;
        let length = file.metadata().map_err(|e| io(path, e))?.len();
        let mut reader = Reader { path, file: BufReader::new(file), at: 0 };
        let (mut graph, mut metadata) = (Graph::default(), BTreeMap::new());
        while reader.at < length {
            match reader.field(length)? {
                (7, Wire::Bytes(end)) => reader.graph(end, &mut graph)?,
                (14, Wire::Bytes(end)) => {
                    let (key, value) = reader.property(end)?;
                    metadata.insert(key, value);
                }
                (_, value) => reader.skip(&value)?,
            }
        }
        // Other programs may have properties with the names of ours.
        if !metadata.contains_key("channel_order") {
            metadata.clear();
        }
        graph.index();
        let tensors = graph.layers().map_err(|reason| corrupt(path, format!("ONNX: {reason}")))?;
        Ok(OnnxModel { path: path.to_owned(), file: reader.file, tensors, metadata })
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let entry =
            |(name, tensor): (&String, &Tensor)| Entry { name: name.clone(), shape: tensor.shape.clone() };
        self.tensors.iter().map(entry).collect()
    }

    pub(super) fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(corrupt(&self.path, format!("no tensor named {name}")));
        };
        let Some(stored) = &tensor.stored else { return Ok(vec![0.0; count(&tensor.shape).unwrap_or(0)]) };
        // `open` has checked the length against the file.
        let mut bytes = vec![0; stored.bytes as usize];
        self.file.seek(SeekFrom::Start(stored.place)).map_err(|e| io(&self.path, e))?;
        self.file.read_exact(&mut bytes).map_err(|e| io(&self.path, e))?;
        Ok(tensor.order.to_rows(stored.number.floats(&bytes), &tensor.shape))
    }
}

impl Order {
    /// Values of a matrix `[out, in]` with inputs in the order C, H, W.
    fn to_rows(self, values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        let side = match self {
            Order::AsStored => return values,
            Order::Transposed => 1,
            Order::ChannelsLast { side } => side,
        };
        let (outputs, inputs) = (shape[0], shape[1]);
        let channels = inputs / (side * side);
        let mut rows = Vec::with_capacity(values.len());
        for output in 0..outputs {
            for channel in 0..channels {
                for cell in 0..side * side {
                    rows.push(values[(cell * channels + channel) * outputs + output]);
                }
            }
        }
        rows
    }
}

impl Graph {
    /// The layers' tensors with our names.
    fn layers(&self) -> std::result::Result<BTreeMap<String, Tensor>, String> {
        if self.nodes.iter().any(|node| node.operator == "BatchNormalization") {
            return Err(
                "it has batch normalisation; export the network in evaluation mode, which folds it".into()
            );
        }
        let chain = Chain::of(self)?;
        let heads = self.convolutional_head(&chain);
        let mut tensors = BTreeMap::new();
        let (mut stage, mut place) = (1, 0);
        let mut filters = 0;
        for (position, &number) in chain.nodes.iter().enumerate() {
            let node = &self.nodes[number];
            match node.operator.as_str() {
                "MaxPool" => {
                    node.check_pool()?;
                    (stage, place) = (stage + usize::from(place > 0), 0);
                }
                "Conv" if !heads.contains(&number) => {
                    let weight = self.tensor(node, 1).filter(|weight| weight.shape.len() == 4);
                    let weight = weight.ok_or("the weight of a convolution is not a constant")?;
                    node.check_conv(&weight.shape)?;
                    if chain.operator(self, position + 1) != Some("Relu") {
                        return Err("a convolution is not followed by a ReLU".into());
                    }
                    place += 1;
                    filters = weight.shape[0];
                    self.insert(&mut tensors, &format!("conv{stage}_{place}"), weight, self.tensor(node, 2));
                }
                _ => {}
            }
        }
        if tensors.is_empty() {
            return Err("it has no convolutions".into());
        }
        if let [fc6, fc7, fc8] = heads.as_slice() {
            for (name, number) in [("fc6", fc6), ("fc7", fc7), ("fc8", fc8)] {
                let node = &self.nodes[*number];
                if let Some(weight) = self.tensor(node, 1) {
                    let matrix = vec![weight.shape[0], weight.shape[1..].iter().product()];
                    let weight = Tensor { shape: matrix, ..weight };
                    self.insert(&mut tensors, name, weight, self.tensor(node, 2));
                }
            }
        } else {
            self.linear_head(&chain, filters, &mut tensors);
        }
        Ok(tensors)
    }

    /// The three convolutions without padding after the last pooling that compute fc6, fc7 and fc8; none if the head
    /// is another.
    fn convolutional_head(&self, chain: &Chain) -> Vec<usize> {
        let is = |number: &usize, operator: &str| self.nodes[*number].operator == operator;
        let last_pool = chain.nodes.iter().rposition(|number| is(number, "MaxPool"));
        let start = last_pool.map_or(chain.nodes.len(), |pool| pool + 1);
        let operators = chain.operators(self, &chain.nodes[start..]);
        // timm's last layer is a matrix.
        let of_head = match operators.as_slice() {
            ["Conv", "Relu", "Conv", "Relu", "Conv"] => true,
            ["Conv", "Relu", "Conv", "Relu", "Gemm"] => {
                self.nodes[chain.nodes[chain.nodes.len() - 1]].integer("transB") == 1
            }
            _ => false,
        };
        let found: Vec<usize> =
            chain.nodes[start..].iter().filter(|number| !is(number, "Relu")).copied().collect();
        let padded = |number: &usize| {
            let pads = self.nodes[*number].integers.get("pads");
            pads.is_some_and(|pads| pads.iter().any(|pad| *pad != 0))
        };
        if of_head && !found.iter().any(padded) { found } else { Vec::new() }
    }

    /// Inserts fc6, fc7 and fc8 if the graph has three matrices of which the first fits `filters`.
    fn linear_head(&self, chain: &Chain, filters: usize, tensors: &mut BTreeMap<String, Tensor>) {
        let matrices = |number: &&usize| matches!(self.nodes[**number].operator.as_str(), "Gemm" | "MatMul");
        let first = chain.nodes.iter().position(|number| matrices(&number)).unwrap_or(chain.nodes.len());
        let operators = chain.operators(self, &chain.nodes[first..]);
        let plain: Vec<&str> =
            operators.iter().map(|own| if *own == "MatMul" { "Gemm" } else { own }).collect();
        if plain != ["Gemm", "Relu", "Gemm", "Relu", "Gemm"] {
            return;
        }
        let mut found = Vec::new();
        for number in chain.nodes[first..].iter().filter(matrices) {
            let node = &self.nodes[*number];
            let (matrix, is_transposed, bias) = match node.operator.as_str() {
                "Gemm" => (self.tensor(node, 1), node.integer("transB") == 1, self.tensor(node, 2)),
                "MatMul" => (self.tensor(node, 1), false, self.added_to(node)),
                _ => continue,
            };
            let Some(weight) = matrix.filter(|matrix| matrix.shape.len() == 2) else { continue };
            found.push(match is_transposed {
                true => (weight, bias),
                false => {
                    let shape = vec![weight.shape[1], weight.shape[0]];
                    (Tensor { shape, order: Order::Transposed, ..weight }, bias)
                }
            });
        }
        let side =
            found.first().map_or(0, |(fc6, _)| ((fc6.shape[1] / filters.max(1)) as f64).sqrt() as usize);
        let fits = side > 0 && found[0].0.shape[1] == filters * side * side;
        let Ok([mut fc6, fc7, fc8]) = <[_; 3]>::try_from(found) else { return };
        if !fits {
            return;
        }
        // Exporters of TensorFlow flatten maps with the channels last.
        let last = |node: &Node| {
            node.operator == "Transpose" && node.integers.get("perm").is_some_and(|p| *p == [0, 2, 3, 1])
        };
        if fc6.0.order == Order::Transposed && self.nodes.iter().any(last) {
            fc6.0.order = Order::ChannelsLast { side };
        }
        for (name, (weight, bias)) in [("fc6", fc6), ("fc7", fc7), ("fc8", fc8)] {
            self.insert(tensors, name, weight, bias);
        }
    }

    fn insert(
        &self,
        tensors: &mut BTreeMap<String, Tensor>,
        name: &str,
        weight: Tensor,
        bias: Option<Tensor>,
    ) {
        let zeros = Tensor { shape: vec![weight.shape[0]], stored: None, order: Order::AsStored };
        let bias = bias.unwrap_or(zeros);
        tensors.insert(format!("{name}.weight"), weight);
        tensors.insert(format!("{name}.bias"), bias);
    }

    /// The constant that is an input of a node.
    fn tensor(&self, node: &Node, input: usize) -> Option<Tensor> {
        self.constant(node.inputs.get(input)?, 4)
    }

    /// The constant of this name, also behind up to `depth` nodes that copy it.
    fn constant(&self, name: &str, depth: usize) -> Option<Tensor> {
        if let Some(stored) = self.stored.get(name) {
            return Some(Tensor {
                shape: stored.shape.clone(),
                stored: Some(stored.clone()),
                order: Order::AsStored,
            });
        }
        let source = &self.nodes[*self.made_by.get(name)?];
        match source.operator.as_str() {
            "Constant" => {
                let stored = source.value.clone()?;
                Some(Tensor { shape: stored.shape.clone(), stored: Some(stored), order: Order::AsStored })
            }
            "Identity" if depth > 0 => self.constant(source.inputs.first()?, depth - 1),
            _ => None,
        }
    }

    /// The constant that an `Add` adds to the output of a node.
    fn added_to(&self, node: &Node) -> Option<Tensor> {
        let output = node.outputs.first()?;
        let add = &self.nodes[*self.used_by.get(output)?];
        if add.operator != "Add" {
            return None;
        }
        (0..add.inputs.len()).find_map(|input| self.tensor(add, input))
    }
}

#[cfg(test)]
mod tests;
