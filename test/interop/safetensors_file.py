"""A safetensors file or sharded set by its headers, in order of byte offset, shard by shard."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dtypes import decode_bytes


@dataclass(frozen=True)
class Entry:
    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    begin: int
    end: int

    def read(self) -> np.ndarray:
        with self.path.open("rb") as file:
            file.seek(self.begin)
            return decode_bytes(file.read(self.end - self.begin), self.dtype).reshape(self.shape)


def list_entries(paths: list[str] | list[Path]) -> list[Entry]:
    entries: list[Entry] = []
    for path in map(Path, paths):
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_bytes))
        header.pop("__metadata__", None)
        base = 8 + header_bytes
        shard = [
            Entry(
                name,
                info["dtype"],
                tuple(info["shape"]),
                path,
                base + info["data_offsets"][0],
                base + info["data_offsets"][1],
            )
            for name, info in header.items()
        ]
        entries += sorted(shard, key=lambda entry: (entry.begin, entry.end))
    return entries
