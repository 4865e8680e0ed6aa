/** Reads a statistics file: headers and small arrays; Hessians and held-back rows are only located. */
import { createHash } from "node:crypto";
import type { z } from "zod";
import { ArrowQuantError } from "../errors.js";
import { openSafetensors } from "../formats/safetensors/reader.js";
import { type OpenFile, readExactly, withFile } from "../io/read.js";
import { assertUnchanged } from "../io/unchanged.js";
import type { InputStatistics } from "../plan/input-distributions.js";
import type { SourceFile, TensorInfo } from "../tensor/info.js";
import {
  type ChannelStatistic,
  INFO_KEY,
  listStatisticsTensors,
  STATISTICS_KEY,
  STATISTICS_VERSION,
  type StatisticsInfo,
  statisticsInfo,
  tensorNameOf,
  type ValueInfo,
} from "./statistics-info.js";

export type { StatisticsInfo, ValueInfo } from "./statistics-info.js";

/** Statistics of what a layer is multiplied with; T time bins, C channels, K columns. */
export interface LayerStatistics extends InputStatistics {
  /** Key of the value in `StatisticsInfo.values`; layers of the same input share it. */
  readonly value: string;
  readonly cols: number;
  /** Consecutive columns of one channel: K/C, but of a grouped convolution kernel height · width. */
  readonly colsPerChannel: number;
  /** Then all arrays but `meansq` and `count` are empty: the source (an imatrix) knows no more. */
  readonly secondMomentsOnly: boolean;
  /** [T, C], row-major. */
  readonly absmax: Float32Array;
  /** F32 [K, K], XᵀX/n. */
  readonly hessian: { readonly path: string; readonly byteOffset: number; readonly byteLength: number } | null;
  /** F32 [rowCount, K]. */
  readonly heldBack: { readonly path: string; readonly byteOffset: number; readonly rowCount: number } | null;
  /** The time at which each held-back row passed. */
  readonly heldBackTime: Float32Array | null;
}

export interface Statistics {
  readonly path: string;
  /** SHA-256 of the file. */
  readonly fingerprint: string;
  readonly info: StatisticsInfo;
  /** Tensors of the model that have statistics. */
  readonly layerNames: ReadonlySet<string>;
  /**
   * The statistics of a tensor's input; null where there are none. Throws `E_STATISTICS` for figures that cannot be
   * (NaN, a minimum above its maximum, …), `E_CHANGED` where the file is no longer the one that was opened.
   */
  read(tensorName: string): Promise<LayerStatistics | null>;
}

/** How much of the file is hashed at a time. */
const HASH_BLOCK_BYTES = 1024 * 1024;

/** Largest exponent of a histogram's range: beyond it float32 ends. Smallest: below it float32 is zero. */
const MAX_EXPONENT = 128;
const MIN_EXPONENT = -149;

/**
 * Opens a statistics file that this program wrote. Throws `E_STATISTICS` where it is another safetensors file, its
 * info is malformed or its tensors are not those of the info; besides what `openSafetensors` throws.
 */
export async function openStatistics(path: string): Promise<Statistics> {
  const { files, tensors, metadata } = await openSafetensors(path, path);
  const info = readInfo(metadata[0] ?? new Map(), path);
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  checkTensors(info, byName, path);
  checkInfo(info, path);
  const [file] = files as readonly [SourceFile];
  const layers = new Map(Object.entries(info.layers));
  return {
    path,
    fingerprint: await hashFile(path),
    info,
    layerNames: new Set(layers.keys()),
    read: async (tensorName) => {
      const key = layers.get(tensorName);
      if (key === undefined) return null;
      await assertUnchanged([file]);
      return withFile(path, (open) => readLayer(open, key, info, byName));
    },
  };
}

/** Whether the file at `path` is a statistics file of ours; false for anything that cannot be read as one. */
export async function isStatisticsFile(path: string): Promise<boolean> {
  try {
    const { metadata } = await openSafetensors(path, path);
    return metadata[0]?.has(STATISTICS_KEY) === true;
  } catch {
    return false;
  }
}

