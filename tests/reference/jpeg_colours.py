"""JPEGs whose colour space or end is stated in an unusual way, and their RGB values by Pillow.

Four components: CMYK with Adobe's marker (inverted, as Photoshop writes it), CMYK without the marker, YCCK, and
Adobe transforms that do not exist. Three components: JFIF and Adobe's marker with each transform, and components named
R, G and B. Ends: an end marker that was replaced by zeros. A file that Pillow does not read gets no PNG.

Run: python3 jpeg_colours.py ../fixtures/jpeg_colours
Needs Pillow and numpy.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

H, W = 40, 56


def picture(channels):
    y, x = np.mgrid[0:H, 0:W]
    rng = np.random.default_rng(1)
    planes = [x * 255 / W, y * 255 / H, (x + y) * 255 / (H + W), 200 - y * 150 / H][:channels]
    smooth = np.stack(planes, -1) + rng.normal(0, 4, (H, W, channels))
    return smooth.clip(0, 255).astype(np.uint8)


def encoded(mode, quality=92, **options):
    file = io.BytesIO()
    Image.fromarray(picture(len(mode)).squeeze(), mode).save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


def adobe(transform):
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def without_jfif(data):
    assert data[2:4] == b"\xff\xe0"
    length = int.from_bytes(data[4:6], "big") + 2
    return data[:2] + data[2 + length :]


def with_marker(data, marker):
    """Inserts a marker after JFIF's, or at the start."""
    at = 2
    if data[2:4] == b"\xff\xe0":
        at += int.from_bytes(data[4:6], "big") + 2
    return data[:at] + marker + data[at:]


def named_rgb(data):
    """Names the components R, G and B in the frame and the scan."""
    data = bytearray(data)
    frame = data.find(b"\xff\xc0")
    scan = data.find(b"\xff\xda")
    for i, name in enumerate(b"RGB"):
        data[frame + 10 + 3 * i] = name
        data[scan + 5 + 2 * i] = name
    return bytes(data)


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    photoshop = encoded("CMYK")
    marker = photoshop.find(b"Adobe") - 4
    assert photoshop[marker : marker + 2] == b"\xff\xee"
    length = int.from_bytes(photoshop[marker + 2 : marker + 4], "big") + 2
    cmyk = photoshop[:marker] + photoshop[marker + length :]
    jfif = encoded("RGB", subsampling=0)
    bare = without_jfif(jfif)
    files = {"cmyk_adobe": photoshop, "cmyk_plain": cmyk, "ycck": with_marker(cmyk, adobe(2))}
    files |= {f"cmyk_adobe{transform}": with_marker(cmyk, adobe(transform)) for transform in [1, 3, 255]}
    files |= {f"jfif_adobe{transform}": with_marker(jfif, adobe(transform)) for transform in [0, 1, 2, 3, 255]}
    files |= {f"adobe{transform}": with_marker(bare, adobe(transform)) for transform in [0, 1, 3, 255]}
    files |= {"named_rgb": named_rgb(bare), "jfif_named_rgb": named_rgb(jfif)}
    files |= {"named_rgb_adobe1": named_rgb(with_marker(bare, adobe(1))), "grey_adobe0": with_marker(encoded("L"), adobe(0))}
    files |= {"zero_end": jfif[:-2] + bytes(300), "no_end": jfif[:-2], "half_zeros": jfif[: len(jfif) // 2] + bytes(9)}
    files |= {"progressive_zero_end": encoded("RGB", progressive=True)[:-2] + bytes(300)}
    for name, data in files.items():
        (out / f"{name}.jpg").write_bytes(data)
        try:
            Image.open(io.BytesIO(data)).convert("RGB").save(out / f"{name}.png")
        except OSError as error:
            print(f"{name}: {error}")


if __name__ == "__main__":
    main()
