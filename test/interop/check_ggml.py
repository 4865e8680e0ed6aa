"""check_ggml.py LIBRARY WEIGHTS CASES BLOCKS: squared errors of blocks beside those of ggml's own.

CASES is a JSON list of {name, type, rows, cols}: tensors of the safetensors file WEIGHTS, seen as rows by columns,
whose blocks follow one another in BLOCKS. Prints a JSON list, in that order, of {ours, ggml}: the sums of squared
differences to the weights, both rebuilt by gguf-py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from ggml_library import Ggml, squared_error
from safetensors_file import list_entries


def main(library: str, weights_path: str, cases_path: str, blocks_path: str) -> None:
    ggml = Ggml(library)
    entries = {entry.name: entry for entry in list_entries([weights_path])}
    blocks = np.fromfile(blocks_path, np.uint8)
    offset = 0
    results = []
    for case in json.loads(Path(cases_path).read_text()):
        type = GGMLQuantizationType[case["type"]]
        weights = entries[case["name"]].read().astype(np.float32).reshape(case["rows"], case["cols"])
        block_weights, block_bytes = GGML_QUANT_SIZES[type]
        end = offset + weights.size // block_weights * block_bytes
        ours = blocks[offset:end].reshape(case["rows"], -1)
        offset = end
        results.append(
            {
                "ours": squared_error(weights, ours, type),
                "ggml": squared_error(weights, ggml.quantize(weights, type), type),
            }
        )
    if offset != len(blocks):
        raise ValueError(f"{len(blocks)} bytes of blocks, {offset} belong to the cases")
    print(json.dumps(results))


main(*sys.argv[1:])