function readInfo(metadata: ReadonlyMap<string, string>, path: string): StatisticsInfo {
  const version = metadata.get(STATISTICS_KEY);
  if (version !== STATISTICS_VERSION) {
    throw statisticsError(
      path,
      version === undefined
        ? "it is a safetensors file without statistics"
        : `its version is ${JSON.stringify(version.slice(0, 20))}, known is "${STATISTICS_VERSION}"`,
      { version: version ?? null },
      "arrowquant calibrate writes one",
    );
  }
  let json: unknown;
  try {
    json = JSON.parse(metadata.get(INFO_KEY) ?? "");
  } catch (cause) {
    throw statisticsError(path, `"${INFO_KEY}" is no JSON`, { cause: String(cause) });
  }
  const parsed = statisticsInfo.safeParse(json);
  if (parsed.success) return parsed.data;
  throw statisticsError(path, `"${INFO_KEY}": ${firstIssue(parsed.error)}`, {});
}

function firstIssue(error: z.ZodError): string {
  const [issue] = error.issues;
  return `${issue?.path.map(String).join(".").slice(0, 200)}: ${issue?.message.slice(0, 200)}`;
}

/** That the file holds the tensors its info speaks of, and no others. */
function checkTensors(info: StatisticsInfo, byName: ReadonlyMap<string, TensorInfo>, path: string): void {
  const expected = listStatisticsTensors(info);
  for (const { name, dtype, shape } of expected) {
    const found = byName.get(name);
    if (found?.dtype === dtype && `${found.shape}` === `${shape}`) continue;
    const what = found === undefined ? "is missing" : `is ${found.dtype} [${found.shape}]`;
    throw statisticsError(path, `tensor ${JSON.stringify(name)} ${what}, ${dtype} [${shape}] belongs there`, {
      tensor: name,
      expected: { dtype, shape },
      found: found === undefined ? null : { dtype: found.dtype, shape: found.shape },
    });
  }
  if (byName.size === expected.length) return;
  const known = new Set(expected.map(({ name }) => name));
  const extra = [...byName.keys()].find((name) => !known.has(name));
  throw statisticsError(path, `tensor ${JSON.stringify(extra)} belongs to no value`, { tensor: extra });
}

/** What the schema cannot say: references, order of the time bins, columns against channels. */
function checkInfo(info: StatisticsInfo, path: string): void {
  for (const [tensorName, key] of Object.entries(info.layers)) {
    if (Object.hasOwn(info.values, key)) continue;
    throw statisticsError(path, `layer ${JSON.stringify(tensorName)} refers to ${JSON.stringify(key)}, there is none`, {
      layer: tensorName,
      value: key,
    });
  }
  for (const [key, value] of Object.entries(info.values)) {
    const expected = (value.channels / (value.conv?.groups ?? 1)) * colsPerChannel(value);
    if (value.cols === expected) continue;
    throw statisticsError(
      path,
      `value ${JSON.stringify(key)} has ${value.cols} columns, its channels and geometry make ${expected}`,
      { value: key, cols: value.cols, expected },
    );
  }
  const { start, end, bins } = info.time;
  let reached = start;
  for (const [index, bin] of bins.entries()) {
    if (bin.start !== reached || !(bin.end > bin.start)) {
      throw statisticsError(
        path,
        `time bin ${index} goes from ${bin.start} to ${bin.end}, the one before ends at ${reached}`,
        { bin: index },
      );
    }
    reached = bin.end;
  }
  if (reached !== end) {
    throw statisticsError(path, `the time bins end at ${reached}, the time at ${end}`, { reached, end });
  }
}

function colsPerChannel({ conv }: Pick<ValueInfo, "conv">): number {
  return conv === null ? 1 : conv.kernel[0] * conv.kernel[1];
}

