"""Logits of torchvision's VGG-11, 13, 16 and 19 (configurations A, B, D, E) with hashed weights.

Writes fixtures/torchvision_logits.json: batch 2 at 224x224, images of seed 1,
evaluation mode (no dropout), computed in float64 from the float32 values and
rounded to 9 significant digits. Also prints the error of a float32 run.
Run: /usr/bin/python3 torchvision_logits.py   (some minutes, up to 3 GB)
The Rust test's tolerance covers only its own float32 rounding (summation
order): the reference is deterministic and its own error is negligible.
"""

import time

import numpy as np
import torch
import torchvision

from hashed import FIXTURES, conv_layers, images, tensor, write_json

SEED, BATCH, SIDE = 1, 2, 224
MODELS = {
    "A": torchvision.models.vgg11,
    "B": torchvision.models.vgg13,
    "D": torchvision.models.vgg16,
    "E": torchvision.models.vgg19,
}


def load(config):
    model = MODELS[config](weights=None, init_weights=False).eval()
    convs = [m for m in model.features if isinstance(m, torch.nn.Conv2d)]
    fcs = [m for m in model.classifier if isinstance(m, torch.nn.Linear)]
    names = [name for name, _, _ in conv_layers(config)] + ["fc6", "fc7", "fc8"]
    modules = convs + fcs
    assert len(names) == len(modules)
    # torchvision must pool after each of the paper's blocks.
    pools, seen = [], 0
    for m in model.features:
        seen += isinstance(m, torch.nn.Conv2d)
        if isinstance(m, torch.nn.MaxPool2d):
            pools.append(seen)
    ends = [sum(b <= k for _, b, _ in conv_layers(config)) for k in range(5)]
    assert pools == ends, (pools, ends)
    with torch.no_grad():
        for name, module in zip(names, modules):
            for part in ("weight", "bias"):
                p = getattr(module, part)
                p.copy_(torch.from_numpy(tensor(f"{name}.{part}", tuple(p.shape))))
    return model


def main():
    torch.set_num_threads(1)
    x = torch.from_numpy(images(SEED, BATCH, SIDE, SIDE))
    logits = {}
    for config in MODELS:
        start = time.time()
        model = load(config)
        with torch.no_grad():
            single = model(x).double().numpy()
            double = model.double()(x.double()).numpy()
        scale = np.abs(double).max()
        noise = np.abs(single - double).max()
        print(
            f"{config}: {sum(p.numel() for p in model.parameters())} parameters, "
            f"logits std {double.std():.4f} max {scale:.4f}, "
            f"between the two images max {np.abs(double[0] - double[1]).max():.4f}, "
            f"float32 error {noise:.2e} ({noise / scale:.1e} of the largest logit), "
            f"{time.time() - start:.0f} s",
            flush=True,
        )
        logits[config] = [[float(f"{v:.9g}") for v in row] for row in double]
    write_json(
        FIXTURES / "torchvision_logits.json",
        {"precision": "float64", "seed": SEED, "logits": logits},
    )


if __name__ == "__main__":
    main()
