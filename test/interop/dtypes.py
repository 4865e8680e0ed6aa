"""Element types by their safetensors names, as numpy arrays, and their exact float32 values."""

from __future__ import annotations

import numpy as np

# Types that numpy has itself.
NUMPY_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}

# Types that numpy lacks, decoded to float32 from their bits.
WIDENED_TYPES = {"BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}


def float8_table(exponent_bits: int, has_infinity: bool) -> np.ndarray:
    """Values of the 256 bytes. E4M3 ("fn") has no infinity and one NaN pattern per sign."""
    mantissa_bits = 7 - exponent_bits
    bias = 2 ** (exponent_bits - 1) - 1
    values = np.empty(256, np.float32)
    for byte in range(256):
        sign = -1.0 if byte & 0x80 else 1.0
        exponent = (byte >> mantissa_bits) & (2**exponent_bits - 1)
        mantissa = byte & (2**mantissa_bits - 1)
        top = exponent == 2**exponent_bits - 1
        if top and has_infinity:
            value = np.nan if mantissa else np.inf
        elif top and mantissa == 2**mantissa_bits - 1:
            value = np.nan
        elif exponent == 0:
            value = mantissa * 2.0 ** (1 - bias - mantissa_bits)
        else:
            value = (1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent - bias)
        values[byte] = sign * value
    return values


FLOAT8_TABLES = {
    "F8_E4M3": float8_table(4, has_infinity=False),
    "F8_E5M2": float8_table(5, has_infinity=True),
}


def element_bytes(dtype: str) -> int:
    return np.dtype(NUMPY_TYPES.get(dtype) or WIDENED_TYPES[dtype]).itemsize


def decode_bytes(raw: bytes, dtype: str) -> np.ndarray:
    """Flat array: the type itself where numpy has it, else float32 of the same values."""
    if dtype in NUMPY_TYPES:
        return np.frombuffer(raw, NUMPY_TYPES[dtype])
    bits = np.frombuffer(raw, WIDENED_TYPES[dtype])
    if dtype == "BF16":
        return (bits.astype("<u4") << 16).view("<f4")
    return FLOAT8_TABLES[dtype][bits]


def as_exported(values: np.ndarray) -> np.ndarray:
    """What `export --dtype f32` holds of a tensor: floats as float32, all others as they are."""
    return values.astype(np.float32) if values.dtype.kind == "f" else values
