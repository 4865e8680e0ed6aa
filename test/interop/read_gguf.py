"""read_gguf.py FOLDER: every GGUF file of FOLDER as gguf-py reads it.

Beside each NAME.gguf goes NAME.read.safetensors with the float32 values by gguf-py's `dequantize`, under the shapes that
its reader gives (outermost first); integers as int64. Prints {NAME: {metadata: {key: value}, types: {tensor: type}}}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

Type = gguf.GGMLQuantizationType


def read_field(field: gguf.ReaderField):
    if field.types[0] is gguf.GGUFValueType.STRING:
        return str(bytes(field.parts[-1]), encoding="utf-8")
    values = [field.parts[index].tolist()[0] for index in field.data]
    return values if field.types[0] is gguf.GGUFValueType.ARRAY else values[0]


def read_tensor(tensor: gguf.ReaderTensor) -> np.ndarray:
    shape = tuple(int(size) for size in reversed(tensor.shape))
    if tensor.tensor_type.name.startswith("I"):
        return np.ascontiguousarray(tensor.data.astype(np.int64)).reshape(shape)
    if tensor.n_elements == 0:
        return np.zeros(shape, np.float32)
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return np.ascontiguousarray(values.astype(np.float32)).reshape(shape)


def main(folder: Path) -> None:
    found = {}
    for path in sorted(folder.glob("*.gguf")):
        reader = gguf.GGUFReader(path)
        fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        found[path.name] = {
            "metadata": {key: read_field(field) for key, field in fields.items()},
            "types": {tensor.name: tensor.tensor_type.name for tensor in reader.tensors},
        }
        save_file({tensor.name: read_tensor(tensor) for tensor in reader.tensors}, path.with_suffix(".read.safetensors"))
    print(json.dumps(found))


main(Path(sys.argv[1]))
