//! The messages of ONNX that are read: `GraphProto`, `NodeProto`, `AttributeProto` and `TensorProto`.

use std::collections::HashMap;

use super::super::number::Number;
use super::super::wire::{Reader, Wire};
use super::super::{corrupt, count};
use crate::Result;

/// Maximum numbers of nodes, and of tensors and their sides, in a file.
const MAX_NODES: usize = 1 << 16;
const MAX_SIDES: usize = 8;
const MAX_TEXT_BYTES: u64 = 1 << 12;
const MAX_METADATA_BYTES: u64 = 4 << 20;

/// A tensor in the file.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) shape: Vec<usize>,
    pub(super) number: Number,
    pub(super) place: u64,
    pub(super) bytes: u64,
}

/// An operation of the graph.
#[derive(Default)]
pub(super) struct Node {
    pub(super) operator: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    /// Integer attributes, such as `transB`.
    pub(super) integers: HashMap<String, Vec<i64>>,
    /// Whether the padding keeps the size of the map.
    pub(super) same_padding: bool,
    /// The value of a constant.
    pub(super) value: Option<Stored>,
}

#[derive(Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) stored: HashMap<String, Stored>,
    /// The node that has an output of this name.
    pub(super) made_by: HashMap<String, usize>,
    /// The first node that has an input of this name.
    pub(super) used_by: HashMap<String, usize>,
}

impl Graph {
    /// Indexes the names of inputs and outputs.
    pub(super) fn index(&mut self) {
        for (number, node) in self.nodes.iter().enumerate() {
            for output in &node.outputs {
                self.made_by.entry(output.clone()).or_insert(number);
            }
            for input in &node.inputs {
                self.used_by.entry(input.clone()).or_insert(number);
            }
        }
    }
}

impl Node {
    pub(super) fn integer(&self, name: &str) -> i64 {
        self.integers.get(name).and_then(|values| values.first()).copied().unwrap_or(0)
    }
}

impl Reader<'_> {
    /// Reads a `GraphProto`, which ends at `end`.
    pub(super) fn graph(&mut self, end: u64, graph: &mut Graph) -> Result<()> {
        while self.at < end {
            match self.field(end)? {
                (1, Wire::Bytes(end)) => {
                    let node = self.node(end)?;
                    graph.nodes.push(node);
                }
                (5, Wire::Bytes(end)) => {
                    if let (name, Some(stored)) = self.tensor(end)? {
                        graph.stored.insert(name, stored);
                    }
                }
                (_, value) => self.skip(&value)?,
            }
            if graph.nodes.len() + graph.stored.len() > MAX_NODES {
                return Err(corrupt(self.path, format!("it has more than {MAX_NODES} nodes")));
            }
        }
        Ok(())
    }

    fn node(&mut self, end: u64) -> Result<Node> {
        let mut node = Node::default();
        while self.at < end {
            match self.field(end)? {
                (1, Wire::Bytes(end)) => node.inputs.push(self.text(end, MAX_TEXT_BYTES)?),
                (2, Wire::Bytes(end)) => node.outputs.push(self.text(end, MAX_TEXT_BYTES)?),
                (4, Wire::Bytes(end)) => node.operator = self.text(end, MAX_TEXT_BYTES)?,
                (5, Wire::Bytes(end)) => self.attribute(end, &mut node)?,
                (_, value) => self.skip(&value)?,
            }
            if node.inputs.len() + node.outputs.len() + node.integers.len() > MAX_NODES {
                return Err(corrupt(self.path, "a node has too many inputs"));
            }
        }
        Ok(node)
    }

    /// Reads an `AttributeProto` into `node`.
    fn attribute(&mut self, end: u64, node: &mut Node) -> Result<()> {
        let (mut name, mut integers) = (String::new(), Vec::new());
        while self.at < end {
            match self.field(end)? {
                (1, Wire::Bytes(end)) => name = self.text(end, MAX_TEXT_BYTES)?,
                (4, Wire::Bytes(end)) if end - self.at <= MAX_TEXT_BYTES => {
                    // SAME_UPPER or SAME_LOWER of auto_pad.
                    node.same_padding |= self.text(end, MAX_TEXT_BYTES)?.starts_with("SAME_");
                }
                (3 | 8, Wire::Varint(value)) => integers.push(value as i64),
                (5, Wire::Bytes(end)) => node.value = self.tensor(end)?.1,
                (8, Wire::Bytes(end)) => {
                    while self.at < end && integers.len() <= MAX_SIDES {
                        integers.push(self.varint()? as i64);
                    }
                    self.expect_end(end)?;
                }
                (_, value) => self.skip(&value)?,
            }
            if integers.len() > MAX_SIDES {
                // No attribute of the operators above has so many.
                return self.seek(end);
            }
        }
        node.integers.insert(name, integers);
        Ok(())
    }

    /// Reads the name and the place of the values of a `TensorProto`; `None` if the values are not floats.
    fn tensor(&mut self, end: u64) -> Result<(String, Option<Stored>)> {
        let (mut name, mut shape, mut kind) = (String::new(), Vec::new(), 0);
        let mut values = None;
        while self.at < end {
            match self.field(end)? {
                (1, Wire::Varint(side)) => shape.push(side as usize),
                (1, Wire::Bytes(end)) => {
                    while self.at < end && shape.len() <= MAX_SIDES {
                        shape.push(self.varint()? as usize);
                    }
                    self.expect_end(end)?;
                }
                (2, Wire::Varint(value)) => kind = value,
                (8, Wire::Bytes(end)) => name = self.text(end, MAX_TEXT_BYTES)?,
                (4 | 9 | 10, Wire::Bytes(end)) => {
                    values = Some((self.at, end - self.at));
                    self.seek(end)?;
                }
                (13, Wire::Bytes(_)) | (14, Wire::Varint(1)) => {
                    return Err(corrupt(
                        self.path,
                        "its tensors are in another file; export the model to one file",
                    ));
                }
                (_, value) => self.skip(&value)?,
            }
            if shape.len() > MAX_SIDES {
                return Err(corrupt(self.path, "the shape of a tensor is invalid"));
            }
        }
        let number = match kind {
            1 => Number::F32,
            10 => Number::F16,
            11 => Number::F64,
            16 => Number::Bf16,
            _ => return Ok((name, None)),
        };
        let (place, bytes) = values.unwrap_or((self.at, 0));
        if count(&shape).map(|values| values as u64 * number.bytes() as u64) != Some(bytes) {
            return Err(corrupt(
                self.path,
                format!("the tensor {name} of shape {shape:?} has {bytes} bytes"),
            ));
        }
        Ok((name, Some(Stored { shape, number, place, bytes })))
    }

    /// Reads a `StringStringEntryProto`.
    pub(super) fn property(&mut self, end: u64) -> Result<(String, String)> {
        let (mut key, mut value) = (String::new(), String::new());
        while self.at < end {
            match self.field(end)? {
                (1, Wire::Bytes(end)) => key = self.text(end, MAX_TEXT_BYTES)?,
                (2, Wire::Bytes(end)) => value = self.text(end, MAX_METADATA_BYTES)?,
                (_, other) => self.skip(&other)?,
            }
        }
        Ok((key, value))
    }

    fn expect_end(&self, end: u64) -> Result<()> {
        if self.at <= end {
            Ok(())
        } else {
            Err(corrupt(self.path, "it ends inside a field; it may be truncated"))
        }
    }
}
