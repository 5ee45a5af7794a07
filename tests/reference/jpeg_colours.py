"""Four-component JPEGs and their RGB values by Pillow.

The files are CMYK with Adobe's marker (inverted, as Photoshop writes it), CMYK without the marker, and YCCK.

Run: python3 jpeg_colours.py ../fixtures/jpeg_colours
Needs Pillow and numpy.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

H, W = 40, 56


def picture():
    y, x = np.mgrid[0:H, 0:W]
    rng = np.random.default_rng(1)
    planes = [x * 255 / W, y * 255 / H, (x + y) * 255 / (H + W), 200 - y * 150 / H]
    smooth = np.stack(planes, -1) + rng.normal(0, 4, (H, W, 4))
    return Image.fromarray(smooth.clip(0, 255).astype(np.uint8), "CMYK")


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    picture().save(file, "JPEG", quality=92)
    adobe = bytearray(file.getvalue())
    marker = adobe.find(b"Adobe") - 4
    assert adobe[marker : marker + 2] == b"\xff\xee"
    length = int.from_bytes(adobe[marker + 2 : marker + 4], "big") + 2
    # The last byte of the marker is the colour transform; 2 means YCCK.
    ycck = bytes(adobe[: marker + length - 1]) + b"\x02" + bytes(adobe[marker + length :])
    plain = bytes(adobe[:marker]) + bytes(adobe[marker + length :])
    for name, data in {"cmyk_adobe": bytes(adobe), "cmyk_plain": plain, "ycck": ycck}.items():
        (out / f"{name}.jpg").write_bytes(data)
        image = Image.open(io.BytesIO(data))
        assert image.mode == "CMYK"
        image.convert("RGB").save(out / f"{name}.png")


main()
