//! [`Chain`]: the operations that the image passes through, which must be those of a VGG network.

use super::messages::{Graph, Node};

/// Operations that do not change the values, or not the order of the classes.
const NEUTRAL: [&str; 12] = [
    "Cast",
    "Dropout",
    "Flatten",
    "Identity",
    "LogSoftmax",
    "Reshape",
    "Softmax",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    // Of torchvision's adaptive pooling, for images of the size of the crop, and in heads that are left out.
    "AveragePool",
    "GlobalAveragePool",
];

/// The nodes from the first convolution on, without neutral ones. Each takes the output of the one before.
pub(super) struct Chain {
    pub(super) nodes: Vec<usize>,
}

impl Chain {
    /// # Errors
    /// The reason if the graph branches or has other operations before the last convolution.
    pub(super) fn of(graph: &Graph) -> Result<Chain, String> {
        let first =
            graph.nodes.iter().position(|node| node.operator == "Conv").ok_or("it has no convolutions")?;
        let image = graph.nodes[first].inputs.first().and_then(|image| graph.made_by.get(image));
        let scaled = image.map(|&before| graph.nodes[before].operator.as_str());
        if let Some(operator @ ("Sub" | "Div" | "Mul" | "Add")) = scaled {
            return Err(format!(
                "it normalises pixels by the operation {operator}; export the network without it"
            ));
        }
        let last = graph.nodes.iter().rposition(|node| node.operator == "Conv").unwrap_or(first);
        let mut chain = Chain { nodes: Vec::new() };
        let mut at = graph.nodes[first].inputs.first().cloned().unwrap_or_default();
        for (number, node) in graph.nodes.iter().enumerate().skip(first) {
            let operator = node.operator.as_str();
            let is_layer = matches!(operator, "Conv" | "Relu" | "MaxPool" | "LRN" | "Gemm" | "MatMul");
            if !node.inputs.contains(&at) {
                if is_layer && number > last {
                    break;
                }
                if is_layer {
                    return Err(format!("the operation {operator} is not part of one chain of layers"));
                }
                // It computes a shape or a constant.
                continue;
            }
            match operator {
                _ if is_layer => chain.nodes.push(number),
                "Shape" | "Size" => continue,
                // The bias of a matrix.
                "Add" if chain.operator(graph, chain.nodes.len().wrapping_sub(1)) == Some("MatMul") => {}
                // Average pooling between convolutions is another network.
                "AveragePool" | "GlobalAveragePool" if number <= last => {
                    return Err("it has average pooling between convolutions".into());
                }
                _ if NEUTRAL.contains(&operator) => {}
                // A head of another form ends the chain.
                _ if number > last => break,
                _ => return Err(format!("it has the operation {operator}, which VGG networks do not have")),
            }
            at = node.outputs.first().cloned().unwrap_or_default();
        }
        Ok(chain)
    }

    /// The operation at a position of the chain.
    pub(super) fn operator<'g>(&self, graph: &'g Graph, position: usize) -> Option<&'g str> {
        self.nodes.get(position).map(|number| graph.nodes[*number].operator.as_str())
    }

    /// The operations of these nodes.
    pub(super) fn operators<'g>(&self, graph: &'g Graph, nodes: &[usize]) -> Vec<&'g str> {
        nodes.iter().map(|number| graph.nodes[*number].operator.as_str()).collect()
    }
}

impl Node {
    /// # Errors
    /// The reason unless it is a convolution with stride 1 that keeps the size of the map.
    pub(super) fn check_conv(&self, weight: &[usize]) -> Result<(), String> {
        let all = |name: &str, value: i64| {
            self.integers.get(name).is_none_or(|own| own.iter().all(|v| *v == value))
        };
        let pad = (weight[2] / 2) as i64;
        let padded = match self.integers.get("pads") {
            Some(pads) => pads.iter().all(|own| *own == pad),
            None => pad == 0 || self.same_padding,
        };
        match all("strides", 1) && all("dilations", 1) && all("group", 1) && padded {
            true => Ok(()),
            false => {
                Err("a convolution has a stride, a dilation, groups or another padding than VGG networks"
                    .into())
            }
        }
    }

    /// # Errors
    /// The reason unless it is max pooling of 2 x 2 pixels with stride 2.
    pub(super) fn check_pool(&self) -> Result<(), String> {
        let is = |name: &str| self.integers.get(name).is_some_and(|own| own == &[2, 2]);
        let no_pads = self.integers.get("pads").is_none_or(|pads| pads.iter().all(|pad| *pad == 0));
        match is("kernel_shape") && is("strides") && no_pads {
            true => Ok(()),
            false => Err("max pooling is not over 2 x 2 pixels with stride 2".into()),
        }
    }
}
