/** Float32 initializers as float16, slab by slab through the kernels. */

import type { OnnxInitializer } from "../formats/onnx/read.js";
import type { InitializerBytes } from "../formats/onnx/write.js";
import { convertRows, readRows } from "../graph/weight-rows.js";
import { loadKernels } from "../kernels/load.js";
import { DTYPES } from "../tensor/dtype.js";

/** Elements that are turned at a time, whatever the shape. */
const RUN_ELEMENTS = 64 * 1024;

/** The bytes that a graph has for an initializer. */
export function readInitializer({ name, dtype, shape, place, bytes }: OnnxInitializer): InitializerBytes {
  const runBytes = (RUN_ELEMENTS * DTYPES[dtype].bits) / 8;
  const chunks = () => (place === null ? only(bytes) : readRows(place, runBytes));
  return { name, dtype, shape, chunks };
}

export function halveBytes({ name, shape, chunks }: InitializerBytes): InitializerBytes {
  const types = { from: "F32", to: "F16" } as const;
  // Chunks may end anywhere within the shape, but on whole elements.
  return { name, dtype: "F16", shape, chunks: () => convertRows(loadKernels(), name, chunks, 1, types) };
}

async function* only(bytes: Uint8Array | null): AsyncGenerator<Uint8Array> {
  if (bytes !== null) yield bytes;
}
