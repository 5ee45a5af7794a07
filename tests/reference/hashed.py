"""Hashed tensors that the reference scripts share, and the writers of JSON and safetensors fixtures.

This is a library, not a script. Every weight, bias and pixel is a pure function
of a name and an index, so the Rust tests build the same inputs without storing
them. All integer arithmetic wraps at 32 bits; every value is exact in float32.
"""

import json
import math
import struct
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
CHUNK = 1 << 22

# Table 1 of the paper: kernel sizes of the convolutions in each of the five blocks.
CONFIGS = {
    "A": [[3], [3], [3, 3], [3, 3], [3, 3]],
    "A-LRN": [[3], [3], [3, 3], [3, 3], [3, 3]],
    "B": [[3, 3]] * 5,
    "C": [[3, 3], [3, 3], [3, 3, 1], [3, 3, 1], [3, 3, 1]],
    "D": [[3, 3], [3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "E": [[3, 3], [3, 3], [3] * 4, [3] * 4, [3] * 4],
}


def fnv1a(name):
    h = 0x811C9DC5
    for byte in name.encode("ascii"):
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    return h


def fmix32(h):
    """MurmurHash3's finaliser, on an array (or one value) of unsigned 32-bit integers."""
    h = np.array(h, dtype=np.uint32, ndmin=1)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h


# Published test values of both hashes.
assert fnv1a("a") == 0xE40C292C and fnv1a("foobar") == 0xBF9CF968
assert fmix32(1)[0] == 0x514E28B7


def unit(name, count):
    """The first `count` values of the stream `name`, float32 in [-1, 1)."""
    out = np.empty(count, dtype=np.float32)
    for at in range(0, count, CHUNK):  # in chunks: fc6 alone has 103 million
        index = np.arange(at, min(at + CHUNK, count), dtype=np.uint32)
        top = fmix32(index + np.uint32(fnv1a(name))) >> np.uint32(8)
        out[at : at + CHUNK] = top.astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return out


def tensor(name, shape):
    """A weight ([K,C,R,S] or [out,in]) or a bias, by parameter name."""
    if name.endswith(".weight"):
        bound = np.float32(math.sqrt(6.0 / math.prod(shape[1:])))
    else:
        bound = np.float32(0.1)
    values = unit(name, math.prod(shape))
    values *= bound
    return values.reshape(shape)


def images(seed, n, height, width):
    """Images [n,3,H,W]; the hash index counts in NHWC order."""
    values = unit(f"image{seed}", n * height * width * 3)
    return np.ascontiguousarray(values.reshape(n, height, width, 3).transpose(0, 3, 1, 2))


def conv_layers(config):
    """(name, block, kernel) of each convolution, in order; block counts from 0."""
    return [
        (f"conv{b + 1}_{i + 1}", b, kernel)
        for b, block in enumerate(CONFIGS[config])
        for i, kernel in enumerate(block)
    ]


def write_safetensors(path, tensors, metadata):
    """Writes the header length (8 bytes), the JSON header and little-endian float32 data, sorted by name."""
    header, blobs, at = {"__metadata__": metadata}, [], 0
    for name in sorted(tensors):
        value = np.asarray(tensors[name])
        assert np.isfinite(value).all(), name
        blob = value.astype("<f4").tobytes()  # row-major
        header[name] = {
            "dtype": "F32",
            "shape": list(value.shape),
            "data_offsets": [at, at + len(blob)],
        }
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    print(f"{path.name}: {path.stat().st_size} bytes")


def write_json(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")
