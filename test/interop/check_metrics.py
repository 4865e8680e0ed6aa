"""Are the stored metrics the formulas their names say, computed anew by numpy from the source?"""

from __future__ import annotations

import math

import numpy as np

from native_reader import Tensor
from safetensors_file import Entry

TOLERANCE = 1e-6


def error_sums(source: np.ndarray, rebuilt: np.ndarray) -> dict[str, float]:
    """In float64, of float32 arrays."""
    source, rebuilt = source.astype(np.float64).ravel(), rebuilt.astype(np.float64).ravel()
    error = source - rebuilt
    return {
        "dot": float(source @ rebuilt),
        "source_norm2": float(source @ source),
        "rebuilt_norm2": float(rebuilt @ rebuilt),
        "error_norm2": float(error @ error),
        "max_abs_error": float(np.abs(error).max()),
    }


def derive_metrics(sums: dict[str, float]) -> dict[str, float]:
    norms = math.sqrt(sums["source_norm2"]), math.sqrt(sums["rebuilt_norm2"])
    if norms[0] == 0 or norms[1] == 0:
        cosine = 1.0 if norms[0] == norms[1] else 0.0
    else:
        cosine = sums["dot"] / (norms[0] * norms[1])
    if sums["error_norm2"] == 0:
        sqnr, relative = math.inf, 0.0
    elif norms[0] == 0:
        sqnr, relative = -math.inf, math.inf
    else:
        sqnr = 10 * math.log10(sums["source_norm2"] / sums["error_norm2"])
        relative = math.sqrt(sums["error_norm2"]) / norms[0]
    return {**sums, "cosine_similarity": cosine, "sqnr_db": sqnr, "relative_rmse": relative}


def check_metrics(tensors: list[Tensor], entries: list[Entry]) -> tuple[list[str], dict[str, float]]:
    """Problems, and the weight cosine of every quantized layer."""
    problems: list[str] = []
    cosines: dict[str, float] = {}
    by_name = {entry.name: entry for entry in entries}
    for tensor in tensors:
        if tensor.kept or tensor.name not in by_name:
            continue
        source = by_name[tensor.name].read().astype(np.float32)
        cosines[tensor.name] = derive_metrics(error_sums(source, tensor.values))["cosine_similarity"]
        start, cols = 0, source[0].size
        flat_source, flat_rebuilt = source.reshape(-1, cols), tensor.values.reshape(-1, cols)
        row_bytes = -(-cols * tensor.bits // 8)
        for row in tensor.rows:
            end = start + len(row["data"]) // row_bytes
            wanted = derive_metrics(error_sums(flat_source[start:end], flat_rebuilt[start:end]))
            start = end
            for name, value in wanted.items():
                stored = row["metrics"][name]
                if not math.isclose(stored, value, rel_tol=TOLERANCE, abs_tol=0) and stored != value:
                    problems.append(
                        f'"{tensor.name}" chunk {row["chunk_index"]}: {name} {stored}, numpy {value}'
                    )
    return problems, cosines