async function readLayer(
  file: OpenFile,
  key: string,
  info: StatisticsInfo,
  byName: ReadonlyMap<string, TensorInfo>,
): Promise<LayerStatistics> {
  const value = info.values[key] as ValueInfo;
  const bytesOf = async (part: string): Promise<ArrayBuffer> => {
    const location = byName.get(tensorNameOf(key, part))?.location;
    if (location === undefined) return new ArrayBuffer(0);
    const bytes = new Uint8Array(location.byteLength);
    await readExactly(file, bytes, location.byteOffset);
    return bytes.buffer;
  };
  const floats = async (part: ChannelStatistic) => new Float32Array(await bytesOf(part));
  const located = (part: string) => {
    const location = byName.get(tensorNameOf(key, part))?.location;
    return location === undefined ? null : { path: file.path, ...location };
  };
  const hessian = located("hessian");
  const heldBack = located("heldback");
  const layer: LayerStatistics = {
    value: key,
    channels: value.channels,
    cols: value.cols,
    colsPerChannel: colsPerChannel(value),
    secondMomentsOnly: info.secondMomentsOnly,
    absmax: await floats("absmax"),
    min: await floats("min"),
    max: await floats("max"),
    mean: await floats("mean"),
    meansq: await floats("meansq"),
    count: Float64Array.from(new BigInt64Array(await bytesOf("count")), Number),
    histogram: new Uint32Array(await bytesOf("histogram")),
    histogramExponent: new Int32Array(await bytesOf("histogram_exponent")),
    hessian:
      hessian === null ? null : { path: hessian.path, byteOffset: hessian.byteOffset, byteLength: hessian.byteLength },
    heldBack:
      heldBack === null
        ? null
        : { path: heldBack.path, byteOffset: heldBack.byteOffset, rowCount: heldBack.byteLength / (4 * value.cols) },
    heldBackTime: heldBack === null ? null : new Float32Array(await bytesOf("heldback_time")),
  };
  checkFigures(layer, file.path);
  return layer;
}

/** Figures that no activations can have would make nonsense of everything computed from them. */
function checkFigures(layer: LayerStatistics, path: string): void {
  const fail = (part: string, index: number, found: unknown): never => {
    throw statisticsError(path, `${part}[${index}] of ${JSON.stringify(layer.value)} is ${found}`, {
      value: layer.value,
      part,
      index,
    });
  };
  const check = (part: keyof LayerStatistics & string, holds: (value: number, index: number) => boolean): void => {
    const values = layer[part] as Float32Array;
    const index = values.findIndex((value, at) => !holds(value, at));
    if (index >= 0) fail(part, index, values[index]);
  };
  check("count", (value) => value >= 0 && Number.isSafeInteger(value));
  check("meansq", (value) => value >= 0 && value < Infinity);
  check("histogramExponent", (value) => value >= MIN_EXPONENT && value <= MAX_EXPONENT);
  check("absmax", (value) => value >= 0 && value < Infinity);
  check("mean", Number.isFinite);
  check("min", Number.isFinite);
  check("max", (value, index) => Number.isFinite(value) && value >= (layer.min[index] as number));
  if (layer.heldBackTime !== null) check("heldBackTime", Number.isFinite);
}

async function hashFile(path: string): Promise<string> {
  return withFile(path, async (file) => {
    const hash = createHash("sha256");
    const block = Buffer.allocUnsafeSlow(HASH_BLOCK_BYTES);
    for (let at = 0; at < file.byteLength; at += block.length) {
      const part = block.subarray(0, Math.min(block.length, file.byteLength - at));
      await readExactly(file, part, at);
      hash.update(part);
    }
    return hash.digest("hex");
  });
}

function statisticsError(
  path: string,
  problem: string,
  details: Record<string, unknown>,
  hint?: string,
): ArrowQuantError {
  return new ArrowQuantError("E_STATISTICS", `statistics file "${path}": ${problem}`, {
    hint: hint ?? "the file was not written by this program, or is damaged: calibrate again",
    details: { path, ...details },
  });
}
