"""Writes calibration data as pyarrow and the data sets library would: make_calibration.py FOLDER.

128 rows of {sample 1x4x4, timestep, class_label} with numbers that float16 holds, in every list type and
compression that is common, and a folder as Dataset.save_to_disk leaves it. Prints the rows as JSON.
"""

import json
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

folder = sys.argv[1]
rng = np.random.default_rng(5)
samples = rng.standard_normal((128, 1, 4, 4)).astype(np.float16).astype(np.float64)
timesteps = [int(value) for value in rng.integers(0, 1000, 128)]
labels = [int(value) for value in rng.integers(0, 11, 128)]


def nested(item):
    return pa.list_(pa.list_(pa.list_(item)))


TYPES = {
    "nested": (samples.tolist(), nested(pa.float32())),
    "flat": (samples.reshape(128, -1).tolist(), pa.list_(pa.float32())),
    "double": (samples.tolist(), nested(pa.float64())),
    "large": (samples.reshape(128, -1).tolist(), pa.large_list(pa.float32())),
    "fixed": (samples.reshape(128, -1).tolist(), pa.list_(pa.float32(), 16)),
    "half": (samples.reshape(128, -1).astype(np.float16).tolist(), pa.list_(pa.float16(), 16)),
}


def table(kind):
    values, item = TYPES[kind]
    return pa.table(
        {
            "note": pa.array(["a text"] * 128).dictionary_encode(),
            "sample": pa.array(values, item),
            "timestep": pa.array(timesteps, pa.int32() if kind == "double" else pa.int64()),
            "class_label": pa.array(labels, pa.uint8() if kind == "flat" else pa.int64()),
        }
    )


def write_stream(path, data):
    with ipc.new_stream(path, data.schema) as writer:
        writer.write_table(data, max_chunksize=50)


for kind in TYPES:
    data = table(kind)
    write_stream(os.path.join(folder, f"{kind}.stream.arrow"), data)
    with ipc.new_file(os.path.join(folder, f"{kind}.file.arrow"), data.schema) as writer:
        writer.write_table(data, max_chunksize=50)
    pq.write_table(data, os.path.join(folder, f"{kind}.parquet"), row_group_size=50)
for codec in ["none", "gzip", "zstd", "brotli", "lz4"]:
    path = os.path.join(folder, f"{codec}.parquet")
    pq.write_table(table("nested"), path, compression=codec, use_dictionary=codec != "zstd", data_page_version="2.0")

saved = os.path.join(folder, "saved")
os.mkdir(saved)
data = table("nested")
names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
write_stream(os.path.join(saved, names[0]), data.slice(0, 70))
write_stream(os.path.join(saved, names[1]), data.slice(70))
with open(os.path.join(saved, "state.json"), "w", encoding="utf-8") as file:
    json.dump({"_data_files": [{"filename": name} for name in names], "_format_type": None, "_split": None}, file)
with open(os.path.join(saved, "dataset_info.json"), "w", encoding="utf-8") as file:
    json.dump({"builder_name": "digits", "features": {}, "splits": {}}, file)

print(json.dumps({"samples": samples.reshape(128, -1).tolist(), "timesteps": timesteps, "labels": labels}))
