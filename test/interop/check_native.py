"""check_native.py JOBS.json: every check of native files this program wrote, many in one process.

A job is {native, exported, sources: [safetensors files], config: path or null, expect: columns
that every quantized row must hold}. Prints one JSON array, a result per job, in order.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from check_layout import check_layout
from check_metrics import check_metrics
from check_rebuild import compare_rebuilt
from native_reader import FormatError, read_native
from safetensors_file import list_entries

MAX_PROBLEMS = 20


def check_job(job: dict) -> dict:
    try:
        tensors = read_native(job["native"])
    except FormatError as error:
        return {"problems": [str(error)]}
    entries = list_entries(job["sources"])
    config = None if job["config"] is None else Path(job["config"])
    problems = check_layout(job["native"], tensors, entries, config)
    rebuilt = compare_rebuilt(tensors, job["exported"], same_order=True)
    problems += rebuilt.problems
    problems += [f'"{name}"[{index}]: sign of a zero' for name, index in rebuilt.zero_signs]
    metric_problems, cosines = check_metrics(tensors, entries)
    problems += metric_problems
    for tensor in tensors:
        for column, value in job["expect"].items():
            if not tensor.kept and tensor.rows[0][column] != value:
                found = tensor.rows[0][column]
                problems.append(f'"{tensor.name}": {column} is {found}, expected {value}')
    return {
        "problems": problems[:MAX_PROBLEMS],
        "tensors": len(tensors),
        "rows": sum(len(tensor.rows) for tensor in tensors),
        "quantized": list(cosines),
        "parameters": sum(tensor.rows[0]["num_params"] for tensor in tensors),
        "min_cosine": min(cosines.values(), default=None),
    }


def main(jobs: str) -> int:
    json.dump([check_job(job) for job in json.loads(Path(jobs).read_text())], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
