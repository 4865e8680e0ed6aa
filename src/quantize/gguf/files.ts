/** The files of a GGUF output: one, or the pieces of a split, each with its header laid out. */
import { readHeader } from "../../formats/gguf/header.js";
import { originalShapeKey } from "../../formats/gguf/original-shape.js";
import { GGUF_OUTPUT_TYPES } from "../../formats/gguf/output-type.js";
import { PREFIX_KEY, SOURCE_KEY, VERSION_KEY } from "../../formats/gguf/own-keys.js";
import { SPLIT_KEYS, splitName } from "../../formats/gguf/split.js";
import { alignUp } from "../../formats/gguf/tensors.js";
import {
  ALIGNMENT,
  type GgufLayout,
  type GgufValue,
  layOutGguf,
  QUANTIZATION_VERSION,
} from "../../formats/gguf/writer.js";
import { withFile } from "../../io/read.js";
import { readVersion } from "../../version.js";
import type { GgufPlan, GgufTensorPlan } from "./job.js";

export interface PlannedFile {
  /** In the output's folder. */
  readonly path: string;
  readonly tensors: readonly GgufTensorPlan[];
  readonly layout: GgufLayout;
}

/**
 * Cuts tensors, in their order, into files of at most `maxBytes`, headers included; a larger tensor has one to itself.
 * @param source JSON of the files that the model was read from, and their fingerprint
 */
export function planFiles(
  plan: GgufPlan,
  output: string,
  source: string,
  maxBytes: number | undefined,
): readonly PlannedFile[] {
  const metadata = metadataOf(plan, source);
  const pieces = cut(plan.tensors, metadata, maxBytes ?? Infinity);
  return pieces.map((tensors, index): PlannedFile => {
    const isSplit = pieces.length > 1;
    const values = new Map(index === 0 ? metadata : []);
    if (isSplit) {
      values.set(SPLIT_KEYS.number, { type: "uint16", value: index });
      values.set(SPLIT_KEYS.count, { type: "uint16", value: pieces.length });
      values.set(SPLIT_KEYS.tensorCount, { type: "int32", value: plan.tensors.length });
      values.set(VERSION_KEY, { type: "string", value: readVersion() });
    }
    return {
      path: isSplit ? splitName(output, index, pieces.length) : output,
      tensors,
      layout: layOutGguf(values, tensors),
    };
  });
}

/** Whether a GGUF file bears the mark of this program. */
export async function isGgufOfOurs(path: string): Promise<boolean> {
  try {
    return await withFile(path, async (file) => (await readHeader(file, path)).metadata.has(VERSION_KEY));
  } catch {
    return false;
  }
}

function metadataOf(plan: GgufPlan, source: string): ReadonlyMap<string, GgufValue> {
  const { architecture, prefix, type, tensors } = plan;
  const values = new Map<string, GgufValue>();
  if (architecture !== null) values.set("general.architecture", { type: "string", value: architecture });
  values.set("general.quantization_version", { type: "uint32", value: QUANTIZATION_VERSION });
  values.set("general.file_type", { type: "uint32", value: GGUF_OUTPUT_TYPES[type].fileType });
  values.set(VERSION_KEY, { type: "string", value: readVersion() });
  values.set(SOURCE_KEY, { type: "string", value: source });
  if (prefix !== "") values.set(PREFIX_KEY, { type: "string", value: prefix });
  for (const { name, originalShape } of tensors) {
    if (originalShape !== null) values.set(originalShapeKey(name), { type: "list of int32", value: originalShape });
  }
  return values;
}

function cut(
  tensors: readonly GgufTensorPlan[],
  metadata: ReadonlyMap<string, GgufValue>,
  maxBytes: number,
): (readonly GgufTensorPlan[])[] {
  const pieces: GgufTensorPlan[][] = [[]];
  // Split keys and padding: a little more than they take.
  const fixedBytes = 256;
  let used = fixedBytes + layOutGguf(metadata, []).header.byteLength;
  for (const tensor of tensors) {
    // Length, name, dimensions, type and offset.
    const entryBytes = 24 + Buffer.byteLength(tensor.name) + 8 * tensor.shape.length;
    const byteLength = entryBytes + alignUp(tensor.byteLength, ALIGNMENT);
    if (used + byteLength > maxBytes && (pieces.at(-1)?.length ?? 0) > 0) {
      pieces.push([]);
      used = fixedBytes;
    }
    pieces.at(-1)?.push(tensor);
    used += byteLength;
  }
  return pieces;
}
