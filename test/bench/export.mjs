/**
 * Exports of a DiT-XL-shaped model as a user runs them: weights per second, and against the floor of reading the native
 * file and writing as many bytes as the output.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { measureProcess, median } from "./end-to-end.mjs";
import { prepareModel } from "./model.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const PROGRAM = here("../../bin/arrowquant.js");
const FLOOR = here("floor.mjs");
const RESULTS = here("results/export.json");

const BYTES = 1e9;
const RUNS = 5;

/** Each writer with the flags that choose it; the output's name ends in `ending`. */
const WRITERS = {
  "safetensors, F16": { ending: ".safetensors", flags: ["--dtype", "f16"] },
  "safetensors, F32": { ending: ".safetensors", flags: ["--dtype", "f32"] },
  "folder like the original, BF16": { ending: "", flags: ["--dtype", "bf16"], isLike: true },
  "pack-quantized, scales F32": { ending: "", flags: ["--dtype", "f32", "--packed"] },
  "pack-quantized, scales BF16": { ending: "", flags: ["--dtype", "bf16", "--packed"] },
};

async function exportOnce({ ending, flags, isLike }, native, model) {
  const root = dirname(native);
  const output = join(root, `exported${ending}`);
  rmSync(output, { recursive: true, force: true });
  const like = isLike ? ["--like", model.folder] : [];
  const line = ["export", native, "-o", output, ...flags, ...like, "--json"];
  const { stdout, ...measured } = await measureProcess(PROGRAM, line, join(root, "peak"));
  rmSync(output, { recursive: true });
  return { ...measured, bytesOut: JSON.parse(stdout).summary.bytes_out };
}

async function floorOnce(native, bytesOut) {
  const root = dirname(native);
  const output = join(root, "floor.bin");
  const { seconds } = await measureProcess(FLOOR, [native, output, String(bytesOut)], join(root, "peak"));
  rmSync(output);
  return seconds;
}

/** Runs the bench, prints its table, writes its figures. */
export async function benchExport() {
  const model = prepareModel(BYTES);
  const native = join(dirname(model.folder), "exported.parquet");
  const rows = [];
  try {
    // Whole zero points, which the packed format needs.
    const settings = ["--method", "rtn", "--zero-point-bits", "4", "--min-accuracy", "0", "--json"];
    const line = ["quantize", model.folder, "-o", native, "--force", ...settings];
    await measureProcess(PROGRAM, line, join(dirname(native), "peak"));
    for (const [name, writer] of Object.entries(WRITERS)) {
      const { bytesOut } = await exportOnce(writer, native, model);
      const floors = [];
      const runs = [];
      for (let run = 0; run < RUNS; run++) {
        floors.push(await floorOnce(native, bytesOut));
        runs.push(await exportOnce(writer, native, model));
      }
      const seconds = median(runs.map((run) => run.seconds));
      const floorSeconds = median(floors);
      rows.push({
        ...{ name, bytesOut, seconds, floorSeconds, ratio: seconds / floorSeconds },
        weightsPerSecond: model.weights / seconds,
        peakBytes: Math.max(...runs.map((run) => run.peakBytes)),
      });
    }
  } finally {
    rmSync(dirname(model.folder), { recursive: true, force: true });
  }
  console.table(
    rows.map((row) => ({
      writer: row.name,
      "output, GB": (row.bytesOut / 1e9).toFixed(3),
      "floor, s": row.floorSeconds.toFixed(2),
      "program, s": row.seconds.toFixed(2),
      "times the floor": row.ratio.toFixed(2),
      "M weights/s": (row.weightsPerSecond / 1e6).toFixed(0),
      "peak memory, MB": (row.peakBytes / 1e6).toFixed(0),
    })),
  );
  mkdirSync(dirname(RESULTS), { recursive: true });
  writeFileSync(
    RESULTS,
    `${JSON.stringify({ date: new Date().toISOString(), weights: model.weights, rows }, null, 2)}\n`,
  );
  console.log(`figures: ${RESULTS}`);
}
