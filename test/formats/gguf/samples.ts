/** Files that gguf-py wrote (test/interop/make_gguf.py FOLDER 1), and tensors of such files as the kernels read them. */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openModel } from "../../../dist/formats/open.js";
import { Converter } from "../../../dist/kernels/converter.js";
import type { KernelBuild } from "../../../dist/kernels/load.js";
import { spanOf } from "../../../dist/tensor/dtype.js";
import type { Component, TensorInfo } from "../../../dist/tensor/info.js";
import { countElements, viewAs2d } from "../../../dist/tensor/layout.js";
import { kernelsOf } from "../../kernels/harness.js";

export const SAMPLES = fileURLToPath(new URL("samples/", import.meta.url));

export async function openComponent(path: string): Promise<Component> {
  const { components } = await openModel(path);
  return components[0] as Component;
}

/** float32 of a tensor, read `slabRows` rows at a time. */
export function readFloats(
  build: KernelBuild,
  component: Component,
  tensor: TensorInfo,
  { cols = viewAs2d(tensor.shape).cols, slabRows = Infinity } = {},
): Float32Array {
  const { dtype, location, shape } = tensor;
  const rows = countElements(shape) / cols;
  const converter = new Converter(kernelsOf(build), {
    cols,
    slabRows: Math.min(slabRows, rows),
    sourceDtype: dtype,
    sourceScale: "none",
    outDtype: "F32",
  });
  const fd = openSync(component.files[location.file]?.path ?? "", "r");
  const parts: Uint8Array[] = [];
  for (let row = 0; row < rows; row += slabRows) {
    const rowCount = Math.min(slabRows, rows - row);
    const { byteOffset, byteLength, skip } = spanOf(dtype, row * cols, rowCount * cols);
    const target = converter.source(rowCount, skip);
    if (target.byteLength !== byteLength) throw new Error(`${target.byteLength} bytes of ${byteLength}`);
    readSync(fd, target, 0, byteLength, location.byteOffset + byteOffset);
    parts.push(converter.convert(rowCount).slice());
  }
  closeSync(fd);
  return new Float32Array(Uint8Array.from(Buffer.concat(parts)).buffer);
}

/** What gguf-py's `dequantize` gave: float32 and shape of each tensor. */
export function readExpected(folder: string): ReadonlyMap<string, { shape: number[]; bits: Uint32Array }> {
  const bytes = readFileSync(join(folder, "blocks.expected.safetensors"));
  const headerEnd = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, headerEnd)) as Record<
    string,
    { shape: number[]; data_offsets: [number, number] }
  >;
  return new Map(
    Object.entries(header).map(([name, { shape, data_offsets: offsets }]) => {
      const data = Uint8Array.from(bytes.subarray(headerEnd + offsets[0], headerEnd + offsets[1]));
      return [name, { shape, bits: new Uint32Array(data.buffer) }];
    }),
  );
}
