//! A network with parameters on a device.

use std::sync::Arc;

use vgg_tensor::{Device, Parameter, ParameterKind, Shape, Tensor};

use crate::layout::{Layout, NamedTensor};
use crate::{Error, Init, LayerKind, LayerSpec, NetworkSpec, Result, Stopwatch};

/// A network for crops of one size, for training and inference.
pub struct Network {
    pub(crate) spec: NetworkSpec,
    pub(crate) device: Device,
    pub(crate) layers: Vec<Layer>,
    pub(crate) stopwatch: Option<Arc<Stopwatch>>,
}

/// A layer and its parameters, if it has any.
pub(crate) struct Layer {
    pub(crate) spec: LayerSpec,
    pub(crate) params: Option<Params>,
}

/// Weight and bias of a layer.
pub(crate) struct Params {
    pub(crate) weight: Parameter,
    pub(crate) bias: Parameter,
}

impl Network {
    /// Creates a network whose parameters are all zero, to be loaded or initialised.
    ///
    /// # Errors
    /// [`Error::Spec`] if the specification is invalid; [`Error::Tensor`] if a GPU has too little memory.
    pub fn new(spec: NetworkSpec, device: &Device) -> Result<Network> {
        let layers =
            spec.layers()?.into_iter().map(|layer| Layer::new(layer, device)).collect::<Result<_>>()?;
        Ok(Network { spec, device: device.clone(), layers, stopwatch: None })
    }

    /// Creates a network with random weights and zero biases.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn random(spec: NetworkSpec, init: Init, seed: u64, device: &Device) -> Result<Network> {
        let mut network = Network::new(spec, device)?;
        let names: Vec<String> = network.layer_names().map(str::to_owned).collect();
        network.reinitialize(&names, init, seed)?;
        Ok(network)
    }

    /// Sets the weights of these layers to new random values and their biases to zero.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if the network has no layer of this name with parameters.
    pub fn reinitialize(&mut self, layers: &[String], init: Init, seed: u64) -> Result<()> {
        for name in layers {
            let device = self.device.clone();
            let layer = self.layer_mut(name)?;
            let values = layer.weight_layout().to_memory(&init.draw(&layer.spec, seed));
            if let Some(params) = &mut layer.params {
                let weight = Tensor::from_slice(&values, params.weight.weight.shape(), &device)?;
                params.weight.weight.set(weight)?;
                params.bias.weight.set(Tensor::zeros(params.bias.weight.shape(), &device)?)?;
            }
        }
        Ok(())
    }

    /// The specification of the network.
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    /// The device of the parameters.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Names of the layers that have parameters, in order.
    pub fn layer_names(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().filter(|l| l.params.is_some()).map(|l| l.spec.name.as_str())
    }

    /// Parameters in order, each weight before its bias.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.layers.iter().filter_map(|l| l.params.as_ref()).flat_map(|p| [&p.weight, &p.bias])
    }

    /// As [`Network::parameters`], mutable.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        self.layers.iter_mut().filter_map(|l| l.params.as_mut()).flat_map(|p| [&mut p.weight, &mut p.bias])
    }

    /// Measures the time of every layer with `stopwatch`; `None` stops measuring.
    pub fn set_stopwatch(&mut self, stopwatch: Option<Arc<Stopwatch>>) {
        self.stopwatch = stopwatch;
    }

    /// Makes these layers trainable and freezes all others.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if the network has no layer of this name with parameters.
    pub fn train_only(&mut self, layers: &[String]) -> Result<()> {
        for name in layers {
            self.layer_mut(name)?;
        }
        for layer in &mut self.layers {
            let trainable = layers.contains(&layer.spec.name);
            if let Some(params) = &mut layer.params {
                params.weight.trainable = trainable;
                params.bias.trainable = trainable;
            }
        }
        Ok(())
    }

    /// Copies of all parameters in the file layout, in order.
    pub fn state_dict(&self) -> Vec<NamedTensor> {
        self.layers.iter().flat_map(Layer::state_dict).collect()
    }

    /// Copies of all gradients in the file layout, in order; parameters without a gradient are omitted.
    pub fn gradients(&self) -> Vec<NamedTensor> {
        self.layers.iter().flat_map(Layer::gradients).collect()
    }

    /// Sets a parameter from a tensor in the file layout.
    ///
    /// # Errors
    /// [`Error::UnknownParameter`] if no parameter has this name; [`Error::ParameterShape`] if shapes differ.
    pub fn load_tensor(&mut self, array: &NamedTensor) -> Result<()> {
        let unknown = || Error::UnknownParameter { name: array.name.clone() };
        let (layer, part) = array.name.rsplit_once('.').ok_or_else(unknown)?;
        let device = self.device.clone();
        let layer = self.layer_mut(layer).map_err(|_| unknown())?;
        let (layout, shape) = (layer.weight_layout(), layer.spec.weight_shape().unwrap_or_default());
        let Some(params) = &mut layer.params else { return Err(unknown()) };
        let (parameter, expected, values) = match part {
            "weight" => (&mut params.weight, shape, layout.to_memory(&array.values)),
            "bias" => (&mut params.bias, shape[..1].to_vec(), array.values.clone()),
            _ => return Err(unknown()),
        };
        if array.shape != expected {
            let (name, got) = (array.name.clone(), array.shape.clone());
            return Err(Error::ParameterShape { name, expected, got });
        }
        let shape = parameter.weight.shape();
        parameter.weight.set(Tensor::from_slice(&values, shape, &device)?)?;
        Ok(())
    }

    pub(crate) fn layer_mut(&mut self, name: &str) -> Result<&mut Layer> {
        let config = self.spec.config.name();
        let found = self.layers.iter_mut().find(|l| l.params.is_some() && l.spec.name == name);
        found.ok_or_else(|| Error::UnknownLayer { name: name.to_owned(), config })
    }
}

