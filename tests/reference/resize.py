"""Resizing with 16-bit fixed-point weights in NumPy, in the arithmetic of the crate fast_image_resize.

The horizontal pass comes before the vertical one. This is a library, not a script. A few values differ by one level
from Pillow's, whose weights have 22 fractional bits; `agreement` measures their share.
"""

import math

import numpy as np
from PIL import Image

PILLOW = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}


def sinc(x):
    return 1.0 if x == 0 else math.sin(x * math.pi) / (x * math.pi)


def bicubic(x):
    return (1.5 * x - 2.5) * x * x + 1 if x < 1 else ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


# The support of each filter and its value at a distance, both in pixels of the coarser grid.
FILTERS = {
    "bilinear": (1.0, lambda x: max(0.0, 1.0 - x)),
    "bicubic": (2.0, bicubic),
    "lanczos": (3.0, lambda x: sinc(x) * sinc(x / 3) if x < 3 else 0.0),
}


def along(pixels, whole, offset, size, interpolation):
    """Resizes the first axis to `whole` pixels and returns the pixels offset..offset + size."""
    side = len(pixels)
    start, end = offset * side / whole, (offset + size) * side / whole
    scale = (end - start) / size
    if end - start == size and start == round(start):
        return pixels[int(start) : int(start) + size]
    support, weight = FILTERS[interpolation]
    widened = max(scale, 1.0)
    taps = []
    for i in range(size):
        centre = start + (i + 0.5) * scale
        first = max(0, math.floor(centre - support * widened))
        last = min(side, math.ceil(centre + support * widened))
        weights = np.array([weight(abs(x + 0.5 - centre) / widened) for x in range(first, last)])
        taps.append((first, weights / weights.sum()))
    # The most fractional bits with which the largest weight fits 16 bits.
    largest = max(weights.max() for _, weights in taps)
    places = next(p for p in range(22) if p == 21 or math.floor(largest * 2 ** (p + 1) + 0.5) >= 1 << 15)
    rows = []
    for first, weights in taps:
        fixed = (np.sign(weights) * np.floor(np.abs(weights) * 2**places + 0.5)).astype(np.int64)
        values = pixels[first : first + len(fixed)].astype(np.int64)
        rows.append((np.tensordot(fixed, values, (0, 0)) + (1 << (places - 1))) >> places)
    return np.clip(rows, 0, 255).astype(np.uint8)


def nearest(image, whole, offset, size):
    """Differs from Pillow where a pixel centre falls on an edge, which can be every third pixel."""
    at = [[(o + k) * side / w for k in (0, n)] for o, n, side, w in zip(offset, size, image.shape, whole)]
    (top, down), (left, across) = [(start, (end - start) / n) for (start, end), n in zip(at, size)]
    rows, y = [], top + down * 0.5
    for _ in range(size[0]):  # rows accumulate rounding, columns do not
        rows.append(int(y))
        y += down
    columns = [int(left + across * 0.5 + across * i) for i in range(size[1])]
    return image[rows][:, columns]


def resized(image, whole, interpolation, offset=(0, 0), size=None):
    """Resizes an image [H,W,3] u8 to `whole` and returns the window `size` at `offset` (rows, columns)."""
    size = size or whole
    if interpolation == "nearest":
        return nearest(image, whole, offset, size)
    if image.shape[:2] == whole:
        return image[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]]
    narrow = along(image.swapaxes(0, 1), whole[1], offset[1], size[1], interpolation).swapaxes(0, 1)
    part = along(narrow, whole[0], offset[0], size[0], interpolation)
    compare(image, whole, interpolation, offset, size, part)
    return part


# The share of values that differ from Pillow's, for every resize.
SHARES = []


def compare(image, whole, interpolation, offset, size, part):
    pillow = np.asarray(Image.fromarray(image).resize(whole[::-1], PILLOW[interpolation]))
    pillow = pillow[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]].astype(np.int64)
    apart = np.abs(pillow - part)
    assert apart.max() <= 2, apart.max()
    SHARES.append((apart > 0).mean())


def agreement():
    """Asserts that less than 2 % of the values differ from Pillow's, on average over all resizes."""
    mean = np.mean(SHARES)
    assert mean < 0.02, mean
    print(f"{len(SHARES)} resizes: {100 * mean:.2f} % of the values differ from Pillow's, at most {100 * max(SHARES):.1f} % in one resize")
