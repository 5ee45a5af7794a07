//! ONNX operators as plain f64 loops, by the formulas of ONNX's operator reference.

use std::collections::{BTreeMap, HashMap};

use super::schema::*;

/// Row-major values; maps are `[N, C, H, W]`.
#[derive(Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    pub fn zeros(shape: &[usize]) -> Array {
        Array { shape: shape.to_vec(), values: vec![0.0; shape.iter().product()] }
    }

    pub fn of_tensor(tensor: &TensorProto) -> Array {
        let name = tensor.name();
        assert_eq!(tensor.data_type, Some(FLOAT), "{name}");
        let shape: Vec<usize> = tensor.dims.iter().map(|side| usize::try_from(*side).unwrap()).collect();
        let bytes = tensor.raw_data.as_deref().unwrap();
        let (values, rest) = bytes.as_chunks::<4>();
        let values: Vec<f64> = values.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        assert!(rest.is_empty() && values.len() == shape.iter().product::<usize>(), "{name}: {shape:?}");
        Array { shape, values }
    }

    /// `[N, H, W, C]` to `[N, C, H, W]`.
    pub fn of_nhwc(values: &[f32], shape: [usize; 4]) -> Array {
        let [n, h, w, c] = shape;
        let mut out = Array::zeros(&[n, c, h, w]);
        for (i, value) in values.iter().enumerate() {
            let (image, y, x, channel) = (i / (h * w * c), i / (w * c) % h, i / c % w, i % c);
            out.values[((image * c + channel) * h + y) * w + x] = f64::from(*value);
        }
        out
    }

    /// `[N, C, H, W]` to the values of `[N, H, W, C]`.
    pub fn to_nhwc(&self) -> Vec<f32> {
        let [n, c, h, w] = self.nchw();
        let mut out = vec![f32::NAN; self.values.len()];
        for (i, value) in self.values.iter().enumerate() {
            let (image, channel, y, x) = (i / (c * h * w), i / (h * w) % c, i / w % h, i % w);
            out[((image * h + y) * w + x) * c + channel] = *value as f32;
        }
        assert_eq!(out.len(), n * h * w * c);
        out
    }

    /// The shape of an array `[N, C, H, W]`.
    pub fn nchw(&self) -> [usize; 4] {
        self.shape.as_slice().try_into().unwrap_or_else(|_| panic!("{:?} is not [N, C, H, W]", self.shape))
    }

    /// The numbers of rows and columns of a matrix.
    pub fn rows_columns(&self) -> [usize; 2] {
        self.shape.as_slice().try_into().unwrap_or_else(|_| panic!("{:?} is not a matrix", self.shape))
    }
}

/// Attributes of a node that have not been read yet.
pub struct Attributes<'a>(pub BTreeMap<&'a str, &'a AttributeProto>);