impl Layer {
    fn new(spec: LayerSpec, device: &Device) -> Result<Layer> {
        let [c, k] = [spec.input[2], spec.output[2]];
        let shape = match spec.kind {
            LayerKind::Conv { kernel } => Some(Shape::from([k, kernel, kernel, c])),
            LayerKind::Linear { .. } => Some(Shape::from([k, spec.input.iter().product()])),
            _ => None,
        };
        let parameter = |part: &str, kind, shape| -> Result<Parameter> {
            Ok(Parameter::new(format!("{}.{part}", spec.name), kind, Tensor::zeros(shape, device)?))
        };
        let params = match shape {
            Some(shape) => Some(Params {
                weight: parameter("weight", ParameterKind::Weight, shape)?,
                bias: parameter("bias", ParameterKind::Bias, Shape::from([k]))?,
            }),
            None => None,
        };
        Ok(Layer { spec, params })
    }

    pub(crate) fn weight_layout(&self) -> Layout {
        let [h, w, channels] = self.spec.input;
        let places = match self.spec.kind {
            LayerKind::Conv { kernel } => kernel * kernel,
            _ => h * w,
        };
        Layout { rows: self.spec.output[2], channels, places }
    }

    fn names(&self) -> (String, String) {
        (format!("{}.weight", self.spec.name), format!("{}.bias", self.spec.name))
    }

    fn state_dict(&self) -> Vec<NamedTensor> {
        let Some(params) = &self.params else { return Vec::new() };
        self.arrays(Some(params.weight.weight.value()), Some(params.bias.weight.value()))
    }

    fn gradients(&self) -> Vec<NamedTensor> {
        let Some(params) = &self.params else { return Vec::new() };
        self.arrays(params.weight.grad(), params.bias.grad())
    }

    fn arrays(&self, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Vec<NamedTensor> {
        let (weight_name, bias_name) = self.names();
        let weight = weight.map(|w| NamedTensor {
            name: weight_name,
            shape: self.spec.weight_shape().unwrap_or_default(),
            values: self.weight_layout().to_file(&w.to_vec()),
        });
        let bias =
            bias.map(|b| NamedTensor { name: bias_name, shape: vec![b.shape().len()], values: b.to_vec() });
        weight.into_iter().chain(bias).collect()
    }
}
