use super::*;

/// A length-delimited field.
fn bytes(field: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(field) << 3 | 2);
    out.extend(varint(contents.len() as u64));
    out.extend(contents);
    out
}

fn number(field: u8, value: u64) -> Vec<u8> {
    [varint(u64::from(field) << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A `TensorProto` of floats 0, 1, 2 and so on, plus `first`.
fn tensor(name: &str, shape: &[usize], first: usize) -> Vec<u8> {
    let values: Vec<u8> =
        (0..shape.iter().product::<usize>()).flat_map(|i| ((first + i) as f32).to_le_bytes()).collect();
    let dims: Vec<u8> = shape.iter().flat_map(|side| number(1, *side as u64)).collect();
    [dims, number(2, 1), bytes(8, name.as_bytes()), bytes(9, &values)].concat()
}

fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, &[u64])]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|input| bytes(1, input.as_bytes()));
    let mut out: Vec<u8> =
        inputs.chain(bytes(2, output.as_bytes())).chain(bytes(4, operator.as_bytes())).collect();
    for (name, values) in attributes {
        // Packed, as protobuf 3 writes them.
        let packed: Vec<u8> = values.iter().flat_map(|value| varint(*value)).collect();
        out.extend(bytes(5, &[bytes(1, name.as_bytes()), bytes(8, &packed)].concat()));
    }
    out
}

fn model(nodes: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let nodes = nodes.iter().flat_map(|node| bytes(1, node));
    let graph: Vec<u8> = nodes.chain(tensors.iter().flat_map(|tensor| bytes(5, tensor))).collect();
    [number(1, 8), bytes(2, b"test"), bytes(7, &graph)].concat()
}

fn open(file: &[u8]) -> Result<OnnxModel> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.onnx");
    std::fs::write(&path, file).unwrap();
    OnnxModel::open(&path)
}

const PADS: (&str, &[u64]) = ("pads", &[1, 1, 1, 1]);
const POOL: [(&str, &[u64]); 2] = [("kernel_shape", &[2, 2]), ("strides", &[2, 2])];

/// Two convolutions with pooling after each, and a head.
fn network(head: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let mut nodes = vec![
        node("Conv", &["image", "a"], "1", &[PADS]),
        node("Relu", &["1"], "2", &[]),
        node("MaxPool", &["2"], "3", &POOL),
        node("Conv", &["3", "b", "b_bias"], "4", &[PADS]),
        node("Relu", &["4"], "4r", &[]),
        node("MaxPool", &["4r"], "5", &POOL),
    ];
    nodes.extend_from_slice(head);
    let convolutions =
        [tensor("a", &[2, 3, 3, 3], 0), tensor("b", &[2, 2, 3, 3], 0), tensor("b_bias", &[2], 7)];
    model(&nodes, &[&convolutions[..], tensors].concat())
}

