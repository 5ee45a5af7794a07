"""Makes a data set with shuffled training labels, as symbolic links into another data set.

    python3 shuffle_labels.py DATASET OUT

The labels of val/ are unchanged. The validation error of a network trained on it must stay at chance level; a lower
error means that validation data leak into training.
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