impl<'a> Attributes<'a> {
    pub fn of(node: &'a NodeProto) -> Attributes<'a> {
        let attributes: BTreeMap<_, _> = node.attribute.iter().map(|a| (a.name(), a)).collect();
        assert_eq!(attributes.len(), node.attribute.len(), "{}: an attribute is not unique", node.name());
        Attributes(attributes)
    }

    pub fn int(&mut self, name: &str) -> Option<i64> {
        let attribute = self.0.remove(name)?;
        assert_eq!(attribute.r#type, Some(ATTRIBUTE_INT), "{name}");
        attribute.i
    }

    pub fn float(&mut self, name: &str) -> Option<f64> {
        let attribute = self.0.remove(name)?;
        assert_eq!(attribute.r#type, Some(ATTRIBUTE_FLOAT), "{name}");
        attribute.f.map(f64::from)
    }

    pub fn ints<const N: usize>(&mut self, name: &str) -> Option<[usize; N]> {
        let attribute = self.0.remove(name)?;
        assert_eq!(attribute.r#type, Some(ATTRIBUTE_INTS), "{name}");
        let sides: Vec<usize> = attribute.ints.iter().map(|i| usize::try_from(*i).unwrap()).collect();
        Some(sides.try_into().unwrap_or_else(|sides| panic!("{name} is {sides:?}, not {N} numbers")))
    }
}

/// Computes a node. Absent attributes have the defaults of the operator reference.
pub fn compute(node: &NodeProto, inputs: &[&Array]) -> Array {
    let mut attributes = Attributes::of(node);
    let result = match (node.op_type(), inputs) {
        ("Conv", [x, weight, bias]) => conv(x, weight, bias, &mut attributes),
        ("Relu", [x]) => Array {
            shape: x.shape.clone(),
            values: x.values.iter().map(|v| if *v < 0.0 { 0.0 } else { *v }).collect(),
        },
        ("LRN", [x]) => lrn(x, &mut attributes),
        ("MaxPool", [x]) => max_pool(x, &mut attributes),
        ("Flatten", [x]) => {
            assert_eq!(attributes.int("axis").unwrap_or(1), 1);
            Array { shape: vec![x.shape[0], x.shape[1..].iter().product()], values: x.values.clone() }
        }
        ("Gemm", [x, weight, bias]) => gemm(x, weight, bias, &mut attributes),
        (kind, inputs) => panic!("{}: {kind} with {} inputs", node.name(), inputs.len()),
    };
    let unread: Vec<_> = attributes.0.keys().collect();
    assert!(unread.is_empty(), "{}: {} has no attributes {unread:?}", node.name(), node.op_type());
    result
}

/// `weight [K, C, R, S]`; pads are top, left, bottom, right.
pub fn conv(x: &Array, weight: &Array, bias: &Array, attributes: &mut Attributes) -> Array {
    let [n, c, h, w] = x.nchw();
    let [filters, channels, r, s] = weight.nchw();
    let kernel: [usize; 2] = attributes.ints("kernel_shape").unwrap_or([r, s]);
    assert_eq!((channels, kernel, bias.shape.as_slice()), (c, [r, s], [filters].as_slice()));
    let [top, left, bottom, right] = attributes.ints("pads").unwrap_or([0; 4]);
    let [down, across] = attributes.ints("strides").unwrap_or([1; 2]);
    let (padded_h, padded_w) = (h + top + bottom, w + left + right);
    let mut padded = vec![0.0; n * c * padded_h * padded_w];
    for (i, row) in x.values.chunks_exact(w).enumerate() {
        let at = (i / h * padded_h + i % h + top) * padded_w + left;
        padded[at..at + w].copy_from_slice(row);
    }
    let (out_h, out_w) = ((padded_h - r) / down + 1, (padded_w - s) / across + 1);
    let mut out = Array::zeros(&[n, filters, out_h, out_w]);
    for (i, plane) in out.values.chunks_exact_mut(out_h * out_w).enumerate() {
        let (image, filter) = (i / filters, i % filters);
        plane.fill(bias.values[filter]);
        for (tap, weight) in weight.values[filter * c * r * s..][..c * r * s].iter().enumerate() {
            let (channel, dy, dx) = (tap / (r * s), tap / s % r, tap % s);
            for (y, row) in plane.chunks_exact_mut(out_w).enumerate() {
                let at = ((image * c + channel) * padded_h + y * down + dy) * padded_w + dx;
                let from = padded[at..].iter().step_by(across);
                row.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
    out
}

/// `x / (bias + alpha / size * sum of squares of size channels)^beta`.
pub fn lrn(x: &Array, attributes: &mut Attributes) -> Array {
    let size = attributes.int("size").unwrap() as usize;
    let alpha = attributes.float("alpha").unwrap_or(1e-4);
    let beta = attributes.float("beta").unwrap_or(0.75);
    let bias = attributes.float("bias").unwrap_or(1.0);
    let [_, c, h, w] = x.nchw();
    let plane = h * w;
    let value = |i: usize| {
        let channel = i / plane % c;
        // floor((size - 1) / 2) channels before it, ceil((size - 1) / 2) after it.
        let first = channel.saturating_sub((size - 1) / 2);
        let last = (channel + size / 2).min(c - 1);
        let squares = (first..=last).map(|other| x.values[i + other * plane - channel * plane].powi(2));
        x.values[i] / (bias + alpha / size as f64 * squares.sum::<f64>()).powf(beta)
    };
    Array { shape: x.shape.clone(), values: (0..x.values.len()).map(value).collect() }
}

/// With `ceil_mode`, the last window may extend beyond the map.
pub fn max_pool(x: &Array, attributes: &mut Attributes) -> Array {
    let [n, c, h, w] = x.nchw();
    let [r, s] = attributes.ints("kernel_shape").unwrap();
    let [down, across] = attributes.ints("strides").unwrap_or([1; 2]);
    let ceil = attributes.int("ceil_mode").unwrap_or(0) == 1;
    let windows = |side: usize, kernel: usize, stride: usize| {
        let steps = side - kernel;
        1 + if ceil { steps.div_ceil(stride) } else { steps / stride }
    };
    let (out_h, out_w) = (windows(h, r, down), windows(w, s, across));
    let mut out = Array::zeros(&[n, c, out_h, out_w]);
    for (i, value) in out.values.iter_mut().enumerate() {
        let (plane, y, q) = (i / (out_h * out_w), i / out_w % out_h, i % out_w);
        let rows = y * down..(y * down + r).min(h);
        let columns = q * across..(q * across + s).min(w);
        let window = rows.flat_map(|y| columns.clone().map(move |q| (plane * h + y) * w + q));
        *value = window.map(|at| x.values[at]).reduce(f64::max).unwrap();
    }
    out
}

/// `x weight + bias`, or `x weight^T + bias` with `transB`.
pub fn gemm(x: &Array, weight: &Array, bias: &Array, attributes: &mut Attributes) -> Array {
    let transposed = attributes.int("transB").unwrap_or(0) == 1;
    let [n, inputs] = x.rows_columns();
    let [rows, columns] = weight.rows_columns();
    let (expected, outputs) = if transposed { (columns, rows) } else { (rows, columns) };
    assert_eq!((inputs, bias.shape.as_slice()), (expected, [outputs].as_slice()));
    let mut out = Array::zeros(&[n, outputs]);
    for (i, value) in out.values.iter_mut().enumerate() {
        let (image, output) = (i / outputs, i % outputs);
        let at = |input: usize| if transposed { output * columns + input } else { input * columns + output };
        let products = (0..inputs).map(|i| x.values[image * inputs + i] * weight.values[at(i)]);
        *value = bias.values[output] + products.sum::<f64>();
    }
    out
}

/// Computes a graph node by node, in file order.
pub fn run(graph: &GraphProto, image: Array) -> Array {
    let initializers = graph.initializer.iter().map(|t| (t.name(), Array::of_tensor(t)));
    let mut values: HashMap<&str, Array> = initializers.collect();
    values.insert(graph.input[0].name(), image);
    for node in &graph.node {
        let input = |name: &String| values.get(name.as_str()).unwrap_or_else(|| panic!("{name} is missing"));
        let inputs: Vec<&Array> = node.input.iter().map(input).collect();
        let result = compute(node, &inputs);
        assert!(values.insert(&node.output[0], result).is_none(), "{} is computed twice", node.output[0]);
    }
    values.remove(graph.output[0].name()).unwrap()
}
