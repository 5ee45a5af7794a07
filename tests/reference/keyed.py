"""Random numbers of a run, from published definitions: ChaCha8, Philox4x32-10, Box-Muller, a Feistel permutation.

This is a library, not a script. The Rust code keys a ChaCha8 stream by (seed, epoch, sample, purpose) for data and by
(seed, layer name) for initial weights, and Philox by (seed, step, layer) for dropout; docs/formats.md and
docs/numerics.md describe the keys.
"""

import math
import struct

import numpy as np

MASK32, MASK64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
ORDER, AUGMENT = 1, 2


def rotate(value, bits):
    return ((value << bits) | (value >> (32 - bits))) & MASK32


def quarter(s, a, b, c, d):
    s[a] = (s[a] + s[b]) & MASK32
    s[d] = rotate(s[d] ^ s[a], 16)
    s[c] = (s[c] + s[d]) & MASK32
    s[b] = rotate(s[b] ^ s[c], 12)
    s[a] = (s[a] + s[b]) & MASK32
    s[d] = rotate(s[d] ^ s[a], 8)
    s[c] = (s[c] + s[d]) & MASK32
    s[b] = rotate(s[b] ^ s[c], 7)


def chacha_block(key, counter, rounds):
    """Sixteen words of the original ChaCha (Bernstein 2008) with a 64-bit counter and a 64-bit nonce of 0."""
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key)]
    start += [counter & MASK32, counter >> 32, 0, 0]
    s = list(start)
    for _ in range(rounds // 2):
        for i in range(4):
            quarter(s, i, 4 + i, 8 + i, 12 + i)
        for a, b, c, d in [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]:
            quarter(s, a, b, c, d)
    return [(a + b) & MASK32 for a, b in zip(s, start)]


# Keystream of an all-zero key with 8 and 20 rounds: draft-strombergson-chacha-test-vectors, test vector 1.
assert struct.pack("<2I", *chacha_block(bytes(32), 0, 8)[:2]).hex() == "3e00ef2f895f40d6"
assert struct.pack("<2I", *chacha_block(bytes(32), 0, 20)[:2]).hex() == "76b8e0ada0f13d90"


class ChaCha8:
    def __init__(self, key):
        self.key, self.counter, self.words = key, 0, []

    def u32(self):
        if not self.words:
            self.words = chacha_block(self.key, self.counter, 8)
            self.counter += 1
        return self.words.pop(0)

    def u64(self):
        low = self.u32()
        return low | self.u32() << 32


class DataStream(ChaCha8):
    """Random numbers of the data loader."""

    def __init__(self, seed, epoch, sample, purpose):
        super().__init__(struct.pack("<QQQQ", seed, epoch, sample, purpose))

    def between(self, low, high):
        return low + (self.u64() * (high - low + 1) >> 64)

    def unit(self):
        return (self.u64() >> 11) / 2.0**53

    def coin(self):
        return self.u32() >> 31 == 1

    def normal(self):
        radius = math.sqrt(-2.0 * math.log(1.0 - self.unit()))
        return radius * math.cos(2.0 * math.pi * self.unit())


class WeightStream(ChaCha8):
    """Random numbers for the initial weights of a layer."""

    def __init__(self, seed, name):
        super().__init__(struct.pack("<Q", seed) + name.encode().ljust(16, b"\0") + b"weights\0")

    def unit(self):
        return self.u32() / 2.0**32

    def normals(self, count):
        values = []
        while len(values) < count:
            radius = math.sqrt(-2.0 * math.log(1.0 - self.unit()))
            angle = 2.0 * math.pi * self.unit()
            values += [radius * math.cos(angle), radius * math.sin(angle)]
        return np.array(values[:count])


def scramble(x):
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD & MASK64
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 & MASK64
    return x ^ x >> 33


def permutation(seed, epoch, n):
    """The sample order of an epoch: a 12-round Feistel network, with cycle walking for values >= n."""
    stream = DataStream(seed, epoch, 0, ORDER)
    half = max(-(-(n - 1).bit_length() // 2), 1)
    keys = [stream.u64() for _ in range(12)]
    mask = (1 << half) - 1

    def at(value):
        while True:
            left, right = value >> half, value & mask
            for key in keys:
                left, right = right, left ^ scramble(right ^ key) & mask
            value = left << half | right
            if value < n:
                return value

    order = [at(place) for place in range(n)]
    assert sorted(order) == list(range(n))
    return order


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011)."""
    counter, key = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [b >> 32 ^ counter[1] ^ key[0], b & MASK32, a >> 32 ^ counter[3] ^ key[1], a & MASK32]
        key = [(key[0] + 0x9E3779B9) & MASK32, (key[1] + 0xBB67AE85) & MASK32]
    return counter


# Test vectors from kat_vectors of Random123.
assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def dropout_mask(seed, step, layer, sample, count, rate):
    """The dropout mask of a sample: 1 / (1 - rate) for each kept value, 0 for each dropped one."""
    rate = float(np.float32(rate))
    blocks = -(-count // 4)
    bits = []
    for block in range(sample * blocks, (sample + 1) * blocks):
        counter = [block & MASK32, block >> 32 & 0xFF | layer << 8, step & MASK32, step >> 32]
        bits += philox(counter, [seed & MASK32, seed >> 32])
    threshold = int(rate * 2.0**32)
    return np.array([0.0 if b < threshold else 1.0 / (1.0 - rate) for b in bits[:count]])
