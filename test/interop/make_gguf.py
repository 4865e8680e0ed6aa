"""make_gguf.py FOLDER SEED: GGUF files as gguf-py writes them, and what gguf-py reads in them.

`blocks.gguf` has tensors of every type that arrowquant reads, `blocks-0000N-of-0000M.gguf` is the same in pieces,
`blocks.expected.safetensors` holds their float32 values by gguf-py's `dequantize`, under the shapes that they are to
be read with. Blocks are random bytes with finite scales, the extreme ones of float16 among them: of what a quantizer
writes, only a part of all blocks would be met.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

Type = gguf.GGMLQuantizationType

# Where the float16 scales and minima of a block stand.
SCALES = {
    Type.Q4_0: (0,),
    Type.Q4_1: (0, 2),
    Type.Q5_0: (0,),
    Type.Q5_1: (0, 2),
    Type.Q8_0: (0,),
    Type.Q2_K: (80, 82),
    Type.Q3_K: (108,),
    Type.Q4_K: (0, 2),
    Type.Q5_K: (0, 2),
    Type.Q6_K: (208,),
}
EXTREMES = np.array([0.0, -0.0, 2**-24, -(2**-24), 1023 * 2**-24, 2**-14, 65504, -65504, 1, -1], "<f2")
PLAIN = (Type.F32, Type.F16, Type.BF16, Type.F64, Type.I8, Type.I16, Type.I32, Type.I64)
ROWS = 6


def random_blocks(random: np.random.Generator, count: int, kind: Type) -> np.ndarray:
    _, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    for offset in SCALES[kind]:
        scales = (random.standard_normal(count) * 0.01).astype("<f2")
        chosen = random.random(count) < 0.4
        scales[chosen] = random.choice(EXTREMES, chosen.sum())
        blocks[:, offset : offset + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks


def plain_values(random: np.random.Generator, kind: Type) -> np.ndarray:
    shape = (3, 2, 5)
    if kind is Type.BF16:
        return (random.standard_normal(shape).astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8)
    numpy_type = {"F": "f", "I": "i"}[kind.name[0]] + str(int(kind.name[1:]) // 8)
    values = random.standard_normal(shape) * 50
    return values.astype("<" + numpy_type)


def write_all(writer: gguf.GGUFWriter, random: np.random.Generator) -> dict[str, np.ndarray]:
    expected = {}
    for kind in PLAIN:
        values = plain_values(random, kind)
        writer.add_tensor(f"plain.{kind.name}", values, raw_dtype=kind)
        if kind in (Type.F32, Type.F16, Type.BF16):
            expected[f"plain.{kind.name}"] = gguf.dequantize(values, kind).reshape(3, 2, 5)
        elif kind is Type.F64:
            expected["plain.F64"] = values.astype("<f4")
    for kind in SCALES:
        elements, _ = gguf.GGML_QUANT_SIZES[kind]
        for name, shape in [
            ("matrix", (ROWS, 2 * elements)),
            ("volume", (2, 3, elements)),
            ("five", (2, 1, 1, 3, elements)),
            ("vector", (elements,)),
        ]:
            count = int(np.prod(shape))
            blocks = random_blocks(random, count // elements, kind).reshape(*shape[:-1], -1)
            writer.add_tensor(f"{name}.{kind.name}", blocks, raw_dtype=kind)
            expected[f"{name}.{kind.name}"] = gguf.dequantize(blocks, kind)
        # As ComfyUI-GGUF does with convolutions: rows of 36 in blocks that 36 does not divide.
        shape = (64, 4, 3, 3)
        blocks = random_blocks(random, 64 * 36 // elements, kind)
        if elements == 256:
            name = f"reshaped.{kind.name}"
            writer.add_array(f"comfy.gguf.orig_shape.{name}", shape)
            writer.add_tensor(name, blocks.reshape(9, -1), raw_dtype=kind)
            expected[name] = gguf.dequantize(blocks, kind).reshape(shape)
    return expected


def write_metadata(writer: gguf.GGUFWriter) -> None:
    writer.add_string("general.name", "every type")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_array("tokenizer.ggml.tokens", [f"token{i}" for i in range(300)])
    writer.add_array("tokenizer.ggml.scores", [float(i) for i in range(300)])
    writer.add_array("test.flags", [True, False])
    writer.add_int64("test.negative", -5)
    writer.add_float64("test.double", 0.1)


def main(folder: str, seed: str) -> int:
    out = Path(folder)
    for name, options in [("blocks.gguf", {}), ("blocks-split.gguf", {"split_max_tensors": 20})]:
        writer = gguf.GGUFWriter(out / name, "flux", **options)
        write_metadata(writer)
        expected = write_all(writer, np.random.default_rng(int(seed)))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    save_file(expected, out / "blocks.expected.safetensors")
    json.dump(sorted(path.name for path in out.glob("blocks*")), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
