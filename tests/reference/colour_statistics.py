"""Mean, covariance and principal components of RGB over two synthetic images.

Writes fixtures/colour_statistics.json: pixel values are 0..255, and the pixels
of both images of pillow_resize.py are pooled (population covariance). The
eigenvalues are in descending order; eigenvectors[k] belongs to eigenvalues[k].
Run: /usr/bin/python3 colour_statistics.py   (a second)
The Rust test's tolerance covers a different summation order and eigensolver.
The sign of an eigenvector is arbitrary, so the test compares up to sign.
"""

import numpy as np

from hashed import FIXTURES, write_json
from pillow_resize import SIZES, source


def main():
    pixels = np.concatenate([source(h, w).reshape(-1, 3) for h, w in SIZES]).astype(np.float64)
    mean = pixels.mean(0)
    centred = pixels - mean
    covariance = centred.T @ centred / len(pixels)
    values, vectors = np.linalg.eigh(covariance)  # ascending, vectors in columns
    values, vectors = values[::-1], vectors[:, ::-1].T
    assert np.allclose(vectors.T @ np.diag(values) @ vectors, covariance)
    print(f"{len(pixels)} pixels, mean {mean}, eigenvalues {values}\n{covariance}\n{vectors}")
    write_json(
        FIXTURES / "colour_statistics.json",
        {
            "pixels": len(pixels),
            "mean": mean.tolist(),
            "covariance": covariance.tolist(),
            "eigenvalues": values.tolist(),
            "eigenvectors": vectors.tolist(),
        },
    )


if __name__ == "__main__":
    main()
