"""Is the file laid out as FORMAT.md says a writer lays it out? Schema, metadata, order, chunks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dtypes import element_bytes
from native_reader import QUANT_TYPES, Tensor, ceil_divide, view_as_2d
from safetensors_file import Entry

CHUNK_BYTES = 4 * 1024 * 1024
ROW_GROUP_BYTES = 4 * 1024 * 1024
# What a row takes beside its byte columns and lists, at most (names, metrics, …): row groups are
# checked for being full with this much slack, since FORMAT.md does not say which bytes count.
ROW_OVERHEAD_BYTES = 4096

# Their order in the file is looked at by duckdb_check.py: pyarrow gives them in an order of its own.
METADATA_KEYS = (
    "arrowquant.format",
    "arrowquant.version",
    "arrowquant.config",
    "arrowquant.source",
    "arrowquant.component_config",
)

# How the header of a V1 data page starts in Thrift's compact protocol: field 1, an i32 (0x15),
# which is the page type DATA_PAGE = 0 (parquet.thrift). A V2 page has 0x06 there.
DATA_PAGE_V1 = b"\x15\x00"

# Settings that do not change tensors and so have no place in arrowquant.config.
FOREIGN_SETTINGS = {
    "threads",
    "num_threads",
    "memory",
    "verbose",
    "quiet",
    "output",
    "output_path",
    "model_path",
    "report",
    "json",
    "force",
}


def required(name: str, type_: pa.DataType) -> pa.Field:
    return pa.field(name, type_, nullable=False)


def list_of(type_: pa.DataType) -> pa.DataType:
    return pa.list_(required("item", type_))


TIME_GROUP = pa.struct(
    [
        required(
            "time_range",
            pa.struct([required("start", pa.float64()), required("end", pa.float64())]),
        ),
        required("scale", pa.float32()),
        required("zero_point", pa.float32()),
        pa.field("group_size", pa.int32()),
    ]
)

SCHEMA = pa.schema(
    [
        required("layer_name", pa.utf8()),
        required("shape", list_of(pa.int64())),
        required("dtype", pa.utf8()),
        required("data", pa.binary()),
        required("num_params", pa.int64()),
        required("quant_type", pa.utf8()),
        pa.field("scales", list_of(pa.float32())),
        pa.field("zero_points", list_of(pa.float32())),
        pa.field("quant_axis", pa.int32()),
        pa.field("group_size", pa.int32()),
        required("is_diffusion_model", pa.bool_()),
        pa.field("modality", pa.utf8()),
        pa.field(
            "time_aware_quant",
            pa.struct(
                [
                    required("enabled", pa.bool_()),
                    required("num_time_groups", pa.int32()),
                    required("activation_bits", pa.int32()),
                    required("time_input", pa.utf8()),
                    required("time_group_params", list_of(TIME_GROUP)),
                ]
            ),
        ),
        pa.field(
            "spatial_quant",
            pa.struct(
                [
                    required("enabled", pa.bool_()),
                    required("channel_equalization", pa.bool_()),
                    required("activation_smoothing", pa.float32()),
                    required("equalization_scales", list_of(pa.float32())),
                ]
            ),
        ),
        pa.field(
            "activation_stats",
            pa.struct([required(name, pa.float32()) for name in ("mean", "std", "min", "max")]),
        ),
        required("component", pa.utf8()),
        pa.field("method", pa.utf8()),
        pa.field("stored_dtype", pa.utf8()),
        pa.field(
            "metrics",
            pa.struct(
                [
                    required(name, pa.float64())
                    for name in ("dot", "source_norm2", "rebuilt_norm2", "error_norm2")
                ]
                + [
                    required(name, pa.float32())
                    for name in (
                        "max_abs_error",
                        "cosine_similarity",
                        "sqnr_db",
                        "relative_rmse",
                    )
                ]
            ),
        ),
        required("crc32", pa.uint32()),
        required("chunk_index", pa.int32()),
        required("chunk_count", pa.int32()),
        pa.field("scale_bits", pa.int32()),
        pa.field("super_group_size", pa.int32()),
        pa.field("scale_codes", pa.binary()),
        pa.field("zero_point_bits", pa.int32()),
        pa.field("zero_point_codes", pa.binary()),
        pa.field("residual_scale_codes", pa.binary()),
    ]
)


def check_schema(file: pq.ParquetFile) -> list[str]:
    problems = []
    found = file.schema_arrow
    if found.names != SCHEMA.names:
        problems.append(f"columns are {found.names}")
    for wanted in SCHEMA:
        index = found.get_field_index(wanted.name)
        if index >= 0 and not found.field(index).equals(wanted):
            problems.append(f"column {found.field(index)}, expected {wanted}")
    for index in range(len(file.schema.names)):
        path = file.schema.column(index).path
        if ".list." in path and ".list.item" not in path:
            problems.append(f"list child of {path} is not called item")
    return problems


def check_storage(native: str | Path, file: pq.ParquetFile) -> list[str]:
    """Uncompressed, data pages V1, no dictionary, no statistics, created_by arrowquant."""
    problems = []
    metadata = file.metadata
    raw = Path(native).read_bytes()
    if metadata.created_by != "arrowquant":
        problems.append(f"created_by is {metadata.created_by}")
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            where = f"row group {group}, {column.path_in_schema}"
            if column.compression != "UNCOMPRESSED":
                problems.append(f"{where}: {column.compression}")
            page = raw[column.data_page_offset : column.data_page_offset + 2]
            if page != DATA_PAGE_V1:
                problems.append(f"{where}: first page header starts {page.hex()}")
            if column.has_dictionary_page or "RLE_DICTIONARY" in column.encodings:
                problems.append(f"{where}: dictionary")
            if column.is_stats_set:
                problems.append(f"{where}: statistics")
    return problems[:5]


def is_sorted(value: object) -> bool:
    """Keys of every object stand in ascending order."""
    if isinstance(value, dict):
        return list(value) == sorted(value) and all(map(is_sorted, value.values()))
    return all(map(is_sorted, value)) if isinstance(value, list) else True


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def check_metadata(file: pq.ParquetFile, sources: list[Path], config: Path | None) -> list[str]:
    problems = []
    pairs = {key.decode(): value.decode() for key, value in (file.metadata.metadata or {}).items()}
    ours = {key for key in pairs if key.startswith("arrowquant.")}
    wanted = set(METADATA_KEYS if config is not None else METADATA_KEYS[:-1])
    if ours != wanted:
        return [f"metadata keys are {sorted(ours)}, expected {sorted(wanted)}"]
    if pairs["arrowquant.format"] != "2.1":
        problems.append(f"arrowquant.format is {pairs['arrowquant.format']}")
    settings = json.loads(pairs["arrowquant.config"])
    if not is_sorted(settings):
        problems.append("arrowquant.config: keys are not sorted")
    if foreign := FOREIGN_SETTINGS & set(settings):
        problems.append(f"arrowquant.config holds {sorted(foreign)}")
    source_text = pairs["arrowquant.source"]
    source = json.loads(source_text)
    if not re.fullmatch("[0-9a-f]{64}", str(source.get("fingerprint"))):
        problems.append(f"arrowquant.source: fingerprint {source.get('fingerprint')}")
    known = leaves(source)
    for path in sources:
        if path.name not in known or path.stat().st_size not in known:
            problems.append(f"arrowquant.source does not hold {path.name} and its size")
        for key in ("arrowquant.config", "arrowquant.source"):
            if str(path.parent) in pairs[key]:
                problems.append(f"{key} holds a path")
    if config is not None and pairs["arrowquant.component_config"] != config.read_text():
        problems.append("arrowquant.component_config is not config.json verbatim")
    return problems


def check_order(tensors: list[Tensor], entries: list[Entry]) -> list[str]:
    """Every tensor of the source, in the order of its byte offsets, with its shape and type."""
    found = [(tensor.name, tensor.source_dtype, tensor.shape) for tensor in tensors]
    wanted = [(entry.name, entry.dtype, entry.shape) for entry in entries]
    if found == wanted:
        return []
    for index, pair in enumerate(zip(found, wanted)):
        if pair[0] != pair[1]:
            return [f"tensor {index} is {pair[0]}, the source has {pair[1]}"]
    return [f"{len(found)} tensors, the source has {len(wanted)}"]


def check_chunks(tensors: list[Tensor]) -> list[str]:
    """rows_per_chunk = max(1, floor(4 MiB / row_bytes)), whole rows of the 2-D view."""
    problems = []
    for tensor in tensors:
        rows, cols = view_as_2d(tensor.shape)
        if tensor.kept:
            row_bytes = cols * element_bytes(tensor.stored_dtype)
        else:
            row_bytes = ceil_divide(cols * QUANT_TYPES[f"int{tensor.bits}"], 8)
        rows_per_chunk = max(1, CHUNK_BYTES // max(row_bytes, 1))
        wanted = [
            min(rows_per_chunk, rows - start) * row_bytes
            for start in range(0, max(rows, 1), rows_per_chunk)
        ]
        found = [len(row["data"]) for row in tensor.rows]
        if rows * cols == 0:
            wanted = [0]
        if found != wanted:
            problems.append(f'"{tensor.name}": chunks of {found[:4]} bytes, expected {wanted[:4]}')
    return problems


def payload_bytes(row: dict) -> int:
    total = 0
    for value in row.values():
        if isinstance(value, bytes):
            total += len(value)
        elif isinstance(value, list):
            total += 4 * len(value)
    return total


def check_row_groups(file: pq.ParquetFile, rows: list[dict]) -> list[str]:
    """Consecutive rows up to 4 MiB, at least one; and no row group ends long before it is full."""
    problems = []
    sizes = [payload_bytes(row) for row in rows]
    start = 0
    for group in range(file.metadata.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        total = sum(sizes[start : start + count])
        start += count
        if count == 0:
            problems.append(f"row group {group} is empty")
        if count > 1 and total > ROW_GROUP_BYTES:
            problems.append(f"row group {group}: {count} rows of {total} bytes")
        with_next = total + sum(sizes[start : start + 1]) + (count + 1) * ROW_OVERHEAD_BYTES
        if start < len(rows) and with_next <= ROW_GROUP_BYTES:
            problems.append(f"row group {group} ends at {total} bytes although the next row fits")
    if start != len(rows):
        problems.append(f"row groups hold {start} rows, the file {len(rows)}")
    return problems


def check_layout(
    native: str | Path, tensors: list[Tensor], entries: list[Entry], config: Path | None
) -> list[str]:
    file = pq.ParquetFile(native)
    sources = list(dict.fromkeys(entry.path for entry in entries))
    rows = [row for tensor in tensors for row in tensor.rows]
    return [
        *check_schema(file),
        *check_storage(native, file),
        *check_metadata(file, sources, config),
        *check_order(tensors, entries),
        *check_chunks(tensors),
        *check_row_groups(file, rows),
    ]
