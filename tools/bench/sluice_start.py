"""How a run of Sluice begins, in NumPy: a GPT-2's initial weights and the batches that it is trained on, bit for bit.

For programs that lay another trainer beside Sluice. Follows base/philox.h (random numbers), kernels/cpu/random_init.h (weights),
stages/parameters.cc (names and shapes) and runtime/data/sampler.cc (which window of the text is which row).
"""
import math
import pathlib

import numpy as np

MASK = (1 << 64) - 1
QUADS_AT_ONCE = 1 << 19  # so that the temporaries stay in the cache


def mix_bits(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def hash_name(name):
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & MASK
    return value


def philox(quads, key):
    """Four arrays of words: those of counters (quad, 0, 0), as uint64."""
    low, high = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    c = [quads & low, quads >> high, np.zeros_like(quads), np.zeros_like(quads)]
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> high) ^ c[1] ^ np.uint64(k0), b & low, (a >> high) ^ c[3] ^ np.uint64(k1), a & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def normal(seed, name, shape, deviation):
    count = math.prod(shape)
    key = mix_bits(seed ^ mix_bits(hash_name(name)))
    values = np.empty((-(-count // 4), 4), np.float32)
    for begin in range(0, len(values), QUADS_AT_ONCE):
        part = values[begin:begin + QUADS_AT_ONCE]
        words = philox(np.arange(begin, begin + len(part), dtype=np.uint64), key)
        unit = [(word >> np.uint64(8)).astype(np.float64) * 2.0**-24 for word in words]
        for i in (0, 2):
            radius, angle = np.sqrt(-2 * np.log(1 - unit[i])) * np.float64(deviation), 2 * np.pi * unit[i + 1]
            part[:, i], part[:, i + 1] = radius * np.cos(angle), radius * np.sin(angle)
    return values.reshape(-1)[:count].reshape(shape)


def gpt2_specs(layers, channels, positions, vocabulary):
    """(name, shape, "one" or "zero" or the deviation of a normal distribution) of every parameter."""
    deviation = np.float32(0.02)
    projection = deviation / np.sqrt(np.float32(2 * layers))
    specs = [("wte.weight", (vocabulary, channels), deviation), ("wpe.weight", (positions, channels), deviation)]

    def norm(name):
        return [(name + ".weight", (channels,), "one"), (name + ".bias", (channels,), "zero")]

    def linear(name, rows, columns, std):
        return [(name + ".weight", (rows, columns), std), (name + ".bias", (rows,), "zero")]

    for layer in range(layers):
        h = f"h.{layer}."
        specs += norm(h + "ln_1") + linear(h + "attn.c_attn", 3 * channels, channels, deviation)
        specs += linear(h + "attn.c_proj", channels, channels, projection) + norm(h + "ln_2")
        specs += linear(h + "mlp.c_fc", 4 * channels, channels, deviation)
        specs += linear(h + "mlp.c_proj", channels, 4 * channels, projection)
    return specs + norm("ln_f")


def initial(seed, name, shape, init):
    if init == "one":
        return np.ones(shape, np.float32)
    return np.zeros(shape, np.float32) if init == "zero" else normal(seed, name, shape, init)


def read_text(path):
    """The bytes of a file, or of a folder's files in order of their names, as tokens."""
    path = pathlib.Path(path)
    files = sorted(f for f in path.iterdir() if f.is_file() and f.name[0] != ".") if path.is_dir() else [path]
    return np.concatenate([np.fromfile(file, np.uint8) for file in files])


def permute(index, size, key):
    half_bits = 1
    while 1 << 2 * half_bits < size:
        half_bits += 1
    mask = (1 << half_bits) - 1
    while True:
        left, right = index >> half_bits, index & mask
        for turn in range(6):
            left, right = right, left ^ (mix_bits(mix_bits((key + turn) & MASK) ^ right) & mask)
        index = left << half_bits | right
        if index < size:
            return index


class Batches:
    """Step 0, 1, ... -> tokens and targets, both [rows, sequence]."""

    def __init__(self, text, rows, sequence, seed):
        self.text, self.rows, self.sequence, self.seed = text, rows, sequence, seed

    def offset(self, sample):
        windows = (len(self.text) - 1) // self.sequence
        key = mix_bits(self.seed ^ mix_bits((hash_name("data") + sample // windows) & MASK))
        phase = mix_bits((key + 1) & MASK) % (len(self.text) - windows * self.sequence)
        return phase + permute(sample % windows, windows, key) * self.sequence

    def step(self, number):
        offsets = [self.offset(number * self.rows + row) for row in range(self.rows)]
        rows = np.stack([self.text[offset:offset + self.sequence + 1] for offset in offsets]).astype(np.int64)
        return rows[:, :-1], rows[:, 1:]