fn names(model: &OnnxModel) -> Vec<String> {
    model.entries().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn convolutions_are_named_by_the_order_of_the_graph() {
    let mut model = open(&network(&[], &[])).unwrap();
    assert_eq!(names(&model), ["conv1_1.bias", "conv1_1.weight", "conv2_1.bias", "conv2_1.weight"]);
    assert_eq!(model.read("conv2_1.bias").unwrap(), [7.0, 8.0]);
    assert_eq!(model.read("conv1_1.bias").unwrap(), [0.0, 0.0], "a missing bias is zero");
    assert_eq!(model.read("conv1_1.weight").unwrap()[..4], [0.0, 1.0, 2.0, 3.0]);
}

/// fc6 with eight inputs, two channels of a 2 x 2 map, and three outputs; fc7 and fc8.
fn head(operator: &str, bias: bool, attributes: &[(&str, &[u64])], transposed: bool) -> Vec<Vec<u8>> {
    let mut nodes = Vec::new();
    let mut at = "5".to_owned();
    if transposed {
        nodes.push(node("Transpose", &[&at], "t", &[("perm", &[0, 2, 3, 1])]));
        at = "t".into();
    }
    nodes.push(node("Flatten", &[&at], "flat", &[]));
    at = "flat".into();
    for name in ["f6", "f7", "f8"] {
        let of = format!("{name}_bias");
        let mut out = format!("{name}_out");
        if bias {
            nodes.push(node(operator, &[&at, name, &of], &out, attributes));
        } else {
            nodes.push(node(operator, &[&at, name], &out, attributes));
            nodes.push(node("Add", &[&out, &of], &format!("{name}_sum"), &[]));
            out = format!("{name}_sum");
        }
        at = out;
        if name != "f8" {
            nodes.push(node("Relu", &[&at], &format!("{name}_relu"), &[]));
            at = format!("{name}_relu");
        }
    }
    nodes
}

fn head_tensors(transposed: bool) -> Vec<Vec<u8>> {
    let turn = |[a, b]: [usize; 2]| if transposed { [b, a] } else { [a, b] };
    let mut tensors = Vec::new();
    for (name, shape) in [("f6", [3, 8]), ("f7", [3, 3]), ("f8", [2, 3])] {
        tensors.push(tensor(name, &turn(shape), 0));
        tensors.push(tensor(&format!("{name}_bias"), &shape[..1], 50));
    }
    tensors
}

#[test]
fn matrices_of_every_orientation_are_read() {
    // [out, in], inputs in the order C, H, W.
    let rows: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let stored = head("Gemm", true, &[("transB", &[1])], false);
    let mut model = open(&network(&stored, &head_tensors(false))).unwrap();
    assert_eq!(model.read("fc6.weight").unwrap(), rows);
    assert_eq!(model.read("fc8.bias").unwrap(), [50.0, 51.0]);

    // [in, out]: output o has the inputs o, o + 3, o + 6 and so on.
    let column = |o: usize| (0..8).map(move |i| (3 * i + o) as f32);
    let columns: Vec<f32> = (0..3).flat_map(column).collect();
    for nodes in [head("Gemm", true, &[], false), head("MatMul", false, &[], false)] {
        let mut model = open(&network(&nodes, &head_tensors(true))).unwrap();
        assert_eq!(model.entries().iter().find(|e| e.name == "fc6.weight").unwrap().shape, [3, 8]);
        assert_eq!(model.read("fc6.weight").unwrap(), columns);
        assert_eq!(model.read("fc7.bias").unwrap(), [50.0, 51.0, 52.0]);
    }

    // The inputs in the order H, W, C: channel c of cell p is input 2 p + c.
    let mut model = open(&network(&head("MatMul", false, &[], true), &head_tensors(true))).unwrap();
    let expected: Vec<f32> =
        (0..3).flat_map(|o| (0..8).map(move |i| (3 * (2 * (i % 4) + i / 4) + o) as f32)).collect();
    assert_eq!(model.read("fc6.weight").unwrap(), expected);
    assert_eq!(model.read("fc7.weight").unwrap(), [0.0, 3.0, 6.0, 1.0, 4.0, 7.0, 2.0, 5.0, 8.0]);
}

#[test]
fn convolutional_heads_are_matrices() {
    // timm averages before the last layer, which is a matrix.
    let last = [
        (vec![node("Conv", &["7r", "f8"], "8", &[])], tensor("f8", &[2, 3, 1, 1], 0)),
        (
            vec![
                node("GlobalAveragePool", &["7r"], "g", &[]),
                node("Flatten", &["g"], "flat", &[]),
                node("Gemm", &["flat", "f8"], "8", &[("transB", &[1])]),
            ],
            tensor("f8", &[2, 3], 0),
        ),
    ];
    for (nodes, f8) in last {
        let first = [
            node("Conv", &["5", "f6"], "6", &[]),
            node("Relu", &["6"], "6r", &[]),
            node("Conv", &["6r", "f7"], "7", &[]),
            node("Relu", &["7"], "7r", &[]),
        ];
        let tensors = [tensor("f6", &[3, 2, 2, 2], 0), tensor("f7", &[3, 3, 1, 1], 0), f8];
        let model = open(&network(&[&first[..], &nodes].concat(), &tensors)).unwrap();
        let shape = |name: &str| model.entries().into_iter().find(|entry| entry.name == name).unwrap().shape;
        assert_eq!(
            (shape("fc6.weight"), shape("fc8.weight"), shape("fc8.bias")),
            (vec![3, 8], vec![2, 3], vec![2])
        );
    }
}

#[test]
fn other_heads_are_left_out() {
    let two = &head("Gemm", true, &[("transB", &[1])], false)[..4];
    assert_eq!(names(&open(&network(two, &head_tensors(false))).unwrap()).len(), 4);
    let unfit = [tensor("f6", &[3, 9], 0), tensor("f7", &[3, 3], 0), tensor("f8", &[2, 3], 0)];
    let gemm = head("Gemm", true, &[("transB", &[1])], false);
    assert_eq!(names(&open(&network(&gemm, &unfit)).unwrap()).len(), 4);
}

#[test]
fn constants_and_copies_are_followed() {
    let constant = bytes(5, &[bytes(1, b"value"), bytes(5, &tensor("", &[1, 3, 3, 3], 5))].concat());
    let nodes = [
        [node("Constant", &[], "c", &[]), constant].concat(),
        node("Identity", &["c"], "copy", &[]),
        node("Conv", &["image", "copy"], "1", &[PADS]),
        node("Relu", &["1"], "2", &[]),
    ];
    let mut found = open(&model(&nodes, &[])).unwrap();
    assert_eq!(found.read("conv1_1.weight").unwrap()[..2], [5.0, 6.0]);
    // An identity of itself ends.
    let nodes = [node("Identity", &["c"], "c", &[]), node("Conv", &["image", "c"], "1", &[PADS])];
    let message = open(&model(&nodes, &[])).err().unwrap().to_string();
    assert!(message.contains("the weight of a convolution is not a constant"), "{message}");
}

/// Other networks have other operations, or other settings of the same.
#[test]
fn other_networks_are_refused() {
    let a = || vec![tensor("a", &[2, 3, 3, 3], 0)];
    let conv = |attributes: &[(&str, &[u64])]| node("Conv", &["image", "a"], "1", attributes);
    let relu = || node("Relu", &["1"], "2", &[]);
    let settings = "a convolution has a stride, a dilation, groups or another padding";
    for (nodes, words) in [
        (vec![conv(&[PADS, ("strides", &[2, 2])]), relu()], settings),
        (vec![conv(&[("pads", &[2; 4]), ("dilations", &[2, 2])]), relu()], settings),
        (vec![conv(&[PADS, ("group", &[3])]), relu()], settings),
        (vec![conv(&[]), relu()], settings),
        (vec![conv(&[PADS]), node("Sigmoid", &["1"], "2", &[])], "not followed by a ReLU"),
        (
            vec![
                conv(&[PADS]),
                relu(),
                node("Sigmoid", &["2"], "3", &[]),
                node("Conv", &["3", "a"], "4", &[PADS]),
            ],
            "it has the operation Sigmoid",
        ),
        (vec![conv(&[PADS]), node("MaxPool", &["1"], "2", &POOL)], "not followed by a ReLU"),
        (
            vec![conv(&[PADS]), relu(), node("MaxPool", &["2"], "3", &[POOL[1], ("kernel_shape", &[3, 3])])],
            "not over 2 x 2",
        ),
        (
            vec![
                conv(&[PADS]),
                relu(),
                node("Add", &["2", "image"], "3", &[]),
                node("Conv", &["3", "a"], "4", &[PADS]),
            ],
            "it has the operation Add",
        ),
        (vec![conv(&[PADS]), relu(), node("Conv", &["image", "a"], "3", &[PADS])], "not part of one chain"),
        (
            vec![node("Sub", &["pixels", "mean"], "image", &[]), conv(&[PADS]), relu()],
            "it normalises pixels by the operation Sub",
        ),
    ] {
        let message = open(&model(&nodes, &a())).err().unwrap_or_else(|| panic!("{words}")).to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn invalid_models_are_refused() {
    let conv = || vec![node("Conv", &["image", "a"], "1", &[PADS]), node("Relu", &["1"], "2", &[])];
    let a = || tensor("a", &[2, 3, 3, 3], 0);
    let norm = [conv(), vec![node("BatchNormalization", &["1"], "2", &[])]].concat();
    let short = [number(1, 2), number(1, 3), number(2, 1), bytes(8, b"a"), bytes(9, &[0; 20])].concat();
    let huge = [number(1, u64::MAX), number(1, u64::MAX), number(2, 1), bytes(8, b"a")].concat();
    let long: Vec<u8> = (0..20).flat_map(|_| number(1, 1)).collect();
    let external = [tensor("a", &[2, 3, 3, 3], 0), number(14, 1)].concat();
    for (file, words) in [
        (model(&norm, &[a()]), "export the network in evaluation mode"),
        (model(&conv(), &[short]), "the tensor a of shape [2, 3] has 20 bytes"),
        (model(&conv(), &[huge]), "has 0 bytes"),
        (model(&conv(), &[long]), "the shape of a tensor is invalid"),
        (model(&conv(), &[external]), "its tensors are in another file"),
        (model(&[], &[]), "it has no convolutions"),
        (model(&conv(), &[]), "the weight of a convolution is not a constant"),
    ] {
        let message = open(&file).err().unwrap().to_string();
        assert!(message.contains(words), "{message}");
    }
    let whole = network(&head("Gemm", true, &[("transB", &[1])], false), &head_tensors(false));
    for length in 3..whole.len() {
        assert!(open(&whole[..length]).is_err(), "{length} bytes");
    }
}
