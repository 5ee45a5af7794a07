"""Posteriors of a small net D by dense, centre-crop and multi-crop evaluation, in PyTorch (float64).

Writes fixtures/dense_posteriors.json. Needs numpy and torch 1.13 or newer. The images already have the test scale,
so no resizing is involved.
"""

import numpy as np
import torch
import torch.nn.functional as F

from hashed import FIXTURES, conv_layers, tensor, unit, write_json

CROP, CLASSES, HEAD = 64, 10, 16
WIDTHS = [8, 8, 16, 32, 32]  # 64, 128, 256, 512, 512 at width 1/16, at least 8
SIZES = [(104, 136), (120, 104), (104, 104)]
MEAN, SCALE = [120.0, 110.0, 100.0], 0.02


def pixels(i, h, w):
    values = unit(f"pixels{i}", h * w * 3)
    return np.floor((values + np.float32(1)) * np.float32(128)).astype(np.uint8).reshape(h, w, 3)


def layer(name, shape, x, conv):
    weight = torch.from_numpy(tensor(f"{name}.weight", shape)).double()
    bias = torch.from_numpy(tensor(f"{name}.bias", (shape[0],))).double()
    return F.conv2d(x, weight.reshape(conv), bias, padding=conv[2] // 2 if name.startswith("conv") else 0)


def score_map(x, ceil):
    channels = 3
    layers = conv_layers("D")
    for i, (name, block, kernel) in enumerate(layers):
        shape = (WIDTHS[block], channels, kernel, kernel)
        x = F.relu(layer(name, shape, x, shape))
        channels = WIDTHS[block]
        if i + 1 == len(layers) or layers[i + 1][1] != block:
            x = F.max_pool2d(x, 2, 2, ceil_mode=ceil)
    side = CROP // 32
    fc6 = (HEAD, channels * side * side)
    x = F.relu(layer("fc6", fc6, x, (HEAD, channels, side, side)))
    x = F.relu(layer("fc7", (HEAD, HEAD), x, (HEAD, HEAD, 1, 1)))
    return layer("fc8", (CLASSES, HEAD), x, (CLASSES, HEAD, 1, 1))


def posterior(image, ceil, pool):
    both = np.stack([image, image[:, ::-1]]).astype(np.float64)
    x = torch.from_numpy((both - MEAN) * SCALE).permute(0, 3, 1, 2)
    scores = score_map(x, ceil)
    if pool == "prob-mean":
        p = F.softmax(scores, 1).mean((2, 3))
    elif pool == "score-sum":
        p = F.softmax(scores.sum((2, 3)), 1)
    else:
        p = F.softmax(scores.mean((2, 3)), 1)
    return p.mean(0).tolist()


def centre(image):
    h, w, _ = image.shape
    top, left = (h - CROP) // 2, (w - CROP) // 2
    return image[top : top + CROP, left : left + CROP]


def grid(image):
    """A 5 x 5 grid of crops; their offsets are k (side - crop) / 4, k = 0..4, with halves rounded up."""
    h, w, _ = image.shape
    places = [[int(np.floor(k * (side - CROP) / 4 + 0.5)) for k in range(5)] for side in (h, w)]
    return [image[top : top + CROP, left : left + CROP] for top in places[0] for left in places[1]]


def multi_crop(image):
    crops = [posterior(crop, False, "score-mean") for crop in grid(image)]
    return np.mean(crops, axis=0).tolist()


def main():
    images = [pixels(i, *size) for i, size in enumerate(SIZES)]
    result = {
        pool: [posterior(image, False, pool) for image in images]
        for pool in ["score-mean", "prob-mean", "score-sum"]
    }
    result["ceil"] = [posterior(image, True, "score-mean") for image in images]
    result["centre"] = [posterior(centre(image), False, "score-mean") for image in images]
    result["multi-crop"] = [multi_crop(image) for image in images]
    both = zip(result["score-mean"], result["multi-crop"])
    result["combined"] = [np.mean(pair, axis=0).tolist() for pair in both]
    write_json(FIXTURES / "dense_posteriors.json", result)


main()
