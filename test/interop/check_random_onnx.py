"""Do graphs that were quantized pass onnx's checker and compute, in ONNX Runtime, what their weights rebuilt by the
native file say?

check_random_onnx.py LIST.json -> JSON list of {operators, half, error}; LIST: of {original, quantized, rebuilt}

REBUILT is a safetensors file of the native file's weights in float32, [out, in] as the program sees them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from safetensors.numpy import load_file


def run(model: onnx.ModelProto | str, x: np.ndarray) -> np.ndarray:
    source = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return y.astype(np.float64)


def rebuild(path: str, rebuilt: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The original with the weights of the native file, found by name or by the path of the node."""
    model = onnx.load(path)
    by_initializer = {}
    for node in model.graph.node:
        for name in node.input:
            by_initializer.setdefault(name, node.name.rsplit("/", 1)[0].strip("/").replace("/", "."))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        name = tensor.name if tensor.name in rebuilt else f"{by_initializer[tensor.name]}.weight"
        found = rebuilt[name]
        if found.shape != values.shape:
            found = found.T
        elif values.ndim == 2 and values.shape[0] == values.shape[1]:
            # A square one does not show which way it lies: the nearer one is meant.
            turned = np.abs(found.T - values).sum() < np.abs(found - values).sum()
            found = found.T if turned else found
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(found.astype(values.dtype)), tensor.name))
    return model


def check(original: str, quantized: str, rebuilt: str) -> dict:
    model = onnx.load(quantized)
    onnx.checker.check_model(model)
    source = onnx.load(original)
    assert [i.name for i in model.graph.input] == [i.name for i in source.graph.input]
    assert model.graph.output[0].type == source.graph.output[0].type
    shape = [d.dim_value for d in source.graph.input[0].type.tensor_type.shape.dim]
    dtype = np.float16 if source.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16 else np.float32
    x = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    expected = run(rebuild(original, load_file(rebuilt)), x)
    error = np.linalg.norm(run(quantized, x) - expected) / np.linalg.norm(expected)
    return {
        "operators": Counter(node.op_type for node in model.graph.node),
        "half": bool(dtype == np.float16),
        "error": float(error),
    }


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf8") as file:
        print(json.dumps([check(**each) for each in json.load(file)]))
