"""Validation errors of linear classifiers on a data set in folders: a baseline without a network.

    python3 linear_classifiers.py DATASET

Needs numpy, Pillow and scikit-learn. For each kind of feature, fits a multinomial logistic regression on train/ at
several strengths of regularisation and prints the lowest validation error. Selecting by validation error makes this
estimate optimistic: the data set may look easier than it is. Writes no file.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


def histogram(image):
    """Normalised colour histogram with 8 x 8 x 8 bins."""
    bins = np.asarray(image) // 32
    index = (bins[..., 0] * 8 + bins[..., 1]) * 8 + bins[..., 2]
    return np.bincount(index.ravel(), minlength=512) / index.size


def thumbnail(image):
    """The image resized to 16 x 16 pixels."""
    return np.asarray(image.resize((16, 16), Image.BILINEAR), dtype=np.float64).ravel() / 255


def load(root, split, feature):
    classes = sorted(p.name for p in (root / split).iterdir() if p.is_dir())
    x, y = [], []
    for label, name in enumerate(classes):
        for path in sorted((root / split / name).iterdir()):
            x.append(feature(Image.open(path).convert("RGB")))
            y.append(label)
    return np.array(x), np.array(y)


def main():
    root = Path(sys.argv[1])
    for feature in (histogram, thumbnail):
        x, y = load(root, "train", feature)
        vx, vy = load(root, "val", feature)
        scaler = StandardScaler().fit(x)
        errors = {}
        for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
            model = LogisticRegression(C=c, max_iter=300).fit(scaler.transform(x), y)
            errors[c] = 1 - model.score(scaler.transform(vx), vy)
        best = min(errors, key=errors.get)
        print(f"{feature.__name__}: {100 * errors[best]:.1f} % error (C = {best}, of {len(vy)} images)")


main()
