"""duckdb_check.py NATIVE...: what DuckDB, with no plug-in, sees in native files.

Prints one JSON array: per file its rows, layers, parameters, sums that reach into lists and
structs, so that these columns are decoded too, and the keys of its metadata in file order.
"""

from __future__ import annotations

import json
import sys

import duckdb

LAYERS = """
    select layer_name, count(*) as chunks, any_value(num_params) as num_params,
           any_value(quant_type) as quant_type, sum(octet_length(data)) as data_bytes,
           sum(len(scales)) as scales, sum(metrics.source_norm2) as source_norm2
    from read_parquet(?) group by layer_name
"""

TOTALS = f"""
    select sum(chunks), count(*), sum(num_params), sum(num_params) filter (quant_type <> 'none'),
           sum(data_bytes), sum(scales), sum(source_norm2)
    from ({LAYERS})
"""

NAMES = (
    "rows",
    "layers",
    "parameters",
    "quantized_parameters",
    "data_bytes",
    "scales",
    "source_norm2",
)


def main(natives: list[str]) -> int:
    connection = duckdb.connect()
    results = []
    for native in natives:
        row = connection.execute(TOTALS, [native]).fetchone()
        totals = {name: value or 0 for name, value in zip(NAMES, row)}
        totals = {
            name: value if isinstance(value, float) else int(value) for name, value in totals.items()
        }
        keys = connection.execute("select key from parquet_kv_metadata(?)", [native]).fetchall()
        results.append({**totals, "metadata_keys": [key.decode() for (key,) in keys]})
    json.dump(results, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
