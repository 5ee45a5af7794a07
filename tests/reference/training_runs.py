"""Metrics and weights of small training runs, each with one setting changed, in PyTorch (float64).

Writes crates/vgg-experiment/tests/fixtures/training_runs.json. The Rust runs must reproduce these metrics and weights;
weights are compared by their projections on four hashed vectors. Asserts that every setting changes its run by much
more than the tolerance of the tests.
Run: /usr/bin/python3 training_runs.py   (about a minute)
"""

import copy

import numpy as np
import torch

from hashed import FIXTURES, unit, write_json
from resize import agreement
from small_run import pixels_of, statistics, train, train_images

BASE = dict(
    config="A", width=1 / 64, head=[18, 14], dropout=0.4, lrn_style="alexnet", scheme="he", copied=[], train_layers=None,
    train_scale=[36, 48], crop=32, interpolation="bilinear", flip=True, colour_std=0.5, pixel_scale="unit-variance",
    momentum_variant="caffe", batch=4, momentum=0.8, weight_decay=0.05, decay_biases=False, bias_lr_mult=2.0,
    kind="steps", lr=0.02, gamma=0.2, milestones=[2], test_scale=40, every_epochs=1, seed=5, max_epochs=3, bad_train=[], bad_val=[],
)
START = dict(mean=[120.0, 110.0, 100.0], scale=0.5, std=[40.0, 30.0, 20.0])
PLATEAU = dict(kind="plateau", lr=0.03, factor=0.5, max_reductions=1, patience=1, threshold=0.0, on_exhausted="stop", max_epochs=8)
HEAD, FOUR = ["fc6", "fc7", "fc8"], ["conv1_1", "conv2_1", "conv3_1", "conv3_2"]
ALL_A = FOUR + ["conv4_1", "conv4_2", "conv5_1", "conv5_2"] + HEAD

# Name: (changes of the base settings here, the same changes as `--set` arguments).
RUNS = {
    "base": ({}, []),
    "network.config": (dict(config="C"), ["network.config=C"]),
    "network.width": (dict(width=1 / 32), ["network.width=0.03125"]),
    "network.head": (dict(head=[9, 20]), ["network.head=[9, 20]"]),
    "network.dropout": (dict(dropout=0.7), ["network.dropout=0.7"]),
    "A-LRN, alexnet": (dict(config="A-LRN", pixel_scale=1.0, lr=2e-4), ["network.config=A-LRN", "data.pixel_scale=1.0", "schedule.lr=2e-4"]),
    "A-LRN, caffe": (
        dict(config="A-LRN", pixel_scale=1.0, lr=2e-4, lrn_style="caffe"),
        ["network.config=A-LRN", "data.pixel_scale=1.0", "schedule.lr=2e-4", "network.lrn_style=caffe"],
    ),
    "he-fan-out": (dict(scheme="he-fan-out"), ["network.init.scheme=he-fan-out"]),
    "glorot-uniform": (dict(scheme="glorot-uniform"), ["network.init.scheme=glorot-uniform"]),
    "glorot-normal": (dict(scheme="glorot-normal"), ["network.init.scheme=glorot-normal"]),
    "gaussian-0.01": (dict(scheme="gaussian-0.01"), ["network.init.scheme=gaussian-0.01"]),
    "paper-variance": (dict(scheme="paper-variance"), ["network.init.scheme=paper-variance"]),
    "layers paper": (
        dict(config="B", copied=FOUR + HEAD, seed=6),
        ["network.config=B", "network.init.from=start.safetensors", "network.init.layers=paper", "run.seed=6"],
    ),
    "layers all": (dict(config="B", copied=ALL_A), ["network.config=B", "network.init.from=start.safetensors", "network.init.layers=all"]),
    "layers list": (dict(copied=["conv4_1", "fc7"]), ["network.init.from=start.safetensors", 'network.init.layers=["conv4_1", "fc7"]']),
    "network.train_layers": (dict(train_layers=["conv5_2", "fc8"]), ['network.train_layers=["conv5_2", "fc8"]']),
    "data.train_scale, fixed": (dict(train_scale=[44, 44]), ["data.train_scale=44"]),
    "data.train_scale, range": (dict(train_scale=[36, 49]), ["data.train_scale=[36, 49]"]),
    "data.crop": (dict(crop=64, train_scale=[64, 66], test_scale=65), ["data.crop=64", "data.train_scale=[64, 66]", "validate.test_scale=65"]),
    "bicubic": (dict(interpolation="bicubic"), ["data.interpolation=bicubic"]),
    "lanczos": (dict(interpolation="lanczos"), ["data.interpolation=lanczos"]),
    "nearest": (dict(interpolation="nearest"), ["data.interpolation=nearest"]),
    "data.flip": (dict(flip=False), ["data.flip=false"]),
    "data.pca_jitter_std, 0": (dict(colour_std=0.0), ["data.pca_jitter_std=0.0"]),
    "data.pca_jitter_std": (dict(colour_std=0.25), ["data.pca_jitter_std=0.25"]),
    "data.pixel_scale": (dict(pixel_scale=0.0125), ["data.pixel_scale=0.0125"]),
    "pixel_scale torchvision": (dict(pixel_scale="torchvision"), ["data.pixel_scale=torchvision"]),
    "pixel_scale inherit": (
        dict(pixel_scale="inherit", start_pixels=START, copied=["fc7"]),
        ["data.pixel_scale=inherit", "network.init.from=start.safetensors", 'network.init.layers=["fc7"]'],
    ),
    "data.on_bad_image": (dict(bad_train=[3], bad_val=[4, 9]), ["data.on_bad_image=skip"]),
    "optimizer.momentum_variant": (dict(momentum_variant="torch"), ["optimizer.momentum_variant=torch"]),
    "optimizer.batch": (dict(batch=5), ["optimizer.batch=5"]),
    "optimizer.momentum": (dict(momentum=0.5), ["optimizer.momentum=0.5"]),
    "optimizer.weight_decay": (dict(weight_decay=0.2), ["optimizer.weight_decay=0.2"]),
    "optimizer.decay_biases": (dict(decay_biases=True, weight_decay=0.5), ["optimizer.decay_biases=true", "optimizer.weight_decay=0.5"]),
    "optimizer.decay_biases, false": (dict(weight_decay=0.5), ["optimizer.weight_decay=0.5"]),
    "optimizer.bias_lr_mult": (dict(bias_lr_mult=0.5), ["optimizer.bias_lr_mult=0.5"]),
    "constant": (dict(kind="constant"), []),
    "schedule.lr": (dict(lr=0.01), ["schedule.lr=0.01"]),
    "schedule.gamma": (dict(gamma=0.5), ["schedule.gamma=0.5"]),
    "schedule.milestones": (dict(milestones=[1, 2]), ["schedule.milestones=[1, 2]"]),
    "plateau": (PLATEAU, []),
    "plateau, patience": (dict(PLATEAU, patience=2), []),
    "plateau, threshold": (dict(PLATEAU, threshold=0.2), []),
    "plateau, max_reductions": (dict(PLATEAU, max_reductions=3), []),
    "plateau, continue": (dict(PLATEAU, on_exhausted="continue"), []),
    "plateau, every 2": (dict(PLATEAU, every_epochs=2, max_epochs=7, patience=2), []),
    "validate.test_scale": (dict(test_scale=37), ["validate.test_scale=37"]),
    "validate.every_epochs": (dict(every_epochs=2), ["validate.every_epochs=2"]),
    "run.seed": (dict(seed=6), ["run.seed=6"]),
    "run.max_epochs": (dict(max_epochs=2, milestones=[1]), ["run.max_epochs=2", "schedule.milestones=[1]"]),
}


