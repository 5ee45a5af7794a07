"""Expected batches of the loader in three epochs, and statistics of the training pixels, in NumPy.

Writes crates/vgg-data/tests/fixtures/loader.json: the samples, labels, CRC-32s of the pixels and colour offsets of each
batch.
Run: /usr/bin/python3 loader_batches.py   (a second)
"""

import zlib

import numpy as np

from hashed import FIXTURES, write_json
from keyed import permutation
from resize import agreement
from small_run import augmented, components, statistics, train_images

SETTINGS = dict(seed=11, train_scale=[33, 48], crop=32, flip=True, interpolation="bilinear", colour_std=0.1)
CASES = {
    "all": SETTINGS,
    "no flip, no colour": dict(SETTINGS, flip=False, colour_std=0.0),
    "fixed scale, lanczos": dict(SETTINGS, train_scale=[40, 40], interpolation="lanczos"),
    "nearest": dict(SETTINGS, interpolation="nearest"),
    # A seed that needs more than 32 bits.
    "large seed": dict(SETTINGS, seed=2**40 + 3),
}
MEAN = np.array([120.5, 110.25, 100.0])
BATCH, EPOCHS = 4, [0, 1, 300]


def batches(s, images, covariance):
    result = []
    for epoch in EPOCHS:
        order = permutation(s["seed"], epoch, len(images))
        for first in range(0, len(order), BATCH):
            ids = order[first : first + BATCH]
            made = [augmented(images[i][0], i, epoch, s, covariance) for i in ids]
            result.append(dict(
                epoch=epoch,
                ids=ids,
                targets=[images[i][1] for i in ids],
                crc32=[zlib.crc32(np.ascontiguousarray(crop).tobytes()) for crop, _ in made],
                offset=[(shift - MEAN).tolist() for _, shift in made],
            ))
    return result


def main():
    images = train_images()
    mean, covariance = statistics([image for image, _ in images])
    values, vectors = components(covariance)
    result = dict(
        mean=mean.tolist(), covariance=covariance.tolist(), eigenvalues=values.tolist(), eigenvectors=vectors.tolist(),
        cases={name: batches(s, images, covariance) for name, s in CASES.items()},
    )
    flipped = [augmented(images[i][0], i, 0, SETTINGS, covariance)[0] for i in range(14)]
    assert len({crop.tobytes() for crop in flipped}) == 14
    folder = FIXTURES.parent.parent / "crates/vgg-data/tests/fixtures"
    folder.mkdir(exist_ok=True)
    agreement()
    write_json(folder / "loader.json", result)


if __name__ == "__main__":
    main()
