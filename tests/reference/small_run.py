"""A complete training run in NumPy and PyTorch (float64), written from the documentation, not from the Rust code.

`training_runs.py` and `loader_batches.py` import this library. It covers the sample order, scale jitter, crop, flip,
PCA jitter, initial weights, dropout, SGD, schedules, frozen layers, and validation on the centre crop.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from hashed import conv_layers, fmix32, tensor
from keyed import AUGMENT, DataStream, WeightStream, dropout_mask, permutation
from resize import resized

CLASSES, TRAIN_PER_CLASS, VAL_PER_CLASS = 7, 2, 2
SIZES = [(40, 52), (61, 40), (48, 48), (75, 44), (44, 90)]
TORCHVISION = dict(mean=[0.485 * 255, 0.456 * 255, 0.406 * 255], scale=1 / 255, std=[0.229, 0.224, 0.225])


def f32(x):
    """Rounds an array or a number to float32."""
    rounded = np.asarray(x, dtype=np.float32).astype(np.float64)
    return rounded if rounded.ndim else float(rounded)


def picture(number, label):
    """[H,W,3] u8: a ramp that depends on the class, plus hashed noise."""
    h, w = SIZES[number % 5]
    y, x, c = np.mgrid[0:h, 0:w, 0:3]
    ramp = (x * (label + 1) + y * (7 - label) + c * 40 + label * 31) % 256
    noise = fmix32(number * 100000 + y * 1000 + x * 4 + c) >> 26
    return (ramp * 3 // 4 + noise).astype(np.uint8)


def split(first, per_class):
    """(image, label) pairs in the order of sorted paths."""
    return [(picture(first + k * per_class + i, k), k) for k in range(CLASSES) for i in range(per_class)]


def train_images():
    return split(0, TRAIN_PER_CLASS)


def val_images():
    return split(100, VAL_PER_CLASS)


def scaled_size(h, w, side):
    long = lambda a, b: (2 * a * side + b) // (2 * b)
    return (side, long(w, h)) if h <= w else (long(h, w), side)


def statistics(images):
    """Mean and population covariance of all pixels, float64."""
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    return pixels.mean(0), np.cov(pixels.T, bias=True)


def components(covariance):
    """Eigenvalues in descending order, and eigenvectors as rows; the largest component of each is positive."""
    values, vectors = np.linalg.eigh(covariance)
    rows = vectors.T[::-1]
    rows = [row * np.sign(row[np.argmax(np.abs(row))]) for row in rows]
    return values[::-1], np.array(rows)


def augmented(image, sample, epoch, s, covariance):
    """The crop of a training image, and its PCA jitter."""
    stream = DataStream(s["seed"], epoch, sample, AUGMENT)
    side = stream.between(*s["train_scale"])
    h, w = scaled_size(*image.shape[:2], side)
    top, left = stream.between(0, h - s["crop"]), stream.between(0, w - s["crop"])
    flip = s["flip"] and stream.coin()
    crop = resized(image, (h, w), s["interpolation"], (top, left), (s["crop"], s["crop"]))
    shift = np.zeros(3)
    if s["colour_std"] > 0:
        # Krizhevsky et al. (2012) define the shift for pixels in 0..1: here it is 255 * (value / 255**2).
        values, vectors = components(covariance)
        for value, vector in zip(values, vectors):
            shift += vector * (value / 255) * s["colour_std"] * stream.normal()
    return (crop[:, ::-1] if flip else crop), shift


def widths(s):
    return [8 * max(1, math.floor(f * s["width"] / 8 + 0.5)) for f in (64, 128, 256, 512, 512)]


def shapes(s):
    """Weight shape of each layer."""
    result, inputs = {}, 3
    for name, block, kernel in conv_layers(s["config"]):
        result[name] = (widths(s)[block], inputs, kernel, kernel)
        inputs = widths(s)[block]
    inputs *= (s["crop"] // 32) ** 2
    for name, outputs in zip(("fc6", "fc7", "fc8"), (*s["head"], CLASSES)):
        result[name] = (outputs, inputs)
        inputs = outputs
    return result


def initial(name, shape, scheme, seed):
    count, fan_in = math.prod(shape), math.prod(shape[1:])
    fan_out = shape[0] * math.prod(shape[2:])
    stream = WeightStream(seed, name)
    if scheme == "glorot-uniform":
        bound = math.sqrt(6 / (fan_in + fan_out))
        values = np.array([(2 * stream.unit() - 1) * bound for _ in range(count)])
    else:
        std = {
            "paper-variance": 0.1,
            "gaussian-0.01": 0.01,
            "glorot-normal": math.sqrt(2 / (fan_in + fan_out)),
            "he": math.sqrt(2 / fan_in),
            "he-fan-out": math.sqrt(2 / fan_out) if len(shape) == 4 else 0.01,
        }[scheme]
        values = std * stream.normals(count)
    return f32(values).reshape(shape)


def initial_weights(s):
    weights = {}
    for layer, shape in shapes(s).items():
        weights[f"{layer}.weight"] = initial(layer, shape, s["scheme"], s["seed"])
        weights[f"{layer}.bias"] = np.zeros(shape[0])
        if layer in s["copied"]:
            for name, of in ((f"{layer}.weight", shape), (f"{layer}.bias", shape[:1])):
                weights[name] = f32(tensor(name, of))
    return {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}


def lrn(a, style, k=2.0, n=5, alpha=1e-4, beta=0.75):
    squares = F.pad(a * a, (0, 0, 0, 0, n // 2, n // 2))
    total = sum(squares[:, j : j + a.shape[1]] for j in range(n))
    return a / (k + (alpha if style == "alexnet" else alpha / n) * total) ** beta


def forward(w, x, s, masks=None):
    layers = conv_layers(s["config"])
    for i, (name, block, kernel) in enumerate(layers):
        x = F.relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=kernel // 2))
        if s["config"] == "A-LRN" and name == "conv1_1":
            x = lrn(x, s["lrn_style"])
        if i + 1 == len(layers) or layers[i + 1][1] != block:
            x = F.max_pool2d(x, 2)
    x = x.flatten(1)
    for i, name in enumerate(("fc6", "fc7")):
        x = F.relu(F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"]))
        if masks is not None:
            x = x * masks[i]
    return F.linear(x, w["fc8.weight"], w["fc8.bias"])


def pixels_of(s, mean, covariance):
    """Mean and scale of each channel."""
    if s["pixel_scale"] in ("torchvision", "inherit"):
        p = TORCHVISION if s["pixel_scale"] == "torchvision" else s["start_pixels"]
        return f32(p["mean"]), f32(p["scale"]) / f32(p["std"])
    scale = 1 / math.sqrt(np.trace(covariance) / 3) if s["pixel_scale"] == "unit-variance" else s["pixel_scale"]
    return f32(mean), f32([scale] * 3)


def input_of(crops, offsets, factor):
    x = (np.stack(crops).astype(np.float64) + np.stack(offsets)[:, None, None]) * factor
    return torch.tensor(x.transpose(0, 3, 1, 2).copy())


def wrong(scores, labels, k):
    """The number of top-k errors; a label that ties for the k-th place counts as wrong."""
    return sum(int((row >= row[label]).sum() - 1 >= k) for row, label in zip(scores, labels))


def validate(w, s, images, mean, factor):
    crops, labels = [], []
    for image, label in images:
        whole = scaled_size(*image.shape[:2], s["test_scale"])
        offset = tuple((side - s["crop"]) // 2 for side in whole)
        crops.append(resized(image, whole, s["interpolation"], offset, (s["crop"], s["crop"])))
        labels.append(label)
    with torch.no_grad():
        posteriors = F.softmax(forward(w, input_of(crops, [-mean] * len(crops), factor), s), 1).numpy()
    n = len(labels)
    loss = -sum(math.log(row[label]) for row, label in zip(posteriors, labels)) / n
    return wrong(posteriors, labels, 1) / n, wrong(posteriors, labels, 5) / n, loss


class Schedule:
    def __init__(self, s):
        self.s, self.drops, self.best, self.waited, self.stop = s, 0, None, 0, False

    def rate(self, epoch):
        s = self.s
        if s["kind"] == "constant":
            return s["lr"]
        if s["kind"] == "steps":
            return s["lr"] * s["gamma"] ** sum(epoch >= milestone for milestone in s["milestones"])
        return s["lr"] * s["factor"] ** self.drops

    def validated(self, error, epochs):
        s = self.s
        if s["kind"] != "plateau":
            return
        if self.best is None or error < self.best - s["threshold"]:
            self.best, self.waited = error, 0
            return
        self.waited += epochs
        if self.waited >= s["patience"]:
            self.waited = 0
            if self.drops < s["max_reductions"]:
                self.drops += 1
            else:
                self.stop = s["on_exhausted"] == "stop"


def train(s, log=None):
    """Metrics of every epoch, and the final weights."""
    images, val = train_images(), val_images()
    bad = set(s["bad_train"])
    mean, covariance = statistics([image for i, (image, _) in enumerate(images) if i not in bad])
    offset, factor = pixels_of(s, mean, covariance)
    w = initial_weights(s)
    layers = list(shapes(s))
    trainable = [n for n in w if s["train_layers"] is None or n.split(".")[0] in s["train_layers"]]
    velocity = {name: torch.zeros_like(w[name]) for name in trainable}
    schedule, step, rows = Schedule(s), 0, []
    for epoch in range(s["max_epochs"]):
        rate = f32(schedule.rate(epoch))
        order = permutation(s["seed"], epoch, len(images))
        losses, mistakes, seen, skipped = 0.0, 0, 0, 0
        for first in range(0, len(order), s["batch"]):
            ids = order[first : first + s["batch"]]
            skipped += sum(i in bad for i in ids)
            ids = [i for i in ids if i not in bad]
            if not ids:
                continue
            made = [augmented(images[i][0], i, epoch, s, covariance) for i in ids]
            x = input_of([crop for crop, _ in made], [shift - offset for _, shift in made], factor)
            labels = torch.tensor([images[i][1] for i in ids])
            masks = [
                torch.tensor(np.stack([dropout_mask(s["seed"], step, layer, i, size, s["dropout"]) for i in range(len(ids))]))
                for layer, size in enumerate(s["head"])
            ]
            logits = forward(w, x, s, masks)
            each = F.cross_entropy(logits, labels, reduction="none")
            for p in w.values():
                p.grad = None
            each.mean().backward()
            if log is not None:
                log(step, logits.detach(), w)
            losses += each.sum().item()
            mistakes += wrong(logits.detach().numpy(), labels.tolist(), 1)
            seen += len(ids)
            with torch.no_grad():
                for name in trainable:
                    bias = name.endswith(".bias")
                    lr = rate * f32(s["bias_lr_mult"]) if bias else rate
                    decay = 0.0 if bias and not s["decay_biases"] else f32(s["weight_decay"])
                    g = w[name].grad + decay * w[name]
                    if s["momentum_variant"] == "caffe":
                        velocity[name] = f32(s["momentum"]) * velocity[name] + lr * g
                        w[name] -= velocity[name]
                    else:
                        velocity[name] = f32(s["momentum"]) * velocity[name] + g
                        w[name] -= lr * velocity[name]
            step += 1
        row = dict(epoch=epoch + 1, step=step, lr=schedule.rate(epoch), train_loss=losses / seen,
                   train_top1_error=mistakes / seen, val_top1_error=None, val_top5_error=None, val_loss=None, skipped=skipped)
        if (epoch + 1) % s["every_epochs"] == 0 or epoch + 1 == s["max_epochs"]:
            kept = [pair for i, pair in enumerate(val) if i not in s["bad_val"]]
            row["val_top1_error"], row["val_top5_error"], row["val_loss"] = validate(w, s, kept, offset, factor)
            schedule.validated(row["val_top1_error"], epoch % s["every_epochs"] + 1)
        rows.append(row)
        if schedule.stop:
            break
    assert layers
    return rows, {name: value.detach().numpy() for name, value in w.items()}
