/** Writes a safetensors file: header first, then each tensor's bytes at their place, in whatever order they come. */
import { DTYPES, type Dtype } from "../../tensor/dtype.js";
import { countElements } from "../../tensor/layout.js";

export interface OutputTensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

export interface SafetensorsLayout {
  /** Length field, JSON and padding. */
  readonly header: Uint8Array;
  /** Where each tensor's bytes begin in the file. */
  readonly byteOffsets: ReadonlyMap<string, number>;
  readonly byteLength: number;
}

/** Mark in `__metadata__` by which our own output is known again; safetensors files name no author otherwise. */
export const WRITER_KEY = "written_by";
export const WRITER_NAME = "arrowquant";

/** The header is padded with spaces so that tensor data begins at a multiple of this, as the reference does. */
const ALIGNMENT = 8;

/**
 * Lays tensors out by falling element size, so that each is aligned to its own type, otherwise in the order given
 * (safetensors/src/tensor.rs, `prepare`).
 * @param metadata more entries of `__metadata__`
 */
export function layOutSafetensors(
  tensors: readonly OutputTensor[],
  metadata: Readonly<Record<string, string>> = {},
): SafetensorsLayout {
  const ordered = [...tensors].sort((a, b) => DTYPES[b.dtype].bits - DTYPES[a.dtype].bits);
  const entries: Record<string, unknown> = Object.create(null);
  // transformers and diffusers load a file only where its format says "pt".
  entries["__metadata__"] = { format: "pt", [WRITER_KEY]: WRITER_NAME, ...metadata };
  const relative = new Map<string, number>();
  let end = 0;
  for (const { name, dtype, shape } of ordered) {
    const begin = end;
    end += (countElements(shape) * DTYPES[dtype].bits) / 8;
    entries[name] = { dtype, shape, data_offsets: [begin, end] };
    relative.set(name, begin);
  }
  const json = new TextEncoder().encode(JSON.stringify(entries));
  const padded = Math.ceil(json.byteLength / ALIGNMENT) * ALIGNMENT;
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  const byteOffsets = new Map([...relative].map(([name, begin]) => [name, header.byteLength + begin]));
  return { header, byteOffsets, byteLength: header.byteLength + end };
}
