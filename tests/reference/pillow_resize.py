"""Two synthetic images resized by Pillow to several scales (smallest sides) with each interpolation.

Writes fixtures/pillow_resize.json: for each case the size of the output and the CRC-32 of its RGB values. The reference
in vgg-testkit must match exactly; vgg-data may differ from it by one level in 1 % of the values.
Run: /usr/bin/python3 pillow_resize.py   (a second)
"""

import zlib

import numpy as np
from PIL import Image

from hashed import FIXTURES, fmix32, write_json

SIZES = [(61, 47), (90, 160)]
SIDES = [23, 40, 61, 96]
FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS, "nearest": Image.NEAREST}


def source(height, width):
    """[H,W,3] u8: a chequerboard of smooth ramps and hashed noise."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    ramp = (x * 7 + y * 13 + c * 29) % 256
    noise = fmix32(y * 1000 + x * 4 + c) >> 24
    return np.where((x // 9 + y // 11) % 2 == 0, ramp, noise).astype(np.uint8)


def scaled(long, short, side):
    return (2 * long * side + short) // (2 * short)


def main():
    cases = []
    for h, w in SIZES:
        image = Image.fromarray(source(h, w), "RGB")
        for side in SIDES:
            out_h, out_w = (scaled(h, w, side), side) if w <= h else (side, scaled(w, h, side))
            for name, value in FILTERS.items():
                out = np.asarray(image.resize((out_w, out_h), value))
                assert out.shape == (out_h, out_w, 3)
                cases.append({
                    "h": h, "w": w, "side": side, "out_h": out_h, "out_w": out_w, "filter": name,
                    "crc32": zlib.crc32(out.tobytes()),
                })
    write_json(FIXTURES / "pillow_resize.json", {"cases": cases})


if __name__ == "__main__":
    main()
