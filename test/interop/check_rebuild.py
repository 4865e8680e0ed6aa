"""check_rebuild.py [--exported] NATIVE EXPECTED.safetensors: are the rebuilt tensors equal?

Prints one JSON document {ok, tensors, problems, zero_signs}; exit status 1 where not `ok`. Equal
is equal to the bit: `zero_signs` lists the elements that are +0 on one side and -0 on the other,
which make `ok` false like any other difference. --exported: EXPECTED was written by `arrowquant
export`, so the order of the tensors and the shape [] of scalars must be the native file's too.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass

import numpy as np
from safetensors import safe_open

from dtypes import as_exported
from native_reader import FormatError, Tensor, read_native
from safetensors_file import list_entries

MAX_PROBLEMS = 20


@dataclass
class Comparison:
    problems: list[str]
    # [tensor name, flat index] of elements that differ in the sign of a zero alone.
    zero_signs: list[tuple[str, int]]


def differing_elements(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Flat indices of the elements whose bytes differ (so -0 is not 0, and a NaN is itself)."""
    width = left.dtype.itemsize
    left_bytes = np.ascontiguousarray(left).reshape(-1).view(np.uint8).reshape(-1, width)
    right_bytes = np.ascontiguousarray(right).reshape(-1).view(np.uint8).reshape(-1, width)
    return np.flatnonzero((left_bytes != right_bytes).any(axis=1))


def compare_rebuilt(
    tensors: list[Tensor], expected: str, same_order: bool, scalar_as_vector: bool = False
) -> Comparison:
    """Names, order, shapes, types and bits against a safetensors file of float32 exports.

    `scalar_as_vector`: the file was written by a library that stores shape [] as [1].
    """
    problems: list[str] = []
    zero_signs: list[tuple[str, int]] = []
    entries = {entry.name: entry for entry in list_entries([expected])}
    # Exports stand by falling element size, so that each tensor is aligned to its own type; otherwise in file order.
    ordered = sorted(tensors, key=lambda t: -as_exported(t.values).dtype.itemsize) if same_order else tensors
    names = [tensor.name for tensor in ordered]
    if (names if same_order else sorted(names)) != (
        list(entries) if same_order else sorted(entries)
    ):
        problems.append(
            f"names differ: only native {sorted(set(names) - set(entries))[:5]}, "
            f"only expected {sorted(set(entries) - set(names))[:5]}, or the order"
        )
    with safe_open(expected, "np") as file:  # the format's own reader must take it too
        if sorted(file.keys()) != sorted(entries):
            problems.append("the safetensors library lists other names")
    for tensor in tensors:
        if tensor.name not in entries:
            continue
        wanted = entries[tensor.name].read()
        rebuilt = as_exported(tensor.values)
        shape = (1,) if scalar_as_vector and tensor.shape == () else tensor.shape
        if wanted.shape != shape:
            problems.append(f'"{tensor.name}": shape {shape}, expected file {wanted.shape}')
        elif wanted.dtype != rebuilt.dtype:
            problems.append(f'"{tensor.name}": {rebuilt.dtype}, expected file {wanted.dtype}')
        else:
            indices = differing_elements(rebuilt, wanted)
            flat = rebuilt.reshape(-1)[indices], wanted.reshape(-1)[indices]
            zeros = (flat[0] == 0) & (flat[1] == 0)
            zero_signs += [(tensor.name, int(index)) for index in indices[zeros]]
            if not zeros.all():
                count = int((~zeros).sum())
                problems.append(f'"{tensor.name}": {count} of {wanted.size} elements differ')
    return Comparison(problems[:MAX_PROBLEMS], zero_signs[:MAX_PROBLEMS])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("native")
    parser.add_argument("expected")
    parser.add_argument("--exported", action="store_true")
    args = parser.parse_args()
    tensors: list[Tensor] = []
    try:
        tensors = read_native(args.native)
        comparison = compare_rebuilt(
            tensors,
            args.expected,
            same_order=args.exported,
            scalar_as_vector=not args.exported,
        )
    except FormatError as error:
        comparison = Comparison([str(error)], [])
    ok = not comparison.problems and not comparison.zero_signs
    json.dump({"ok": ok, "tensors": len(tensors), **asdict(comparison)}, sys.stdout)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
