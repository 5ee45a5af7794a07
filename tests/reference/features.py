"""Image features of a small net D, in PyTorch (float64).

A layer's activations are averaged over positions and horizontal flips, at one scale and at two; two scales are
averaged or concatenated, then L2-normalised.

Writes fixtures/features.json. Needs numpy, Pillow and torch 1.13 or newer.
"""

import numpy as np
import torch
import torch.nn.functional as F

from hashed import FIXTURES, conv_layers, tensor, unit, write_json
from resize import agreement, resized

CROP, HEAD = 64, 16
WIDTHS = [8, 8, 16, 32, 32]
SIZES = [(104, 136), (120, 104), (104, 104)]
MEAN, SCALE = [120.0, 110.0, 100.0], 0.02


def pixels(i, h, w):
    values = unit(f"pixels{i}", h * w * 3)
    return np.floor((values + np.float32(1)) * np.float32(128)).astype(np.uint8).reshape(h, w, 3)


def weights(name, shape):
    read = lambda part, of: torch.from_numpy(tensor(f"{name}.{part}", of)).double()
    return read("weight", shape), read("bias", (shape[0],))


def activations(x):
    """Activations of pool5, fc6 and fc7 (after ReLU) for whole images."""
    channels, layers = 3, conv_layers("D")
    for i, (name, block, kernel) in enumerate(layers):
        weight, bias = weights(name, (WIDTHS[block], channels, kernel, kernel))
        x = F.relu(F.conv2d(x, weight, bias, padding=kernel // 2))
        channels = WIDTHS[block]
        if i + 1 == len(layers) or layers[i + 1][1] != block:
            x = F.max_pool2d(x, 2, 2)
    found, side = {"pool5": x}, CROP // 32
    weight, bias = weights("fc6", (HEAD, channels * side * side))
    found["fc6"] = F.relu(F.conv2d(x, weight.reshape(HEAD, channels, side, side), bias))
    weight, bias = weights("fc7", (HEAD, HEAD))
    found["fc7"] = F.relu(F.conv2d(found["fc6"], weight.reshape(HEAD, HEAD, 1, 1), bias))
    return found


def scaled(image, side):
    h, w, _ = image.shape
    short, long = min(h, w), max(h, w)
    other = (2 * long * side + short) // (2 * short)
    size = (side, other) if h > w else (other, side)  # width, height
    return resized(image, size[::-1], "bilinear")


def descriptor(image, side, layer):
    image = scaled(image, side)
    both = np.stack([image, image[:, ::-1]]).astype(np.float64)
    x = torch.from_numpy((both - MEAN) * SCALE).permute(0, 3, 1, 2)
    return activations(x)[layer].mean((2, 3)).mean(0).numpy()


def unit_length(v):
    return (v / np.linalg.norm(v)).tolist()


def main():
    images = [pixels(i, *size) for i, size in enumerate(SIZES)]
    result = {
        f"{layer}-raw": [descriptor(image, 104, layer).tolist() for image in images]
        for layer in ["pool5", "fc6", "fc7"]
    }
    at = [[descriptor(image, side, "fc7") for side in (80, 104)] for image in images]
    result["fc7-mean"] = [unit_length(np.mean(both, axis=0)) for both in at]
    result["fc7-stack"] = [unit_length(np.concatenate(both)) for both in at]
    agreement()
    write_json(FIXTURES / "features.json", result)


main()
