//! Norms of weights and gradients, for the report on a step that was not finite.

use serde::Serialize;
use vgg_layers::{NamedTensor, Network};

/// Norms of a parameter and its gradient at a step that was not finite.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerNorms {
    /// Name of the parameter, such as `conv1_1.weight`.
    pub name: String,
    /// Euclidean norm of its finite values.
    pub weight: f64,
    /// Euclidean norm of the finite values of its gradient, if there is one.
    pub gradient: Option<f64>,
    /// Number of values of the gradient that are not finite.
    pub not_finite: usize,
}

impl LayerNorms {
    /// For a message: the first parameter in the order of the backward pass, from the last layer, whose
    /// gradient is not finite.
    pub(crate) fn first(layers: &[LayerNorms]) -> String {
        let first = layers.iter().rev().find(|layer| layer.not_finite > 0);
        first.map_or(String::new(), |layer| format!("; first in the gradient of {}", layer.name))
    }
}

pub(crate) fn layers_of(network: &Network) -> Vec<LayerNorms> {
    let gradients = network.gradients();
    let of = |name: &str| gradients.iter().find(|gradient| gradient.name == name);
    let tell = |NamedTensor { name, values, .. }: NamedTensor| {
        let gradient = of(&name);
        LayerNorms {
            weight: norm(&values),
            gradient: gradient.map(|g| norm(&g.values)),
            not_finite: gradient.map_or(0, |g| g.values.iter().filter(|v| !v.is_finite()).count()),
            name,
        }
    };
    network.state_dict().into_iter().map(tell).collect()
}

fn norm(values: &[f32]) -> f64 {
    let finite = values.iter().filter(|v| v.is_finite());
    finite.map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt()
}
