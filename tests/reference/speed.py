"""Convolutions and training steps of this project beside PyTorch's, on the same machine, alternating.

    cargo build --release -p vgg-tensor -p vgg-train --examples
    python3 speed.py ../../target/release/examples [ROUNDS] > ../../docs/results/speed.txt

Needs a recent torch. Each round runs every case once on either side, one after the other; medians over the rounds are
printed with their ratio (above 1: we are faster). Both sides use all cores.
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from hashed import conv_layers

# batch, divisor of the numbers of filters, side of the image
CONVOLUTIONS = [(16, 1, 224), (64, 4, 64), (32, 4, 64), (1, 1, 224)]
# config, width, crop, batch
STEPS = [("A", 0.25, 64, 32), ("A", 0.25, 64, 64), ("D", 0.25, 64, 32), ("E", 0.25, 64, 32), ("D", 1.0, 224, 8)]
LAYERS = [
    ("conv1_1", 1, 3, 64),
    ("conv1_2", 1, 64, 64),
    ("conv2_1", 2, 64, 128),
    ("conv2_2", 2, 128, 128),
    ("conv3_1", 4, 128, 256),
    ("conv3_2", 4, 256, 256),
    ("conv4_1", 8, 256, 512),
    ("conv4_2", 8, 512, 512),
    ("conv5_1", 16, 512, 512),
]
WIDTHS = [64, 128, 256, 512, 512]


def timed(f):
    f()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        f()
        times.append((time.perf_counter() - start) * 1e3)
    return median(times)


def our_convolutions(examples, batch, divisor, side):
    command = [examples / "conv_speed", batch, torch.get_num_threads(), divisor, side]
    text = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout
    rows = [re.findall(r"([\d.]+) ms", line) for line in text.splitlines() if line.startswith("conv")]
    return [[float(ms) for ms in row] for row in rows]


def their_convolutions(batch, divisor, side):
    rows = []
    for name, shrink, c, k in LAYERS:
        c, k, s = (c if c == 3 else c // divisor), k // divisor, side // shrink
        x = torch.rand(batch, c, s, s).to(memory_format=torch.channels_last)
        w = torch.rand(k, c, 3, 3).to(memory_format=torch.channels_last)
        b, dz = torch.rand(k), torch.rand(batch, k, s, s).to(memory_format=torch.channels_last)

        def backward(mask):
            return torch.ops.aten.convolution_backward(
                dz, x, w, [k], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
            )

        with torch.no_grad():
            forward = timed(lambda: F.relu_(F.conv2d(x, w, b, padding=1)))
            data = timed(lambda: backward([True, False, False]))
            filters = timed(lambda: backward([False, True, True]))
        rows.append([forward, data, filters])
    return rows


def network(config, width, crop):
    layers, channels, names = [], 3, conv_layers(config)
    for i, (_, block, kernel) in enumerate(names):
        filters = int(WIDTHS[block] * width)
        layers += [nn.Conv2d(channels, filters, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
        channels = filters
        if i + 1 == len(names) or names[i + 1][1] != block:
            layers.append(nn.MaxPool2d(2, 2))
    head, features = int(4096 * width), channels * (crop // 32) ** 2
    layers += [nn.Flatten(), nn.Linear(features, head), nn.ReLU(inplace=True), nn.Dropout()]
    layers += [nn.Linear(head, head), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(head, 1000)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def our_step(examples, case):
    command = [str(c) for c in [examples / "step_speed", *case, torch.get_num_threads()]]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"step ([\d.]+) ms", text).group(1))


def their_step(config, width, crop, batch):
    model = network(config, width, crop)
    sgd = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    x = torch.rand(batch, 3, crop, crop).to(memory_format=torch.channels_last)
    y = torch.arange(batch)

    def step():
        sgd.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        sgd.step()

    return timed(step)


def main():
    examples, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds; milliseconds, ours / theirs = ratio\n")
    for batch, divisor, side in CONVOLUTIONS:
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(our_convolutions(examples, batch, divisor, side))
            theirs.append(their_convolutions(batch, divisor, side))
        print(f"### batch {batch}, side {side}, width 1/{divisor}\n")
        print("| layer | forward | by data | by filter |\n|---|---|---|---|")
        sums = [[0, 0], [0, 0], [0, 0]]
        for i, (name, *_) in enumerate(LAYERS):
            cells = []
            for j in range(3):
                a, b = (median(r[i][j] for r in side) for side in (ours, theirs))
                sums[j][0] += a
                sums[j][1] += b
                cells.append(f"{a:.2f} / {b:.2f} = {b / a:.2f}")
            print(f"| {name} | " + " | ".join(cells) + " |")
        print("| sum | " + " | ".join(f"{a:.1f} / {b:.1f} = {b / a:.2f}" for a, b in sums) + " |\n", flush=True)
    print("### training steps\n\n| network | ours | PyTorch | ratio |\n|---|---|---|---|")
    for case in STEPS:
        pairs = [(our_step(examples, case), their_step(*case)) for _ in range(rounds)]
        a, b = median(p[0] for p in pairs), median(p[1] for p in pairs)
        config, width, crop, batch = case
        print(f"| {config}, width {width}, crop {crop}, batch {batch} | {a:.1f} ms | {b:.1f} ms | {b / a:.2f} |", flush=True)


main()
