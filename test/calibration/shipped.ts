/** The shipped models, and statistics that another implementation took of them (shared/models/README.md). */
import { open } from "node:fs/promises";
import { join } from "node:path";
import { calibrateModel } from "../../dist/calibration/calibrate.js";
import type { CalibrateJob, CalibrateResult } from "../../dist/calibration/calibration-job.js";
import { type LayerStatistics, openStatistics, type Statistics } from "../../dist/calibration/statistics.js";
import { Session } from "../../dist/engine/session.js";
import { openSafetensors } from "../../dist/formats/safetensors/reader.js";
import type { TensorInfo } from "../../dist/tensor/info.js";
import { MODELS } from "../graph/onnx-model.ts";
import { smallJob } from "./small-model.js";

export { areModelsHere } from "../graph/onnx-model.ts";

export async function calibrateShipped(
  model: string,
  cacheFolder: string,
  rest: Partial<CalibrateJob> = {},
): Promise<CalibrateResult> {
  await using session = new Session({ threads: 2 });
  const input = join(MODELS, model);
  return await calibrateModel(
    smallJob(input, cacheFolder, { source: join(input, "calibration.parquet"), heldBackEvery: 0, ...rest }),
    session,
  );
}

/** float32 tensors and int64 counts of a safetensors file, by name. */
export async function readTensors(path: string): Promise<(name: string) => Promise<Float32Array | BigInt64Array>> {
  const { tensors } = await openSafetensors(path, path);
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  return async (name) => {
    const { location, dtype } = byName.get(name) as TensorInfo;
    const bytes = await readBytes(path, location.byteOffset, location.byteLength);
    return dtype === "I64" ? new BigInt64Array(bytes) : new Float32Array(bytes);
  };
}

export async function readBytes(path: string, byteOffset: number, byteLength: number): Promise<ArrayBuffer> {
  const file = await open(path);
  try {
    const bytes = new Uint8Array(byteLength);
    await file.read(bytes, 0, byteLength, byteOffset);
    return bytes.buffer;
  } finally {
    await file.close();
  }
}

const PARTS = ["absmax", "min", "max", "mean", "meansq"] as const;
/** The shipped file has groups of 100 timesteps. */
const GROUP_COUNT = 10;
const groupOf = (time: number) => Math.floor(time / 100);

/** Figures of a layer in the shipped file's groups: our bins merged. */
function mergeBins(layer: LayerStatistics, times: readonly number[], group: number) {
  const bins = times.flatMap((time, bin) => (groupOf(time) === group ? [bin] : []));
  const count = bins.reduce((sum, bin) => sum + (layer.count[bin] as number), 0);
  const merge = (part: (typeof PARTS)[number], c: number): number => {
    const values = bins.map((bin) => layer[part][bin * layer.channels + c] as number);
    if (part === "min") return Math.min(...values);
    if (part === "max" || part === "absmax") return Math.max(...values);
    return values.reduce(
      (sum, value, index) => sum + (value * (layer.count[bins[index] as number] as number)) / count,
      0,
    );
  };
  return { count, merge };
}

/**
 * The largest difference of any figure of any module from the shipped file's, in units of the largest magnitude (for
 * second moments the largest moment) of the module in that group; and the modules that were not compared.
 */
export async function compareShipped(
  model: string,
  statistics: Statistics,
): Promise<{ worst: number; compared: number; missing: string[] }> {
  const path = join(MODELS, model, "activations.safetensors");
  const { tensors } = await openSafetensors(path, path);
  const read = await readTensors(path);
  const modules = tensors.flatMap(({ name }) => (name.endsWith(".count") ? [name.slice(0, -".count".length)] : []));
  const times = statistics.info.time.bins.map(({ value }) => value);
  let worst = 0;
  const missing: string[] = [];
  for (const module of modules) {
    const layer = await statistics.read(`${module}.weight`);
    if (layer === null) {
      missing.push(module);
      continue;
    }
    const counts = await read(`${module}.count`);
    const shipped = new Map<string, Float32Array>();
    for (const part of PARTS) shipped.set(part, (await read(`${module}.${part}`)) as Float32Array);
    for (let group = 0; group < GROUP_COUNT; group++) {
      const { count, merge } = mergeBins(layer, times, group);
      if (BigInt(count) !== counts[group]) throw new Error(`${module} group ${group}: ${count} of ${counts[group]}`);
      if (count === 0) continue;
      for (const part of PARTS) {
        const of = (name: string) =>
          shipped.get(name)?.subarray(group * layer.channels, (group + 1) * layer.channels) ?? [];
        const scale = Math.max(...of(part === "meansq" ? "meansq" : "absmax"), 1e-30);
        for (const [c, value] of [...of(part)].entries()) {
          worst = Math.max(worst, Math.abs(merge(part, c) - value) / scale);
        }
      }
    }
  }
  return { worst, compared: modules.length - missing.length, missing };
}

/** ‖ours − shipped‖ / ‖shipped‖ of every shipped Hessian. */
export async function compareHessians(model: string, statistics: Statistics): Promise<Map<string, number>> {
  const path = join(MODELS, model, "hessians.safetensors");
  const { tensors } = await openSafetensors(path, path);
  const read = await readTensors(path);
  const errors = new Map<string, number>();
  for (const { name } of tensors) {
    const shipped = (await read(name)) as Float32Array;
    const place = (await statistics.read(`${name}.weight`))?.hessian;
    if (place == null) throw new Error(`${name} has no Hessian`);
    const ours = new Float32Array(await readBytes(place.path, place.byteOffset, place.byteLength));
    if (ours.length !== shipped.length) throw new Error(`${name} has ${ours.length} elements, not ${shipped.length}`);
    let difference = 0;
    let norm = 0;
    for (const [index, value] of shipped.entries()) {
      difference += ((ours[index] as number) - value) ** 2;
      norm += value ** 2;
    }
    errors.set(name, Math.sqrt(difference / norm));
  }
  return errors;
}

export { openStatistics };
