"""A picture in several file formats, and its RGB values by Pillow.

Run: python3 image_formats.py ../fixtures/image_formats
Needs Pillow and numpy.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from jpeg_colours import picture

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
rgb = Image.fromarray(picture(3))
alpha = rgb.copy()
alpha.putalpha(Image.fromarray(picture(4)[:, :, 3]))
grey = rgb.convert("L")
second = Image.fromarray(255 - picture(3))
for name, image, options in [
    ("lossless.webp", rgb, {"lossless": True}),
    ("lossy.webp", rgb, {"quality": 80}),
    ("alpha.webp", alpha, {"lossless": True, "exact": True}),
    ("lzw.tif", rgb, {"compression": "tiff_lzw"}),
    ("pages.tiff", rgb, {"save_all": True, "append_images": [second]}),
    ("grey.tif", grey, {}),
    ("rgb.bmp", rgb, {}),
    ("palette.bmp", rgb.quantize(64), {}),
    ("frames.gif", rgb, {"save_all": True, "append_images": [second]}),
    ("grey.pgm", grey, {}),
    ("rgb.ppm", rgb, {}),
    ("palette.png", rgb.quantize(64), {}),
]:
    image.save(out / name, **options)
    Image.open(out / name).convert("RGB").save(out / (name + ".png"))
