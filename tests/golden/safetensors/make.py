#!/usr/bin/env python3
"""Writes small.safetensors with Hugging Face's `safetensors`, for the tests of the reader.

  make.py          needs `pip install safetensors numpy ml_dtypes`

Values are those that the test computes: element i of a float tensor is (i - 3) / 4, of the others i.
"""
import pathlib

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file


def numbers(shape, dtype):
    count = int(np.prod(shape))
    floats = (np.arange(count) - 3) / 4
    return (floats if np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16 else
            np.arange(count)).astype(dtype).reshape(shape)


save_file(
    {
        "h.0.attn.c_attn.weight": numbers((5, 3), np.float32),
        "h.0.attn.c_attn.bias": numbers((3,), np.float16),
        "lm_head.weight": numbers((2, 9), ml_dtypes.bfloat16),
        "ids": numbers((7,), np.int64),
        "mask": numbers((2, 2), np.uint8),
        "empty": numbers((0, 4), np.float32),
        "scalar": numbers((), np.float32),
        "näme \"quoted\"": numbers((1,), np.float64),
    },
    pathlib.Path(__file__).with_name("small.safetensors"),
    metadata={"format": "pt", "made by": "make.py"},
)
