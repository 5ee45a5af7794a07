"""Compares `vgg evaluate` on natural images with the test protocols of section 3.2 in PyTorch and Pillow.

Shares only the weights file with vgg, and writes no fixtures. Needs numpy, torch, Pillow, safetensors, and the vgg
binary.

Run: python3 protocols_check.py path/to/vgg WEIGHTS FOLDER_OF_IMAGES [SIDES] [IMAGES]

Takes IMAGES images (default 20) of the folder, stores them as PNG, evaluates them with the dense, multi-crop and
combined protocols over all SIDES (default 256,288), and compares
- the resized pixels and every crop with this script's, which must be identical;
- the dense posteriors with this script's on pixels resized by Pillow;
- the posteriors of all protocols with this script's on vgg's pixels.
Also checks that common mistakes in a protocol change the posteriors by much more than rounding does.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from hashed import conv_layers
from resize import agreement, resized

torch.set_grad_enabled(False)


class Reference:
    """A fully convolutional network with the weights of a vgg weights file."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            meta = file.metadata()
            self.weights = {name: file.get_tensor(name) for name in file.keys()}
        read = lambda key: json.loads(meta[key])
        self.config, self.crop, self.classes = read("config"), read("crop"), read("classes")
        self.mean = np.array(read("mean_rgb"), dtype=np.float32)
        self.scale = np.float32(read("pixel_scale")) / np.array(read("std_rgb"), dtype=np.float32)

    def score_map(self, x, ceil=False):
        layers = conv_layers(self.config)
        for i, (name, block, kernel) in enumerate(layers):
            x = F.relu(F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], padding=kernel // 2))
            if i + 1 == len(layers) or layers[i + 1][1] != block:
                x = F.max_pool2d(x, 2, 2, ceil_mode=ceil)
        side = self.crop // 32
        fc6 = self.weights["fc6.weight"]
        x = F.relu(F.conv2d(x, fc6.reshape(fc6.shape[0], -1, side, side), self.weights["fc6.bias"]))
        for name, relu in [("fc7", True), ("fc8", False)]:
            x = F.conv2d(x, self.weights[f"{name}.weight"][:, :, None, None], self.weights[f"{name}.bias"])
            x = F.relu(x) if relu else x
        return x

    def input(self, images):
        x = (np.stack(images).astype(np.float32) - self.mean) * self.scale
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))

    def scores(self, images, ceil=False):
        """Spatial mean of the score maps; all images have one size."""
        return torch.cat([self.score_map(self.input(images[i : i + 10]), ceil).double().mean((2, 3)) for i in range(0, len(images), 10)])

    def posteriors(self, images, **options):
        return F.softmax(self.scores(images, **options), 1).numpy()


def mirrored(image):
    return image[:, ::-1]


def scaled_size(h, w, side):
    """Height and width whose smaller side is `side`; the other is rounded to the nearest integer."""
    short, long = min(h, w), max(h, w)
    other = (2 * long * side + short) // (2 * short)
    return (side, other) if h <= w else (other, side)


def rescaled(image, side):
    return resized(np.asarray(image), scaled_size(image.height, image.width, side), "bilinear")


def pillow(image, side):
    h, w = scaled_size(image.height, image.width, side)
    return np.asarray(image.resize((w, h), Image.BILINEAR))


def grid(whole, crop, shift=0):
    places = [[min(int(np.floor(k * (s - crop) / 4 + 0.5)) + shift * (k < 4), s - crop) for k in range(5)] for s in whole.shape[:2]]
    return [whole[top : top + crop, left : left + crop] for top in places[0] for left in places[1]]


def dense(net, wholes, flip=True, wrong=None):
    """Dense posterior of an image from its resized versions."""
    if wrong == "logits averaged over scales":
        scores = [net.scores([w, mirrored(w)]).mean(0) for w in wholes]
        return F.softmax(torch.stack(scores).mean(0), 0).numpy()
    if wrong == "softmax before the mean":
        maps = [F.softmax(net.score_map(net.input([w, mirrored(w)])).double(), 1).mean((0, 2, 3)) for w in wholes]
        return torch.stack(maps).mean(0).numpy()
    views = [[w, mirrored(w)] if flip else [w] for w in wholes]
    return np.mean([net.posteriors(v, ceil=wrong == "pooling rounds up").mean(0) for v in views], axis=0)


def crops(net, wholes, shift=0):
    views = [c for w in wholes for c in grid(w, net.crop, shift)]
    return net.posteriors([v for c in views for v in (c, mirrored(c))]).mean(0)


