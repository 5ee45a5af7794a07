"""Makes a data set with shuffled training labels, of links into another one.

    python3 shuffle_labels.py DATASET OUT

A network trained on it must stay at chance on val/, which keeps its labels; otherwise something leaks.
"""

import random
import sys
from pathlib import Path


def main():
    source, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    random.seed(1)
    for split in ("train", "val"):
        files = sorted(p for p in (source / split).glob("*/*") if p.is_file())
        labels = [p.parent.name for p in files]
        if split == "train":
            random.shuffle(labels)
        for path, label in zip(files, labels):
            link = target / split / label / f"{path.parent.name}-{path.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


main()
