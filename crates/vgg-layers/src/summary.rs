//! The summary of a network: layers, shapes, parameters and arithmetic, for display and reports.

use serde::Serialize;

use crate::{LayerKind, NetworkSpec, Result};

/// The layers of a network, with totals.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Column of Table 1, or `custom`.
    pub config: &'static str,
    /// Number of weight layers.
    pub weight_layers: usize,
    /// The layers in order.
    pub layers: Vec<SummaryRow>,
    /// Number of weights and biases.
    pub parameters: usize,
    /// Number of weights and biases of the convolutions.
    pub conv_parameters: usize,
    /// Multiply-accumulate operations for one crop.
    pub macs: u64,
    /// Number of output values of the convolutions for one crop.
    pub conv_activations: usize,
    /// Receptive field of the last pooling layer: side of a square in pixels.
    pub receptive_field_last_pool: usize,
    /// Receptive field of fc6 and of the whole network: side of a square in pixels.
    pub receptive_field_fc6: usize,
}

/// One layer.
#[derive(Debug, Clone, Serialize)]
pub struct SummaryRow {
    /// The paper's name.
    pub name: String,
    /// Type, such as `conv 3x3` or `fully connected`.
    pub kind: String,
    /// `[H, W, C]` of the output for one crop.
    pub output: [usize; 3],
    /// Number of weights and biases.
    pub parameters: usize,
    /// Multiply-accumulate operations for one crop.
    pub macs: u64,
    /// Receptive field of the output: side of a square in pixels.
    pub receptive_field: usize,
}

impl NetworkSpec {
    /// Layers, shapes, parameters and arithmetic for one crop.
    ///
    /// # Errors
    /// As [`NetworkSpec::layers`].
    pub fn summary(&self) -> Result<Summary> {
        let (mut field, mut stride) = (1, 1);
        let mut summary = Summary {
            config: self.config.name(),
            weight_layers: self.config.weight_layers(),
            layers: Vec::new(),
            parameters: 0,
            conv_parameters: 0,
            macs: 0,
            conv_activations: 0,
            receptive_field_last_pool: 0,
            receptive_field_fc6: 0,
        };
        for layer in self.layers()? {
            let cells = (layer.output[0] * layer.output[1]) as u64;
            let weights = layer.weight_shape().map_or(0, |s| s.iter().product::<usize>()) as u64;
            let parameters = layer.parameter_count();
            let kind = match layer.kind {
                LayerKind::Conv { kernel } => {
                    field += (kernel - 1) * stride;
                    summary.conv_parameters += parameters;
                    summary.conv_activations += layer.output.iter().product::<usize>();
                    format!("conv {kernel}x{kernel}")
                }
                LayerKind::MaxPool => {
                    field += stride;
                    stride *= 2;
                    summary.receptive_field_last_pool = field;
                    "max-pool 2x2".into()
                }
                LayerKind::Lrn => "local response normalisation".into(),
                LayerKind::Linear { .. } => {
                    field += (layer.input[0].max(1) - 1) * stride;
                    if layer.name == "fc6" {
                        summary.receptive_field_fc6 = field;
                    }
                    "fully connected".into()
                }
                LayerKind::Dropout => format!("dropout {}", self.dropout),
            };
            let macs = weights * cells;
            summary.parameters += parameters;
            summary.macs += macs;
            summary.layers.push(SummaryRow {
                name: layer.name,
                kind,
                output: layer.output,
                parameters,
                macs,
                receptive_field: field,
            });
        }
        Ok(summary)
    }
}
