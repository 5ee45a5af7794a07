"""Weights of a small net A in the formats of five libraries, and its logits by torchvision, timm and Keras.

Writes fixtures/weights/ and fixtures/weights.json. Needs torch, torchvision, timm, safetensors, keras (with KERAS_BACKEND
torch) and Caffe's official schema, caffe.proto, compiled as caffe_pb2 on PYTHONPATH (for example the one in the package
mmdnn, with PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python).

Run: python3 weights.py
"""

import os
import pickle
import struct
import zipfile

os.environ.setdefault("KERAS_BACKEND", "torch")

import caffe_pb2
import keras
import numpy as np
import timm.models.vgg
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file

from hashed import FIXTURES, conv_layers, images, tensor, write_json

CHANNELS, CROP, CLASSES, HEAD = 8, 64, 10, 16
OUT = FIXTURES / "weights"
LAYERS = conv_layers("A")
X = torch.from_numpy(images(1, 2, CROP, CROP)).double()


def params():
    """Weight and bias of each layer, by layer name."""
    result, channels = {}, 3
    for name, _, kernel in LAYERS:
        result[name] = (tensor(f"{name}.weight", (CHANNELS, channels, kernel, kernel)), tensor(f"{name}.bias", (CHANNELS,)))
        channels = CHANNELS
    inputs = CHANNELS * (CROP // 32) ** 2
    for name, outputs in [("fc6", HEAD), ("fc7", HEAD), ("fc8", CLASSES)]:
        result[name] = (tensor(f"{name}.weight", (outputs, inputs)), tensor(f"{name}.bias", (outputs,)))
        inputs = outputs
    return result


PARAMS = params()


def cfg():
    """The layer list in the notation of torchvision and timm."""
    result = []
    for i, (_, block, _) in enumerate(LAYERS):
        result.append(CHANNELS)
        if i + 1 == len(LAYERS) or LAYERS[i + 1][1] != block:
            result.append("M")
    return result


def fill(model, convs, fcs):
    with torch.no_grad():
        for module, (name, _, _) in zip(convs, LAYERS):
            module.weight.copy_(torch.from_numpy(PARAMS[name][0]))
            module.bias.copy_(torch.from_numpy(PARAMS[name][1]))
        for module, name in zip(fcs, ["fc6", "fc7", "fc8"]):
            module.weight.copy_(torch.from_numpy(PARAMS[name][0]).reshape(module.weight.shape))
            module.bias.copy_(torch.from_numpy(PARAMS[name][1]))
    return model.eval()


def torchvision_model(batch_norm):
    features = torchvision.models.vgg.make_layers(cfg(), batch_norm)
    model = torchvision.models.VGG(features, num_classes=CLASSES)
    model.avgpool = torch.nn.AdaptiveAvgPool2d(CROP // 32)
    sizes = [CHANNELS * (CROP // 32) ** 2, HEAD, HEAD, CLASSES]
    for place, (inputs, outputs) in zip([0, 3, 6], zip(sizes, sizes[1:])):
        model.classifier[place] = torch.nn.Linear(inputs, outputs)
    convs = [m for m in features if isinstance(m, torch.nn.Conv2d)]
    fill(model, convs, [model.classifier[i] for i in (0, 3, 6)])
    for i, module in enumerate(m for m in features if isinstance(m, torch.nn.BatchNorm2d)):
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(1 + 0.5 * tensor(f"norm{i}.gamma", (CHANNELS,))))
            module.bias.copy_(torch.from_numpy(tensor(f"norm{i}.beta", (CHANNELS,))))
            module.running_mean.copy_(torch.from_numpy(tensor(f"norm{i}.mean", (CHANNELS,))))
            module.running_var.copy_(torch.from_numpy(1 + 5 * tensor(f"norm{i}.variance", (CHANNELS,))))
    return model


def timm_model():
    model = timm.models.vgg.VGG(cfg(), num_classes=CLASSES)
    model.pre_logits = timm.models.vgg.ConvMlp(CHANNELS, HEAD, CROP // 32)
    model.head.fc = torch.nn.Linear(HEAD, CLASSES)
    convs = [m for m in model.features if isinstance(m, torch.nn.Conv2d)]
    return fill(model, convs, [model.pre_logits.fc1, model.pre_logits.fc2, model.head.fc])


def keras_model():
    """Layer names of keras.applications; fc6's inputs are in H, W, C order, and pixels are BGR."""
    layers = [keras.layers.Input((CROP, CROP, 3))]
    for i, (name, block, kernel) in enumerate(LAYERS):
        of = f"block{block + 1}_conv{name[-1]}"
        layers.append(keras.layers.Conv2D(CHANNELS, kernel, padding="same", activation="relu", name=of))
        if i + 1 == len(LAYERS) or LAYERS[i + 1][1] != block:
            layers.append(keras.layers.MaxPooling2D())
    layers.append(keras.layers.Flatten())
    for name, outputs in [("fc1", HEAD), ("fc2", HEAD), ("predictions", CLASSES)]:
        layers.append(keras.layers.Dense(outputs, activation=None if name == "predictions" else "relu", name=name))
    model = keras.Sequential(layers)
    for name, block, _ in LAYERS:
        weight, bias = PARAMS[name]
        if name == "conv1_1":
            weight = weight[:, ::-1]
        model.get_layer(f"block{block + 1}_conv{name[-1]}").set_weights([weight.transpose(2, 3, 1, 0), bias])
    for name, of in [("fc6", "fc1"), ("fc7", "fc2"), ("fc8", "predictions")]:
        weight, bias = PARAMS[name]
        if name == "fc6":
            side = CROP // 32
            weight = weight.reshape(HEAD, CHANNELS, side, side).transpose(0, 2, 3, 1).reshape(HEAD, -1)
        model.get_layer(of).set_weights([weight.T, bias])
    return model


def caffemodel(old):
    """A Caffe model in the current schema, or in the V1 schema of 2014 if `old`; pixels are BGR."""
    net = caffe_pb2.NetParameter(name="VGG")
    for name, (weight, bias) in PARAMS.items():
        layer = (net.layers if old else net.layer).add()
        layer.name = name
        conv = name.startswith("conv")
        kinds = caffe_pb2.V1LayerParameter
        layer.type = (kinds.CONVOLUTION if conv else kinds.INNER_PRODUCT) if old else ("Convolution" if conv else "InnerProduct")
        layer.bottom.append("data")
        if name == "conv1_1":
            weight = weight[:, ::-1]
        for values in (weight, bias):
            blob = layer.blobs.add()
            blob.data.extend(values.ravel().tolist())
            if old:
                shape = (1,) * (4 - values.ndim) + values.shape
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(values.shape)
    return net.SerializeToString()


def logits(model):
    with torch.no_grad():
        return model.double()(X).tolist()


def evil():
    """A checkpoint whose pickle calls os.system."""

    class Call:
        def __reduce__(self):
            return os.system, ("echo executed > /tmp/vgg-pickle-was-executed",)

    with zipfile.ZipFile(OUT / "evil.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"features.0.weight": Call()}, protocol=2))
        archive.writestr("archive/version", "3\n")


def main():
    OUT.mkdir(exist_ok=True)
    plain, normalised, with_timm = torchvision_model(False), torchvision_model(True), timm_model()
    torch.save(plain.state_dict(), OUT / "torchvision.pth")
    torch.save(plain.state_dict(), OUT / "legacy.pth", _use_new_zipfile_serialization=False)
    half = {name: value.half() for name, value in plain.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": v for n, v in half.items()}}, OUT / "half_parallel.pth")
    last = {n: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for n, v in plain.state_dict().items()}
    torch.save(last, OUT / "channels_last.pth")
    torch.save(normalised.state_dict(), OUT / "torchvision_bn.pth")
    save_file(plain.state_dict(), OUT / "torchvision.safetensors")
    save_file(with_timm.state_dict(), OUT / "timm.safetensors")
    with_keras = keras_model()
    np.savez(OUT / "keras.npz", **{w.path: np.asarray(w) for w in with_keras.weights})
    np.savez_compressed(OUT / "tensorflow.npz", **tensorflow())
    (OUT / "present.caffemodel").write_bytes(caffemodel(False))
    (OUT / "old.caffemodel").write_bytes(caffemodel(True))
    evil()
    bgr = np.ascontiguousarray(X.float().numpy()[:, ::-1].transpose(0, 2, 3, 1))
    result = {
        "torchvision": logits(plain),
        "torchvision_bn": logits(normalised),
        "timm": logits(with_timm),
        "keras": np.asarray(with_keras.predict(bgr, verbose=0), dtype=np.float64).tolist(),
    }
    spread = np.ptp([result["torchvision"], result["timm"], result["keras"]], axis=0).max()
    print(f"the logits of the libraries differ by at most {spread:.1e}")
    assert spread < 1e-5
    write_json(FIXTURES / "weights.json", result)


def tensorflow():
    """Arrays with Caffe's layer names and TensorFlow's axis order; pixels are RGB."""
    result = {}
    for name, (weight, bias) in PARAMS.items():
        if name == "fc6":
            side = CROP // 32
            weight = weight.reshape(HEAD, CHANNELS, side, side).transpose(0, 2, 3, 1).reshape(HEAD, -1)
        result[f"{name}_W"] = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        result[f"{name}_b"] = bias
    return {name: np.ascontiguousarray(value) for name, value in result.items()}


main()
