"""One of our peers, ready to be timed: for every line on standard input it takes one sample and prints the milliseconds.

    peer.py ENGINE MODE CONFIG BATCH THREADS WIDTH CROP

ENGINE: torch, onnxruntime or openvino, in f32; torch-bf16 (autocast); or openvino-default, which computes in bf16 where
the processor has instructions for it. MODE: infer, train (a whole step; torch only) or dense (a 512 x 384 image and its
mirror image; not onnxruntime). Weights are random: only the time counts.
"""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BLOCKS = {
    "A": [1, 1, 2, 2, 2],
    "B": [2, 2, 2, 2, 2],
    "D": [2, 2, 3, 3, 3],
    "E": [2, 2, 4, 4, 4],
}
WIDTHS = [64, 128, 256, 512, 512]


def channels(config, width):
    """Inputs and outputs of every convolution, and whether pooling follows."""
    inputs = 3
    for block, count in enumerate(BLOCKS[config]):
        outputs = int(WIDTHS[block] * width)
        for i in range(count):
            yield inputs, outputs, i + 1 == count
            inputs = outputs


def torch_network(config, width, crop, dense):
    from torch import nn

    layers, features = [], 0
    for inputs, outputs, pool in channels(config, width):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2, 2)] if pool else []
        features = outputs
    head, side = int(4096 * width), crop // 32
    if dense:
        layers += [nn.Conv2d(features, head, side), nn.ReLU(inplace=True), nn.Conv2d(head, head, 1)]
        return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Conv2d(head, 1000, 1))
    layers += [nn.Flatten(), nn.Linear(features * side * side, head), nn.ReLU(inplace=True), nn.Dropout()]
    layers += [nn.Linear(head, head), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(head, 1000)]
    return nn.Sequential(*layers)


def torch_sample(mode, config, batch, threads, width, crop, bf16):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    precision = lambda: torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
    layout = torch.channels_last
    network = torch_network(config, width, crop, mode == "dense").to(memory_format=layout)
    shape = (2, 3, 384, 512) if mode == "dense" else (batch, 3, crop, crop)
    x = torch.randn(shape).to(memory_format=layout)
    if mode != "train":
        network.eval()

        def infer():
            with torch.inference_mode(), precision():
                network(x)

        return infer
    sgd = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)
    targets = torch.arange(batch) % 1000

    def step():
        sgd.zero_grad(set_to_none=True)
        with precision():
            loss = F.cross_entropy(network(x).float(), targets)
        loss.backward()
        sgd.step()

    return step


def onnx_model(config, width, crop, dense):
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(1)
    nodes, weights, last = [], [], "x"

    def add(op, outputs_shape=None, **attributes):
        nonlocal last
        name = f"{op}{len(nodes)}"
        inputs = [last]
        if outputs_shape is not None:
            fan_in = int(np.prod(outputs_shape[1:]))
            values = {
                "w": (random.standard_normal(outputs_shape) * (2 / fan_in) ** 0.5).astype(np.float32),
                "b": np.zeros(outputs_shape[0], np.float32),
            }
            for part, value in values.items():
                weights.append(numpy_helper.from_array(value, name + part))
                inputs.append(name + part)
        nodes.append(helper.make_node(op, inputs, [name], **attributes))
        last = name

    features = 0
    for inputs, outputs, pool in channels(config, width):
        add("Conv", (outputs, inputs, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        add("Relu")
        if pool:
            add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        features = outputs
    head, side = int(4096 * width), crop // 32
    if not dense:
        add("Flatten")
    for i, (outputs, inputs, kernel) in enumerate([(head, features, side), (head, head, 1), (1000, head, 1)]):
        if dense:
            add("Conv", (outputs, inputs, kernel, kernel), kernel_shape=[kernel, kernel])
        else:
            add("Gemm", (outputs, inputs * kernel**2), transB=1)
        if i < 2:
            add("Relu")
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    image, result = ([384, 512], ["n", 1000, "h", "w"]) if dense else ([crop, crop], ["n", 1000])
    graph = helper.make_graph(nodes, "vgg", [value("x", ["n", 3, *image])], [value(last, result)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def onnx_file(config, width, crop, dense=False):
    """The model's file, written by another process, so that this one's memory is the engine's."""
    path = Path(sys.prefix) / f"vgg-{config}-{width}-{crop}{'-dense' if dense else ''}.onnx"
    if not path.exists():
        arguments = ["write", config, str(width), str(crop), str(int(dense)), path]
        subprocess.run([sys.executable, __file__, *arguments], check=True)
    return str(path)


def write_onnx(config, width, crop, dense, path):
    import onnx

    partial = f"{path}.{os.getpid()}"
    onnx.save(onnx_model(config, width, crop, dense), partial)
    Path(partial).rename(path)


def onnxruntime_sample(config, batch, threads, width, crop):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx_file(config, width, crop), options, ["CPUExecutionProvider"])
    x = np.random.default_rng(2).standard_normal((batch, 3, crop, crop), np.float32)
    return lambda: session.run(None, {"x": x})


def openvino_sample(mode, config, batch, threads, width, crop, f32):
    import openvino

    core = openvino.Core()
    dense = mode == "dense"
    shape = [2, 3, 384, 512] if dense else [batch, 3, crop, crop]
    model = core.read_model(onnx_file(config, width, crop, dense))
    model.reshape(shape)
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if f32:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    x = np.random.default_rng(2).standard_normal(shape, np.float32)
    return lambda: request.infer({0: x})


def main():
    if sys.argv[1] == "write":
        config, width, crop, dense, path = sys.argv[2:]
        return write_onnx(config, float(width), int(crop), dense == "1", path)
    engine, mode, config = sys.argv[1:4]
    batch, threads, width, crop = int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]), int(sys.argv[7])
    if engine.startswith("torch"):
        sample = torch_sample(mode, config, batch, threads, width, crop, engine == "torch-bf16")
    elif engine == "onnxruntime":
        sample = onnxruntime_sample(config, batch, threads, width, crop)
    else:
        sample = openvino_sample(mode, config, batch, threads, width, crop, engine == "openvino")
    sample()
    for _ in sys.stdin:
        start = time.perf_counter()
        sample()
        print(f"{(time.perf_counter() - start) * 1e3:.3f}", flush=True)


main()
