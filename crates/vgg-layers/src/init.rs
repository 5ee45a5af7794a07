//! Random initialisation of weights.
//!
//! Every layer has its own random stream, keyed by seed and layer name, and draws values in the order of the
//! file layout. Networks of different depth therefore draw the same values for the layers that they share.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::{LayerKind, LayerSpec};

/// Distribution of initial weights; biases are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Normal with variance 0.01, as the paper states; activations explode in deep networks.
    PaperVariance,
    /// Normal with standard deviation 0.01, as in Krizhevsky et al. and Caffe's examples.
    #[serde(rename = "gaussian-0.01")]
    Gaussian001,
    /// Uniform in `+-sqrt(6 / (fan_in + fan_out))` (Glorot & Bengio 2010); PyTorch's `xavier_uniform_`.
    GlorotUniform,
    /// Normal with variance `2 / (fan_in + fan_out)`; PyTorch's `xavier_normal_`.
    GlorotNormal,
    /// Normal with variance `2 / fan_in` (He et al. 2015); PyTorch's `kaiming_normal_`.
    He,
    /// As in torchvision: normal with variance `2 / fan_out` for convolutions and standard deviation 0.01 for
    /// fully connected layers.
    HeFanOut,
}

impl Init {
    /// All initialisers.
    pub const ALL: [Init; 6] = [
        Init::PaperVariance,
        Init::Gaussian001,
        Init::GlorotUniform,
        Init::GlorotNormal,
        Init::He,
        Init::HeFanOut,
    ];

    /// Name in settings, such as `gaussian-0.01`.
    pub fn name(self) -> &'static str {
        match self {
            Init::PaperVariance => "paper-variance",
            Init::Gaussian001 => "gaussian-0.01",
            Init::GlorotUniform => "glorot-uniform",
            Init::GlorotNormal => "glorot-normal",
            Init::He => "he",
            Init::HeFanOut => "he-fan-out",
        }
    }

    /// Draws the weights of a layer, in the order of [`LayerSpec::weight_shape`].
    pub(crate) fn draw(self, layer: &LayerSpec, seed: u64) -> Vec<f32> {
        let len = layer.fan_in() * layer.output[2];
        let fans = (layer.fan_in() + layer.fan_out()) as f64;
        let mut rng = stream(seed, &layer.name);
        match self {
            Init::PaperVariance => normal(&mut rng, 0.1, len),
            Init::Gaussian001 => normal(&mut rng, 0.01, len),
            Init::GlorotNormal => normal(&mut rng, (2.0 / fans).sqrt(), len),
            Init::He => normal(&mut rng, (2.0 / layer.fan_in() as f64).sqrt(), len),
            Init::HeFanOut => match layer.kind {
                LayerKind::Linear { .. } => normal(&mut rng, 0.01, len),
                _ => normal(&mut rng, (2.0 / layer.fan_out() as f64).sqrt(), len),
            },
            Init::GlorotUniform => {
                let bound = (6.0 / fans).sqrt();
                (0..len).map(|_| ((2.0 * unit(&mut rng) - 1.0) * bound) as f32).collect()
            }
        }
    }
}

impl std::str::FromStr for Init {
    type Err = String;
    fn from_str(name: &str) -> Result<Init, String> {
        Init::ALL.into_iter().find(|init| init.name() == name).ok_or_else(|| {
            format!("unknown initialiser {name}; it must be one of {}", Init::ALL.map(Init::name).join(", "))
        })
    }
}

fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let name = &name.as_bytes()[..name.len().min(16)];
    key[8..8 + name.len()].copy_from_slice(name);
    key[24..].copy_from_slice(b"weights\0");
    ChaCha8Rng::from_seed(key)
}

/// Uniform in [0, 1), from 32 random bits.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    f64::from(rng.next_u32()) / 4_294_967_296.0
}

/// Normal values by the Box-Muller transform; `libm` makes them bitwise identical on every platform.
fn normal(rng: &mut ChaCha8Rng, std: f64, len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len + 1);
    while values.len() < len {
        let radius = std * (-2.0 * libm::log(1.0 - unit(rng))).sqrt();
        let (sin, cos) = libm::sincos(std::f64::consts::TAU * unit(rng));
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(len);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variances_are_as_stated() {
        let layer = LayerSpec {
            name: "conv3_2".into(),
            kind: LayerKind::Conv { kernel: 3 },
            input: [56, 56, 128],
            output: [56, 56, 256],
        };
        let (fan_in, fan_out) = (128.0 * 9.0, 256.0 * 9.0);
        let expected =
            [0.01, 1e-4, 2.0 / (fan_in + fan_out), 2.0 / (fan_in + fan_out), 2.0 / fan_in, 2.0 / fan_out];
        for (init, expected) in Init::ALL.into_iter().zip(expected) {
            let values = init.draw(&layer, 1);
            let n = values.len() as f64;
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
            let variance = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n;
            // Five standard errors of the variance of 294,912 normal values.
            assert!((variance / expected - 1.0).abs() < 0.013, "{}: {variance}", init.name());
            assert!(mean.abs() < 5.0 * (expected / n).sqrt(), "{}: {mean}", init.name());
            assert_ne!(values, init.draw(&layer, 2));
            assert_eq!(init.name().parse(), Ok(init));
        }
    }
}
