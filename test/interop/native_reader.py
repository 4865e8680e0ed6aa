"""Reads the native file (Parquet V2 Extended, and plain V2) with pyarrow and numpy.

Written from FORMAT.md alone, as a second opinion: nothing here was taken from the program it
checks. It favours the wording of the text over speed and refuses whatever the text forbids.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dtypes import decode_bytes, element_bytes

# In the order in which their bytes enter the checksum, after `data`.
CHECKED_COLUMNS = (
    "scales",
    "zero_points",
    "scale_codes",
    "zero_point_codes",
    "residual_scale_codes",
)

# Columns that hold one value for the whole tensor, repeated in every chunk.
TENSOR_COLUMNS = (
    "shape",
    "dtype",
    "num_params",
    "quant_type",
    "quant_axis",
    "group_size",
    "is_diffusion_model",
    "modality",
    "time_aware_quant",
    "spatial_quant",
    "activation_stats",
    "component",
    "method",
    "stored_dtype",
    "chunk_count",
    "scale_bits",
    "super_group_size",
    "zero_point_bits",
)

QUANT_TYPES = {f"int{bits}": bits for bits in (2, 3, 4, 5, 6, 8)}


class FormatError(Exception):
    """The file breaks FORMAT.md."""


@dataclass
class Tensor:
    """One tensor of the file, rebuilt: float32 if it was quantized, else as it was stored."""

    name: str
    shape: tuple[int, ...]
    source_dtype: str
    stored_dtype: str | None
    bits: int | None
    method: str | None
    values: np.ndarray
    rows: list[dict] = field(repr=False)

    @property
    def kept(self) -> bool:
        return self.bits is None


def view_as_2d(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of `[o, i, …]`; fewer than two dimensions are rows of one element."""
    count = int(np.prod(shape, dtype=np.int64))
    if len(shape) < 2:
        return count, 1
    return shape[0], int(np.prod(shape[1:], dtype=np.int64))


