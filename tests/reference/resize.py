"""Resizing with 16-bit weights, rows first and then columns, in NumPy: the arithmetic of the crate fast_image_resize.

Not run by itself. It differs from Pillow, whose weights have 22 binary places, by one level in a few values; `agreement` has how many.
"""

import math

import numpy as np
from PIL import Image

PILLOW = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}


def sinc(x):
    return 1.0 if x == 0 else math.sin(x * math.pi) / (x * math.pi)


def bicubic(x):
    return (1.5 * x - 2.5) * x * x + 1 if x < 1 else ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


# Where the filter ends, and its value at a distance, both in pixels of the coarser grid.
FILTERS = {
    "bilinear": (1.0, lambda x: max(0.0, 1.0 - x)),
    "bicubic": (2.0, bicubic),
    "lanczos": (3.0, lambda x: sinc(x) * sinc(x / 3) if x < 3 else 0.0),
}


def along(pixels, whole, offset, size, interpolation):
    """Pixels offset..offset + size of the first axis resized to `whole`."""
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
    # As many binary places as fit 16 bits with the largest weight.
    largest = max(weights.max() for _, weights in taps)
    places = next(p for p in range(22) if p == 21 or math.floor(largest * 2 ** (p + 1) + 0.5) >= 1 << 15)
    rows = []
    for first, weights in taps:
        fixed = (np.sign(weights) * np.floor(np.abs(weights) * 2**places + 0.5)).astype(np.int64)
        values = pixels[first : first + len(fixed)].astype(np.int64)
        rows.append((np.tensordot(fixed, values, (0, 0)) + (1 << (places - 1))) >> places)
    return np.clip(rows, 0, 255).astype(np.uint8)


def nearest(image, whole, offset, size):
    """Other pixels than Pillow's where centres are on edges, which may be every third."""
    at = [[(o + k) * side / w for k in (0, n)] for o, n, side, w in zip(offset, size, image.shape, whole)]
    (top, down), (left, across) = [(start, (end - start) / n) for (start, end), n in zip(at, size)]
    rows, y = [], top + down * 0.5
    for _ in range(size[0]):  # added up, where columns are products
        rows.append(int(y))
        y += down
    columns = [int(left + across * 0.5 + across * i) for i in range(size[1])]
    return image[rows][:, columns]


def resized(image, whole, interpolation, offset=(0, 0), size=None):
    """The part `size` at `offset` (rows, columns) of an image [H,W,3] u8 resized to `whole`."""
    size = size or whole
    if interpolation == "nearest":
        return nearest(image, whole, offset, size)
    if image.shape[:2] == whole:
        return image[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]]
    narrow = along(image.swapaxes(0, 1), whole[1], offset[1], size[1], interpolation).swapaxes(0, 1)
    part = along(narrow, whole[0], offset[0], size[0], interpolation)
    compare(image, whole, interpolation, offset, size, part)
    return part


# Of every resize, the share of values that differ from Pillow's.
SHARES = []


def compare(image, whole, interpolation, offset, size, part):
    pillow = np.asarray(Image.fromarray(image).resize(whole[::-1], PILLOW[interpolation]))
    pillow = pillow[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]].astype(np.int64)
    apart = np.abs(pillow - part)
    assert apart.max() <= 2, apart.max()
    SHARES.append((apart > 0).mean())


def agreement():
    """Asserts that all resizes together, of small noisy images, are Pillow's but for 2 % of the values."""
    mean = np.mean(SHARES)
    assert mean < 0.02, mean
    print(f"{len(SHARES)} resizes: {100 * mean:.2f} % of the values are not Pillow's, in the worst {100 * max(SHARES):.1f} %")