def schedule(s):
    """The schedule as a line of the recipe, because `--set` cannot change its kind."""
    if s["kind"] == "constant":
        return f'{{ kind = "constant", lr = {s["lr"]} }}'
    if s["kind"] == "steps":
        return f'{{ kind = "steps", lr = {BASE["lr"]}, gamma = {BASE["gamma"]}, milestones = {BASE["milestones"]} }}'
    limits = f'max_reductions = {s["max_reductions"]}, patience = {s["patience"]}, threshold = {s["threshold"]}'
    return f'{{ kind = "plateau", lr = {s["lr"]}, factor = {s["factor"]}, {limits}, on_exhausted = "{s["on_exhausted"]}" }}'


def pixels(s):
    """Expected values in the weights file: mean, and pixel_scale / std, of R, G and B."""
    images = [image for i, (image, _) in enumerate(train_images()) if i not in s["bad_train"]]
    mean, factor = pixels_of(s, *statistics(images))
    return dict(mean=mean.tolist(), factor=factor.tolist())


def projections(weights):
    """Euclidean norm of each parameter, and its dot products with four hashed vectors."""
    result = {}
    for name, value in weights.items():
        flat = value.ravel()
        vectors = [unit(f"projection{i}", flat.size).astype(np.float64) for i in range(4)]
        result[name] = [float(f"{v:.9g}") for v in (np.linalg.norm(flat), *(v @ flat for v in vectors))]
    return result


def apart(a, b):
    """Largest relative difference of projections and metrics, or 1 if the parameters or numbers of epochs differ."""
    if a["weights"].keys() != b["weights"].keys() or len(a["metrics"]) != len(b["metrics"]):
        return 1.0
    of = lambda p, q: max(abs(x - y) for x, y in zip(p, q)) / max(q[0], 1e-9)
    weights = max(of(a["weights"][n], b["weights"][n]) for n in b["weights"])
    keys = ["train_loss", "val_loss", "val_top1_error"]
    rows = max(abs((x[k] or 0) - (y[k] or 0)) for x, y in zip(a["metrics"], b["metrics"]) for k in keys)
    return max(weights, rows)


def main():
    torch.set_num_threads(1)
    results = {}
    for name, (changes, words) in RUNS.items():
        s = copy.deepcopy(BASE) | changes
        rows, weights = train(s)
        if s["kind"] == "plateau":
            words = [f"run.max_epochs={s['max_epochs']}", f"validate.every_epochs={s['every_epochs']}"]
        results[name] = dict(schedule=schedule(s), set=words, metrics=rows, weights=projections(weights), pixels=pixels(s))
        errors = [row["val_top1_error"] for row in rows]
        print(f"{name:32} apart {apart(results[name], results['base']):.1e} loss {rows[-1]['train_loss']:.3f} "
              f"rates {[round(r['lr'], 5) for r in rows]} errors {errors}")
    for name, result in results.items():
        assert name == "base" or apart(result, results["base"]) > 7e-2, name
        assert all(np.isfinite(row["train_loss"]) for row in result["metrics"]), name
    pairs = [("A-LRN, caffe", "A-LRN, alexnet"), ("optimizer.decay_biases", "optimizer.decay_biases, false")]
    pairs += [(name, "plateau") for name in results if name.startswith("plateau,")]
    for a, b in pairs:
        assert apart(results[a], results[b]) > 7e-2, (a, b, apart(results[a], results[b]))
    agreement()
    write_json(FIXTURES.parent.parent / "crates/vgg-experiment/tests/fixtures/training_runs.json", results)


if __name__ == "__main__":
    main()
