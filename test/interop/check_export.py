"""check_export.py FOLDER PLAIN.safetensors: does FOLDER, an export's component, hold what PLAIN holds?

FOLDER is read by the safetensors package, by its index where there is one; packed layers are
rebuilt from the description of compressed-tensors' `pack-quantized` in float32 arithmetic. PLAIN
is the float32 export of the same native file. Equal is equal to the bit, but that -0 is 0 in packed
layers. Prints one JSON document {ok, problems, plain, packed}; exit status 1 where not `ok`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

PARTS = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")


def load_folder(folder: Path, problems: list[str]) -> dict[str, np.ndarray]:
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if not indexes:
        (path,) = folder.glob("*.safetensors")
        return load_file(path)
    index = json.loads(indexes[0].read_text("utf8"))
    tensors: dict[str, np.ndarray] = {}
    for name in sorted(set(index["weight_map"].values())):
        shard = load_file(folder / name)
        problems += [f"{key} stands twice" for key in shard if key in tensors]
        problems += [f"{key} is not where the index says" for key in shard if index["weight_map"].get(key) != name]
        tensors.update(shard)
    if set(tensors) != set(index["weight_map"]):
        problems.append("the index names other tensors than the shards hold")
    if sum(tensor.nbytes for tensor in tensors.values()) != index["metadata"]["total_size"]:
        problems.append("total_size is not the sum of all tensors")
    return tensors


def unpack(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """int32 words [rows, n] to `count` unsigned codes a row, from the lowest bit of the first word on."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words.view(np.uint32)[:, :, None] >> shifts) & np.uint32(2**bits - 1)
    return codes.reshape(words.shape[0], -1)[:, :count].astype(np.float32)


def decompress(parts: dict[str, np.ndarray], weights: dict) -> np.ndarray:
    bits = weights["num_bits"]
    rows, cols = (int(size) for size in parts["weight_shape"])
    scale = parts["weight_scale"]
    codes = unpack(parts["weight_packed"], bits, cols)
    zero = np.full(scale.shape, 2 ** (bits - 1), np.float32)
    if not weights["symmetric"]:
        zero = unpack(np.ascontiguousarray(parts["weight_zero_point"].T), bits, rows).T
    group = cols if weights["strategy"] == "channel" else weights["group_size"]
    return (codes - np.repeat(zero, group, axis=1)) * np.repeat(scale, group, axis=1)


def main() -> int:
    folder, plain = Path(sys.argv[1]), load_file(sys.argv[2])
    problems: list[str] = []
    tensors = load_folder(folder, problems)
    config = json.loads((folder / "config.json").read_text("utf8"))
    packed = 0
    for scheme in config.get("quantization_config", {}).get("config_groups", {}).values():
        for module in scheme["targets"]:
            parts = {part: tensors.pop(f"{module}.{part}") for part in PARTS if f"{module}.{part}" in tensors}
            if not np.array_equal(decompress(parts, scheme["weights"]), plain.pop(f"{module}.weight")):
                problems.append(f"{module} is rebuilt otherwise")
            packed += 1
    if set(tensors) != set(plain):
        problems.append(f"tensors differ: {sorted(set(tensors) ^ set(plain))[:5]}")
    for name in set(tensors) & set(plain):
        if tensors[name].tobytes() != plain[name].tobytes():
            problems.append(f"{name} differs")
    print(json.dumps({"ok": not problems, "problems": problems[:20], "plain": len(tensors), "packed": packed}))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
