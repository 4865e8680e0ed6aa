"""ggml's own quantizers, called in its shared library."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize


class Ggml:
    def __init__(self, library: str | Path) -> None:
        loaded = ctypes.CDLL(str(library))
        # size_t ggml_row_size(enum ggml_type type, int64_t ne)
        self._row_size = loaded.ggml_row_size
        self._row_size.restype = ctypes.c_size_t
        self._row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
        # size_t ggml_quantize_chunk(type, src, dst, start, nrows, n_per_row, imatrix)
        self._quantize_chunk = loaded.ggml_quantize_chunk
        self._quantize_chunk.restype = ctypes.c_size_t
        self._quantize_chunk.argtypes = [
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_void_p,
        ]

    def quantize(self, weights: np.ndarray, type: GGMLQuantizationType) -> np.ndarray:
        """uint8[rows, bytes of a row] of float32[rows, columns], all columns alike."""
        weights = np.ascontiguousarray(weights, np.float32)
        rows, columns = weights.shape
        blocks = np.zeros((rows, self._row_size(int(type), columns)), np.uint8)
        importance = np.ones(columns, np.float32)
        written = self._quantize_chunk(
            int(type), weights.ctypes.data, blocks.ctypes.data, 0, rows, columns, importance.ctypes.data
        )
        if written != blocks.nbytes:
            raise ValueError(f"ggml wrote {written} bytes of {type.name}, not {blocks.nbytes}")
        return blocks


def squared_error(weights: np.ndarray, blocks: np.ndarray, type: GGMLQuantizationType) -> float:
    """Sum over all weights, in float64, of the blocks as gguf-py rebuilds them."""
    rebuilt = dequantize(blocks, type).reshape(weights.shape)
    return float(np.square(rebuilt.astype(np.float64) - weights).sum())
