"""The centre crops of torchvision's evaluation transforms, Resize(256) and CenterCrop(224), for synthetic images of the
sizes of 200 photographs.

Writes fixtures/torchvision_views.csv: height and width of each image, height and width after Resize, and the CRC-32 of
the RGB values of the crop. Written with torchvision 0.15.2 on Pillow 9.4.
Run: PYTHONPATH=TORCHVISION /usr/bin/python3 torchvision_views.py FOLDER   (FOLDER has the photographs; ten seconds)
"""

import csv
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from hashed import FIXTURES
from pillow_resize import source


def main():
    sizes = sorted({Image.open(path).size[::-1] for path in Path(sys.argv[1]).glob("*.JPEG")})
    # The photographs share some sizes; the others test every remainder of both roundings.
    for i in range(200 - len(sizes)):
        sizes.append((300 + i % 7, 300 + 3 * i) if i % 2 == 0 else (300 + 3 * i, 300 + i % 7))
    with open(FIXTURES / "torchvision_views.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["h", "w", "resized_h", "resized_w", "crc32"])
        for h, w in sizes:
            resized = Resize(256)(Image.fromarray(source(h, w), "RGB"))
            crop = np.asarray(CenterCrop(224)(resized))
            assert crop.shape == (224, 224, 3)
            rows.writerow([h, w, resized.height, resized.width, zlib.crc32(crop.tobytes())])


if __name__ == "__main__":
    main()
