"""measure_gguf.py LIBRARY MODEL FOLDER RUNS: GGUF types on a shared model, ours beside gguf-py's and ggml's.

FOLDER holds TYPE.gguf and TYPE-calibrated.gguf (TYPE as q4_k), the model quantized by us. On the tensors that these
store as TYPE, gguf-py and ggml (all columns alike) quantize the same weights; everything else is as in our file.
Prints {TYPE: {layers, relative_rmse, prediction_error, ggml_weights_per_second}}; the last is the median of
RUNS, by processor time.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize

from ggml_library import Ggml, squared_error
from prediction_error import Denoiser, load_source_weights, measure

Type = gguf.GGMLQuantizationType
# gguf-py has a quantizer for these alone.
GGUF_PY_TYPES = (Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0)


def read_blocks(path: Path) -> dict[str, tuple[np.ndarray, Type]]:
    return {tensor.name: (tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors}


def rebuild(blocks: dict[str, tuple[np.ndarray, Type]], source: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: dequantize(data, type).astype(np.float32).reshape(source[name].shape)
        for name, (data, type) in blocks.items()
    }


def measure_type(type: Type, ggml: Ggml, denoiser: Denoiser, folder: Path, runs: int) -> dict:
    source = load_source_weights(denoiser.model)
    ours = read_blocks(folder / f"{type.name.lower()}.gguf")
    calibrated = read_blocks(folder / f"{type.name.lower()}-calibrated.gguf")
    layers = [name for name, (_, stored) in ours.items() if stored is type]
    if layers != [name for name, (_, stored) in calibrated.items() if stored is type]:
        raise ValueError(f"{type.name}: the calibrated file quantizes other tensors")
    matrices = {name: np.ascontiguousarray(source[name], np.float32) for name in layers}
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        theirs = {name: ggml.quantize(weights, type) for name, weights in matrices.items()}
        seconds.append(time.process_time() - started)
    reference = {**ours, **{name: (blocks, type) for name, blocks in theirs.items()}}
    found = {"ours": ours, "calibrated": calibrated, "ggml": reference}
    if type in GGUF_PY_TYPES:
        by_python = {name: (gguf.quants.quantize(weights, type), type) for name, weights in matrices.items()}
        found["gguf_py"] = {**ours, **by_python}
    norm = sum(float(np.square(weights, dtype=np.float64).sum()) for weights in matrices.values())

    def relative_rmse(blocks: dict[str, tuple[np.ndarray, Type]]) -> float:
        error = sum(squared_error(weights, blocks[name][0], type) for name, weights in matrices.items())
        return float(np.sqrt(error / norm))

    def prediction_error(blocks: dict[str, tuple[np.ndarray, Type]]) -> float:
        return measure(denoiser, rebuild(blocks, source), False)["prediction_error"]

    return {
        "layers": layers,
        "relative_rmse": {name: relative_rmse(blocks) for name, blocks in found.items()},
        "prediction_error": {name: prediction_error(blocks) for name, blocks in found.items()},
        "ggml_weights_per_second": sum(weights.size for weights in matrices.values()) / float(np.median(seconds)),
    }


def main(library: str, model: str, folder: str, runs: str) -> None:
    ggml = Ggml(library)
    denoiser = Denoiser(model)
    names = [path.stem for path in Path(folder).glob("*.gguf") if not path.stem.endswith("-calibrated")]
    results = {
        name: measure_type(Type[name.upper()], ggml, denoiser, Path(folder), int(runs)) for name in sorted(names)
    }
    print(json.dumps(results))


main(*sys.argv[1:])
