"""Does an exported graph pass onnx's own checker, and does ONNX Runtime predict with it what the model does?

check_onnx.py MODEL.onnx EVAL_REFERENCE.safetensors
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file

TIMES = 3


def prediction_error(path: str, reference: dict[str, np.ndarray]) -> float:
    """Mean over some timesteps of ‖p − step_pred‖/‖step_pred‖ (shared/models/README.md)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    labels = reference["step_class_labels"].astype(np.int64)
    errors = []
    for index in np.linspace(0, len(reference["step_t"]) - 1, TIMES).astype(int):
        sample = reference["step_x_t"][index]
        timestep = np.full(len(sample), reference["step_t"][index], np.int64)
        (found,) = session.run(None, {"sample": sample, "timestep": timestep, "class_labels": labels})
        expected = reference["step_pred"][index]
        errors.append(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return float(np.mean(errors))


def main(path: str, reference: str) -> None:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    operators = Counter(node.op_type for node in model.graph.node)
    print(
        json.dumps(
            {
                "matMulNBits": operators["MatMulNBits"],
                "dequantizeLinear": operators["DequantizeLinear"],
                "predictionError": prediction_error(path, load_file(reference)),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