class Program:
    def __init__(self, vgg, weights, folder):
        self.vgg, self.weights, self.folder = Path(vgg).resolve(), Path(weights).resolve(), folder

    def evaluate(self, dataset, protocol, sides, *more):
        out = self.folder / f"{dataset}-{protocol}.safetensors"
        args = ["evaluate", "--weights", self.weights, "--dataset", self.folder / dataset, "--protocol", protocol,
                "--test-scales", ",".join(map(str, sides)), "--posteriors", out, "--device", "cpu", *more]
        subprocess.run([self.vgg, *map(str, args)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with safe_open(out, "np") as file:
            return file.get_tensor("posteriors"), json.loads(file.metadata()["paths"])


def make_set(folder, name, images, classes):
    for i in range(max(len(classes), len(images))):
        for split in ["train", "val"]:
            place = folder / name / split / classes[i % len(classes)]
            place.mkdir(parents=True, exist_ok=True)
            if i < len(images) or split == "train":
                images[i % len(images)].save(place / f"{i:03}.png")
            elif not any(place.iterdir()):
                images[0].save(place / "extra.png")


def crop_differences(folder, crop, wholes):
    """Largest pixel difference between each of vgg's crops, flipped or not, and this script's."""
    apart = []
    for entry in json.loads((folder / "views.json").read_text()):
        view = entry["view"]
        place, whole = view["region"]["grid"], wholes[entry["image"], view["test_scale"]]
        expected = grid(whole, crop)[place["row"] * 5 + place["column"]]
        expected = mirrored(expected) if view["flip"] else expected
        apart.append(np.abs(np.asarray(Image.open(folder / entry["file"])).astype(int) - expected).max())
    return apart


def report(what, differences, limit, at_least=False):
    value = np.max(differences)
    good = value >= limit if at_least else value <= limit
    print(f"{'ok    ' if good else 'FAILED'} {what}: {value:.2e} ({'at least' if at_least else 'at most'} {limit:.0e})", flush=True)
    return bool(good)


def main():
    vgg, weights, source = sys.argv[1:4]
    sides = [int(s) for s in (sys.argv[4] if len(sys.argv) > 4 else "256,288").split(",")]
    count = int(sys.argv[5]) if len(sys.argv) > 5 else 20
    net = Reference(weights)
    files = sorted(p for p in Path(source).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    large = [p for p in files if min(Image.open(p).size) >= 200]
    images = [Image.open(p).convert("RGB") for p in large[:: max(1, len(large) // count)][:count]]
    good = True
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_set(folder, "natural", images, net.classes)
        program = Program(vgg, weights, folder)
        ours, views = {}, folder / "views"
        for protocol, more in [("dense", ["--dump-views", views]), ("multi-crop", ["--dump-views", folder / "crops"]), ("combined", [])]:
            ours[protocol], paths = program.evaluate("natural", protocol, sides, *more)
        at = [int(Path(p).stem) if Path(p).stem != "extra" else None for p in paths]
        rows = [(row, i) for row, i in enumerate(at) if i is not None]
        top = np.median(ours["dense"].max(1))
        print(f"config {net.config}, {len(rows)} images, Q = {sides}: median of the largest posterior {top:.2f}")

        dumped = {}
        for entry in json.loads((views / "views.json").read_text()):
            if not entry["view"]["flip"]:
                dumped[entry["image"], entry["view"]["test_scale"]] = np.asarray(Image.open(views / entry["file"]))
        pixels = [np.abs(dumped[paths[row], side].astype(int) - rescaled(images[i], side)).max() for row, i in rows for side in sides]
        good &= report("resized pixels, difference in levels", pixels, 0)
        agreement()
        by_pillow = [dense(net, [pillow(images[i], side) for side in sides]) for _, i in rows]
        good &= report("dense, pixels resized by Pillow", np.abs(ours["dense"][[row for row, _ in rows]] - np.stack(by_pillow)), 1e-2)

        good &= report("crops, difference in levels", crop_differences(folder / "crops", net.crop, dumped), 0)

        theirs = {"dense": [], "multi-crop": [], "combined": []}
        for row, _ in rows:
            wholes = [dumped[paths[row], side] for side in sides]
            theirs["dense"].append(dense(net, wholes))
            theirs["multi-crop"].append(crops(net, wholes))
            theirs["combined"].append((theirs["dense"][-1] + theirs["multi-crop"][-1]) / 2)
        own = [row for row, _ in rows]
        for protocol, expected in theirs.items():
            apart, expected = np.abs(ours[protocol][own] - np.stack(expected)), np.stack(expected)
            good &= report(f"{protocol}, pixels resized by vgg", apart, 1e-4)
            same = np.sum(ours[protocol][own].argmax(1) == expected.argmax(1))
            print(f"       median {np.median(apart.max(1)):.2e}; the same top-1 class for {same} of {len(own)} images")
            good &= bool(same == len(own))

        for wrong in ["no flip", "softmax before the mean", "pooling rounds up", "logits averaged over scales"]:
            found = []
            for row, _ in rows:
                wholes = [dumped[paths[row], side] for side in sides]
                found.append(dense(net, wholes, flip=wrong != "no flip", wrong=wrong))
            good &= report(f"mistake detected: {wrong}", np.abs(ours["dense"][own] - np.stack(found)), 1e-3, at_least=True)
        shifted = []
        for row, _ in rows[:4]:
            shifted.append(crops(net, [dumped[paths[row], side] for side in sides], shift=1))
        good &= report("mistake detected: grid off by one", np.abs(ours["multi-crop"][own][:4] - np.stack(shifted)), 1e-3, at_least=True)
    print("ok" if good else "FAILED")
    sys.exit(not good)


main()
