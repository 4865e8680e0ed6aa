"""Writes random ONNX models with PyTorch-like layers, by the onnx package, and describes them.

make_onnx.py FOLDER COUNT SEED -> JSON list of {path, weights: {name: [rows, cols]}}

Each is a chain of MatMul and Gemm of odd shapes, its weights inside or as external data, float32 or
float16, named or nameless; the inputs are made in check_random_onnx.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BATCH = 3


def build(index: int, rng: np.random.Generator) -> tuple[onnx.ModelProto, dict[str, list[int]]]:
    dtype, element = [(np.float32, TensorProto.FLOAT), (np.float16, TensorProto.FLOAT16)][index % 3 == 2]
    nodes, initializers, weights = [], [], {}
    width = int(rng.integers(3, 90))
    value, first = "x", width

    def weight(name: str, shape: list[int]) -> str:
        values = (rng.standard_normal(shape) / np.sqrt(shape[-1] * 1.0)).astype(dtype)
        initializers.append(numpy_helper.from_array(values, name))
        return name

    for layer in range(int(rng.integers(2, 6))):
        out = int(rng.integers(2, 90))
        kind = ["MatMul", "MatMulNameless", "Gemm", "GemmTransposed", "Transpose"][int(rng.integers(0, 5))]
        path = f"/blocks.{layer}/linear"
        result = f"h{layer}"
        name = f"blocks.{layer}.linear.weight"
        if kind == "MatMul":
            nodes.append(helper.make_node("MatMul", [value, weight(name, [width, out])], [result], f"{path}/MatMul"))
        elif kind == "MatMulNameless":
            inner = weight(f"onnx::MatMul_{layer}", [width, out])
            nodes.append(helper.make_node("MatMul", [value, inner], [result], f"{path}/MatMul"))
        elif kind == "Gemm":
            bias = weight(f"blocks.{layer}.linear.bias", [out])
            inputs = [value, weight(name, [out, width]), bias]
            nodes.append(helper.make_node("Gemm", inputs, [result], f"{path}/Gemm", transB=1))
        elif kind == "GemmTransposed":
            nodes.append(helper.make_node("Gemm", [value, weight(name, [width, out])], [result], f"{path}/Gemm"))
        else:
            turned = f"t{layer}"
            nodes.append(helper.make_node("Transpose", [weight(name, [out, width])], [turned], perm=[1, 0]))
            nodes.append(helper.make_node("MatMul", [value, turned], [result], f"{path}/MatMul"))
        weights[name] = [out, width]
        value, width = result, out
    gain = weight("gain", [1, width])
    nodes.append(helper.make_node("Mul", [value, gain], ["y"], "/norm/Mul"))
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("x", element, [BATCH, first])],
        [helper.make_tensor_value_info("y", element, [BATCH, width])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model, weights


def main(folder: str, count: str, seed: str) -> None:
    rng = np.random.default_rng(int(seed))
    written = []
    for index in range(int(count)):
        model, weights = build(index, rng)
        path = str(Path(folder) / f"random{index}.onnx")
        options = {"save_as_external_data": True, "size_threshold": 0, "location": f"random{index}.bin"}
        onnx.save(model, path, **(options if index % 2 else {}))
        written.append({"path": path, "weights": weights})
    print(json.dumps(written))


if __name__ == "__main__":
    main(*sys.argv[1:])
