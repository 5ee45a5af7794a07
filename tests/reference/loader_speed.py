"""Loading speed of one core in images/s, compared with torchvision (Pillow) and OpenCV.

Each sample is decoded, resized to a scale S drawn from [256;512], cropped to 224, flipped, PCA-jittered and
mean-subtracted. The programs are measured alternately.

Run: python3 loader_speed.py path/to/loader_speed[,ANOTHER_BUILD] DATASET [DATASET_OF_OURS ...]
Only our loader reads the additional data sets, for example shards of the same images. A data set with "raw" in its
name is measured a second time with S = 256 and u8 pixels.
Needs torch, torchvision, Pillow, numpy and opencv-python. Run on one core: taskset -c 0 python3 ...
"""

import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as F

ROUNDS, SECONDS = 5, 4
MEAN = [123.68, 116.779, 103.939]
AXES = np.array([[0.5675, 0.7192, 0.4009], [0.5808, -0.0045, -0.8140], [0.5836, -0.6948, 0.4203]])
VALUES = np.array([0.2175, 0.0188, 0.0045]) * 255

torch.set_num_threads(1)
cv2.setNumThreads(1)


def shift():
    return (AXES @ (VALUES * np.random.normal(0, 0.1, 3))).astype(np.float32)


def size(h, w, side):
    return (side, (2 * w * side + h) // (2 * h)) if h <= w else ((2 * h * side + w) // (2 * w), side)


def of_torchvision(path):
    image = Image.open(path).convert("RGB")
    h, w = size(image.height, image.width, random.randint(256, 512))
    image = F.resize(image, [h, w])
    top, left = random.randint(0, h - 224), random.randint(0, w - 224)
    image = F.crop(image, top, left, 224, 224)
    if random.random() < 0.5:
        image = F.hflip(image)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    return x + torch.from_numpy(shift() - np.array(MEAN, dtype=np.float32))[:, None, None]


def of_opencv(path):
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    h, w = size(*image.shape[:2], random.randint(256, 512))
    image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    top, left = random.randint(0, h - 224), random.randint(0, w - 224)
    image = image[top : top + 224, left : left + 224]
    if random.random() < 0.5:
        image = image[:, ::-1]
    return image.astype(np.float32) + (shift() - np.array(MEAN, dtype=np.float32))


def rate(make, files):
    start, n = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        make(files[n % len(files)])
        n += 1
    return n / (time.perf_counter() - start)


def ours(program, folder, *how):
    arguments = [program, folder, *(how or ["256,512"])]
    arguments.insert(3, str(SECONDS))
    out = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    return float(re.match(r"[\d.]+", out)[0])


def main():
    program, folder = sys.argv[1], sys.argv[2]
    files = sorted(p for p in Path(folder, "train").rglob("*") if p.is_file())
    makers = {
        "torchvision": lambda: rate(of_torchvision, files),
        "OpenCV": lambda: rate(of_opencv, files),
    }
    for build in program.split(","):
        for data in [folder, *sys.argv[3:]]:
            name = f"{Path(build).name}, {Path(data).name}"
            makers[name] = lambda build=build, data=data: ours(build, data)
            if "raw" in Path(data).name:
                makers[name + ", bytes"] = lambda build=build, data=data: ours(build, data, "256,256", "bytes")
    found = {name: [] for name in makers}
    for _ in range(ROUNDS):
        for name, make in makers.items():
            found[name].append(make())
    base = statistics.median(found["torchvision"])
    for name, rates in found.items():
        median = statistics.median(rates)
        print(f"{name:24} {median:7.1f} images/s  {median / base:5.2f}x  ({min(rates):.1f} to {max(rates):.1f})")


main()