def ceil_divide(count: int, size: int) -> int:
    return -(-count // size)


def unpack_codes(packed: bytes, rows: int, count: int, bits: int, what: str) -> np.ndarray:
    """uint8 [rows, count] from codes packed row by row in little-endian bit order."""
    row_bytes = ceil_divide(count * bits, 8)
    if len(packed) != rows * row_bytes:
        raise FormatError(f"{what}: {len(packed)} bytes, {rows} rows of {row_bytes} expected")
    matrix = np.frombuffer(packed, np.uint8).reshape(rows, row_bytes)
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = (matrix[:, :, None] >> shifts) & np.uint8(2**bits - 1)
        codes = codes.reshape(rows, row_bytes * (8 // bits))
        padding = codes[:, count:]
    else:
        stream = np.unpackbits(matrix, axis=1, bitorder="little")
        padding = stream[:, count * bits :]
        stream = stream[:, : count * bits].reshape(rows, count, bits)
        codes = np.packbits(stream, axis=2, bitorder="little").reshape(rows, count)
    if padding.any():
        raise FormatError(f"{what}: unused bits are set")
    return codes[:, :count]


def float32_list(values: list[float] | None) -> np.ndarray | None:
    return None if values is None else np.asarray(values, np.float32)


def checksum(row: dict) -> int:
    crc = zlib.crc32(row["data"])
    for column in CHECKED_COLUMNS:
        value = row[column]
        if value is None:
            continue
        chunk = value if isinstance(value, bytes) else np.asarray(value, "<f4").tobytes()
        crc = zlib.crc32(chunk, crc)
    return crc


def expect_nulls(row: dict, columns: tuple[str, ...], because: str) -> None:
    for column in columns:
        if row[column] is not None:
            raise FormatError(f'"{row["layer_name"]}": {column} is set although {because}')


def per_group(row: dict, column: str, count: int, rows: int, what: str) -> np.ndarray:
    """float32 [rows, count] of a list column."""
    values = float32_list(row[column])
    if values is None or values.size != rows * count:
        found = None if values is None else values.size
        raise FormatError(f"{what}: {column} has {found} values, {rows} x {count} expected")
    return values.reshape(rows, count)


def rebuild_rows(row: dict, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 [rows of this chunk, cols], every step one float32 operation."""
    name = f'"{row["layer_name"]}" chunk {row["chunk_index"]}'
    cols = view_as_2d(shape)[1]
    row_bytes = ceil_divide(cols * bits, 8)
    rows = len(row["data"]) // row_bytes
    group_size = row["group_size"]
    if row["quant_axis"] != 1 or not group_size:
        raise FormatError(f"{name}: quant_axis {row['quant_axis']}, group_size {group_size}")
    codes = unpack_codes(row["data"], rows, cols, bits, f"{name}: data")
    groups = ceil_divide(cols, group_size)
    group_of_col = np.arange(cols) // group_size

    scale_bits = row["scale_bits"]
    super_scales = None
    if scale_bits is None:
        expect_nulls(row, ("super_group_size", "scale_codes"), "scale_bits is null")
        scale = per_group(row, "scales", groups, rows, name)
    else:
        super_size = row["super_group_size"]
        if not super_size or super_size % group_size != 0:
            raise FormatError(f"{name}: super-groups of {super_size}, groups of {group_size}")
        supers = ceil_divide(cols, super_size)
        super_of_group = np.arange(groups) // (super_size // group_size)
        super_scales = per_group(row, "scales", supers, rows, name)[:, super_of_group]
        scale_codes = unpack_codes(
            row["scale_codes"], rows, groups, scale_bits, f"{name}: scale_codes"
        )
        scale = super_scales * scale_codes.astype(np.float32)

    if row["method"] == "r2q":
        if super_scales is None:
            raise FormatError(f"{name}: r2q without scale_bits")
        expect_nulls(row, ("zero_points", "zero_point_bits", "zero_point_codes"), "it is r2q")
        residual_codes = unpack_codes(
            row["residual_scale_codes"], rows, groups, scale_bits, f"{name}: residual_scale_codes"
        )
        residual = super_scales * residual_codes.astype(np.float32)
        first = 2 * (codes >> 1).astype(np.float32) - np.float32(1)
        second = 2 * (codes & 1).astype(np.float32) - np.float32(1)
        weights = scale[:, group_of_col] * first + residual[:, group_of_col] * second
    else:
        expect_nulls(row, ("residual_scale_codes",), "it is not r2q")
        zero_point_bits = row["zero_point_bits"]
        if zero_point_bits is not None:
            expect_nulls(row, ("zero_points",), "zero points are coded")
            zero_point_codes = unpack_codes(
                row["zero_point_codes"], rows, groups, zero_point_bits, f"{name}: zero_point_codes"
            )
            step = np.float32((2**bits - 1) / (2**zero_point_bits - 1))
            zero_point = (zero_point_codes.astype(np.float32) * step)[:, group_of_col]
        else:
            expect_nulls(row, ("zero_point_codes",), "zero_point_bits is null")
            if row["zero_points"] is not None:
                zero_point = per_group(row, "zero_points", groups, rows, name)[:, group_of_col]
            else:
                zero_point = np.float32(2 ** (bits - 1))
        weights = (codes.astype(np.float32) - zero_point) * scale[:, group_of_col]

    spatial = row["spatial_quant"]
    if spatial is not None and spatial["equalization_scales"]:
        by_channel = float32_list(spatial["equalization_scales"])
        if len(shape) < 2 or by_channel.size != shape[1]:
            raise FormatError(f"{name}: {by_channel.size} equalization scales, shape {shape}")
        weights = weights / by_channel[np.arange(cols) // (cols // shape[1])]
    assert weights.dtype == np.float32
    return weights


def check_chunk_runs(rows: list[dict]) -> list[list[dict]]:
    """Rows of each tensor, which stand one after another, chunk 0 … chunk_count − 1."""
    tensors: list[list[dict]] = []
    seen = set()
    for row in rows:
        name = row["layer_name"]
        if row["chunk_index"] == 0:
            if name in seen:
                raise FormatError(f'"{name}" stands twice')
            seen.add(name)
            tensors.append([row])
            continue
        run = tensors[-1] if tensors else []
        if not run or run[0]["layer_name"] != name or row["chunk_index"] != len(run):
            raise FormatError(f'"{name}": chunk {row["chunk_index"]} is out of place')
        run.append(row)
    for run in tensors:
        first = run[0]
        if first["chunk_count"] != len(run):
            raise FormatError(
                f'"{first["layer_name"]}": {len(run)} chunks of {first["chunk_count"]}'
            )
        for row in run[1:]:
            for column in TENSOR_COLUMNS:
                if row[column] != first[column]:
                    raise FormatError(f'"{first["layer_name"]}": chunks disagree on {column}')
    return tensors


def rebuild_tensor(run: list[dict]) -> Tensor:
    first = run[0]
    name, shape = first["layer_name"], tuple(first["shape"])
    rows, cols = view_as_2d(shape)
    if first["num_params"] != rows * cols:
        raise FormatError(f'"{name}": num_params {first["num_params"]}, shape {shape}')
    for row in run:
        if checksum(row) != row["crc32"]:
            raise FormatError(f'"{name}" chunk {row["chunk_index"]}: checksum does not match')
    quant_type = first["quant_type"]
    if quant_type == "none":
        null = ("quant_axis", "group_size", "method", "metrics", "scale_bits", "zero_point_bits")
        stored_dtype = first["stored_dtype"]
        for row in run:
            expect_nulls(row, CHECKED_COLUMNS + null, "the tensor is kept")
            if len(row["data"]) % (element_bytes(stored_dtype) * max(cols, 1)) != 0:
                raise FormatError(f'"{name}" chunk {row["chunk_index"]}: not whole rows')
        raw = b"".join(row["data"] for row in run)
        if len(raw) != rows * cols * element_bytes(stored_dtype):
            raise FormatError(f'"{name}": {len(raw)} bytes, shape {shape} of {stored_dtype}')
        values, bits = decode_bytes(raw, stored_dtype), None
    elif quant_type in QUANT_TYPES:
        if len(shape) < 2 or rows * cols == 0:
            raise FormatError(f'"{name}": shape {shape} can only be kept')
        bits, stored_dtype = QUANT_TYPES[quant_type], None
        for row in run:
            expect_nulls(row, ("stored_dtype",), "the tensor is quantized")
        values = np.concatenate([rebuild_rows(row, bits, shape) for row in run])
        if values.shape != (rows, cols):
            raise FormatError(f'"{name}": {values.shape[0]} rows, shape {shape}')
    else:
        raise FormatError(f'"{name}": quant_type {quant_type}')
    return Tensor(
        name, shape, first["dtype"], stored_dtype, bits, first["method"], values.reshape(shape), run
    )


def rebuild_plain_tensor(row: dict) -> Tensor:
    """A row of a plain V2 file: columns 1 to 10, one row a tensor."""
    name, shape = row["layer_name"], tuple(row["shape"])
    rows, cols = view_as_2d(shape)
    if row["num_params"] != rows * cols:
        raise FormatError(f'"{name}": num_params {row["num_params"]}, shape {shape}')
    if row["quant_type"] == "none":
        values = decode_bytes(row["data"], row["dtype"]).reshape(shape)
        return Tensor(name, shape, row["dtype"], row["dtype"], None, None, values, [row])
    bits = QUANT_TYPES[row["quant_type"]]
    if len(row["data"]) == rows * cols:
        codes = np.frombuffer(row["data"], np.uint8).reshape(rows, cols)
        if codes.size and codes.max() > 2**bits - 1:
            raise FormatError(f'"{name}": a code passes {2**bits - 1}')
    else:
        codes = unpack_codes(row["data"], rows, cols, bits, f'"{name}": data')

    def spread(values: np.ndarray) -> np.ndarray:
        """One value per element of the 2-D view, from one per group, per index or in all."""
        group_size, axis = row["group_size"], row["quant_axis"]
        if group_size is not None:
            groups = ceil_divide(cols, group_size)
            if axis not in (None, 1) or values.size != rows * groups:
                raise FormatError(f'"{name}": {values.size} scales, axis {axis}')
            return values.reshape(rows, groups)[:, np.arange(cols) // group_size]
        if values.size == 1:
            return values.reshape(1, 1)
        if axis is not None and values.size == (rows, cols)[axis]:
            return values.reshape((rows, 1) if axis == 0 else (1, cols))
        raise FormatError(f'"{name}": {values.size} scales, axis {axis}, no group_size')

    scale = spread(float32_list(row["scales"]))
    zero_points = float32_list(row["zero_points"])
    zero_point = np.float32(2 ** (bits - 1)) if zero_points is None else spread(zero_points)
    values = (codes.astype(np.float32) - zero_point) * scale
    return Tensor(
        name, shape, row["dtype"], None, bits, None, values.astype(np.float32).reshape(shape), [row]
    )


def read_native(path: str | Path) -> list[Tensor]:
    """Every tensor of the file in file order; raises FormatError where it breaks FORMAT.md."""
    rows = pq.ParquetFile(path).read().to_pylist()
    if rows and "is_diffusion_model" not in rows[0]:
        return [rebuild_plain_tensor(row) for row in rows]
    return [rebuild_tensor(run) for run in check_chunk_runs(rows)]
