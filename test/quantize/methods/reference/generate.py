"""Makes methods.safetensors: python generate.py MODELS_FOLDER (numpy and safetensors needed).

Rows of real layers and of weights that are hard to handle, and what hqq and mse store of them. The cases
stand as JSON in the file's metadata; tensor `case.<number>` holds the stored parts of one, end to end.
"""
import json
import sys
from pathlib import Path

import numpy as np
from methods import Spec, hqq, mse
from safetensors.numpy import load_file, save_file

USUAL = [  # group, scale bits, zero-point bits, super-group
    (32, 6, 6, 1024),
    (64, None, None, None),
]
AWKWARD = [(50, 8, None, 100), (20, None, 6, None), (17, 2, 2, 34)]


def pack(codes, bits):
    """Little-endian bit order, every row padded to a byte (FORMAT.md, Codes)."""
    unpacked = (codes.astype(np.uint8)[:, :, None] >> np.arange(bits)) & 1
    return np.packbits(unpacked.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")


def sources(models):
    dit = load_file(models / "dit-mnist/transformer/diffusion_pytorch_model.safetensors")
    unet = load_file(models / "unet-mnist/unet/diffusion_pytorch_model.safetensors")
    rng = np.random.default_rng(2)
    sparse = np.where(rng.random((3, 150)) < 0.9, 0, rng.standard_normal((3, 150)))
    return {
        "dit.attn1.to_q": (dit["transformer_blocks.0.attn1.to_q.weight"][:4], USUAL),
        "dit.ff.net.2": (dit["transformer_blocks.2.ff.net.2.weight"][:1], USUAL),
        "unet.mid.conv1": (unet["mid_block.resnets.0.conv1.weight"].reshape(128, -1)[:1], USUAL),
        "heavy tails": (rng.standard_t(2, (3, 333)).astype(np.float32), AWKWARD),
        "sparse": (sparse.astype(np.float32), AWKWARD),
        "shifted and large": (((rng.standard_normal((2, 203)) + 2) * 1e25).astype(np.float32), AWKWARD),
    }


def cases(name, storages):
    for bits in (2, 3, 4, 5, 6, 8):
        for group, scale_bits, zero_bits, super_group in storages:
            base = dict(source=name, bits=bits, groupSize=group)
            base |= dict(scaleBits=scale_bits, zeroPointBits=zero_bits, superGroupSize=super_group)
            base |= dict(symmetric=False, weighting="none", preserveGain=False)
            yield base | dict(method="hqq")
            yield base | dict(method="mse")
            yield base | dict(method="mse", weighting="magnitude", preserveGain=True, importance=bits in (3, 4))
            if zero_bits != 6:
                yield base | dict(method="mse", symmetric=True)


def quantize(w, case, importance):
    keys = ("bits", "groupSize", "scaleBits", "zeroPointBits", "superGroupSize", "symmetric")
    spec = Spec(*(case[key] for key in keys))
    if case["method"] == "hqq":
        return hqq(w, spec)
    h = importance[: w.shape[1]] if case.get("importance") else None
    return mse(w, spec, case["weighting"] == "magnitude", case["preserveGain"], h)


def main():
    used = sources(Path(sys.argv[1]))
    importance = np.random.default_rng(3).gamma(0.5, 300.0, 2048).astype(np.float32)
    tensors = {f"source.{name}": np.ascontiguousarray(w) for name, (w, _) in used.items()}
    tensors["importance"] = importance
    listed = [case for name, (_, storages) in used.items() for case in cases(name, storages)]
    for number, case in enumerate(listed):
        out = quantize(used[case["source"]][0], case, importance)
        parts = {"data": pack(out["codes"], case["bits"])}
        if case["scaleBits"] is None:
            parts["scales"] = out["s"]
        else:
            parts["scales"] = out["S"]
            parts["scaleCodes"] = pack(out["c"], case["scaleBits"])
        if not case["symmetric"]:
            if case["zeroPointBits"] is None:
                parts["zeroPoints"] = out["z"]
            else:
                parts["zeroPointCodes"] = pack(out["d"], case["zeroPointBits"])
        # One blob a case: a header entry takes more bytes than a part.
        blob = b"".join(np.ascontiguousarray(part).tobytes() for part in parts.values())
        case["parts"] = {key: part.nbytes for key, part in parts.items()}
        tensors[f"case.{number}"] = np.frombuffer(blob, np.uint8)
    metadata = {"cases": json.dumps(listed, separators=(",", ":"))}
    save_file(tensors, Path(__file__).with_name("methods.safetensors"), metadata)


main()
