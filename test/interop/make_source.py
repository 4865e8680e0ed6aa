"""make_source.py OUT.safetensors: a source with what the shared models lack.

Tensors large enough for several chunks, every element type, ragged columns, shapes of every rank.
The numbers come from a fixed seed; the tensors stand in no alphabetical order.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np

from dtypes import NUMPY_TYPES

SEED = 20240229


def as_bfloat16(values: np.ndarray) -> np.ndarray:
    """Truncated, which is as good a bfloat16 as any."""
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2")


def float8_bytes(random: np.random.Generator, shape: tuple[int, ...], exponents: range) -> np.ndarray:
    """Bytes of either sign whose upper magnitude bits lie in `exponents`: finite in both types."""
    magnitudes = random.integers(exponents.start, exponents.stop, shape)
    return (magnitudes | (random.integers(0, 2, shape) << 7)).astype("u1")


def make_tensors() -> list[tuple[str, str, np.ndarray]]:
    random = np.random.default_rng(SEED)

    def normal(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.04).astype("<f4")

    return [
        # 4-bit codes of 2065 bytes a row: 2031 rows a chunk, so two chunks.
        ("wide.weight", "F16", normal(2200, 4129).astype("<f2")),
        ("kept_matrix.weight", "F32", normal(300, 4129)),
        ("kept_vector.bias", "F32", normal(1_200_000)),
        ("conv.weight", "F32", normal(8, 6, 3, 3)),
        ("double.weight", "F64", normal(33, 77).astype("<f8") / 3),
        ("brain.weight", "BF16", as_bfloat16(normal(64, 100))),
        ("brain.bias", "BF16", as_bfloat16(normal(100))),
        ("eighth_e4m3.weight", "F8_E4M3", float8_bytes(random, (64, 100), range(0x10, 0x60))),
        ("eighth_e5m2.weight", "F8_E5M2", float8_bytes(random, (64, 100), range(0x20, 0x50))),
        ("half.bias", "F16", normal(77).astype("<f2")),
        ("zeros.weight", "F32", np.zeros((4, 64), "<f4")),
        ("one_sided.weight", "F32", np.abs(normal(16, 96)) + np.float32(0.01)),
        ("single.weight", "F32", normal(1, 1, 1)),
        ("empty.weight", "F32", np.zeros((0, 5), "<f4")),
        ("scalar", "F32", np.array(0.5, "<f4")),
        ("steps", "I64", np.arange(6, dtype="<i8").reshape(2, 3)),
        ("bytes", "U8", np.arange(25, dtype="u1").reshape(5, 5)),
        ("mask", "BOOL", np.array([[True, False]])),
    ]


def main(out: str) -> int:
    header, begin, blobs = {}, 0, []
    for name, dtype, array in make_tensors():
        assert dtype not in NUMPY_TYPES or array.dtype == np.dtype(NUMPY_TYPES[dtype])
        blob = array.tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [begin, begin + len(blob)],
        }
        begin += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(out).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    json.dump({"tensors": len(header)}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
