/** Exported graphs in onnxruntime-web, in a headless browser: the reference predictions, as near as validate says. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { prepareBrowser } from "./browser-environment.js";
import { runArrowquant, runProcess } from "./process.js";

const MODEL = fileURLToPath(new URL("../../../shared/models/dit-mnist/", import.meta.url));
const SCRIPT = fileURLToPath(new URL("run_in_browser.mjs", import.meta.url));
const browser = existsSync(MODEL) ? await prepareBrowser() : null;
const folder = mkdtempSync(join(tmpdir(), "arrowquant-interop-browser-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Times of the reference that are run: an early and a late one. */
const STEPS = [0, 9];

/** Predictions of the reference come from torch, and sums are in another order in each runtime. */
const FLOAT_NOISE = 2e-5;

/** Tensors of a safetensors file (8 bytes of length, a JSON header, the data), as numbers. */
function readTensors(path: string): (name: string) => { shape: number[]; values: number[] } {
  const bytes = readFileSync(path);
  const begin = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, begin).toString("utf8"));
  return (name) => {
    const { dtype, shape, data_offsets: range } = header[name];
    const { buffer } = Uint8Array.from(bytes.subarray(begin + range[0], begin + range[1]));
    const values = dtype === "I64" ? Array.from(new BigInt64Array(buffer), Number) : [...new Float32Array(buffer)];
    return { shape, values };
  };
}

interface Case {
  readonly feeds: object;
  readonly expected: readonly number[];
  readonly rows: readonly object[];
}

function readCases(): Case[] {
  const read = readTensors(join(MODEL, "eval_reference.safetensors"));
  const [times, labels, inputs, predictions] = ["step_t", "step_class_labels", "step_x_t", "step_pred"].map(read);
  const [, batch = 0, ...sampleShape] = inputs?.shape ?? [];
  const size = batch * sampleShape.reduce((product, length) => product * length, 1);
  return STEPS.map((step) => {
    const time = times?.values[step] ?? 0;
    const sample = inputs?.values.slice(step * size, (step + 1) * size) ?? [];
    const expected = predictions?.values.slice(step * size, (step + 1) * size) ?? [];
    const ints = (data: readonly number[]) => ({ type: "int64", dims: [batch], data });
    return {
      feeds: {
        sample: { type: "float32", dims: [batch, ...sampleShape], data: sample },
        timestep: ints(new Array<number>(batch).fill(time)),
        class_labels: ints(labels?.values ?? []),
      },
      expected,
      rows: (labels?.values ?? []).map((label, row) => ({
        sample: [16, 16].reduceRight<unknown[]>(
          (values, length) =>
            Array.from({ length: values.length / length }, (_, i) => values.slice(i * length, (i + 1) * length)),
          sample.slice((row * size) / batch, ((row + 1) * size) / batch),
        ),
        timestep: time,
        class_label: label,
      })),
    };
  });
}

test.skipIf(browser === null)(
  "dit-mnist at 8 and 4 bits predicts in a browser what it should",
  async () => {
    const [data, runs] = [join(folder, "rows.jsonl"), join(folder, "runs.json")];
    const cases = readCases();
    const rows = cases.flatMap((each) => each.rows);
    writeFileSync(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
    writeFileSync(runs, JSON.stringify(cases.map(({ feeds, expected }) => ({ feeds, expected }))));
    const outputs: string[] = [];
    const reported: number[] = [];
    for (const bits of ["8", "4"]) {
      const [native, output] = [join(folder, `int${bits}.parquet`), join(folder, `int${bits}.onnx`)];
      await runArrowquant(["quantize", MODEL, "-o", native, "-b", bits, "--zero-point-bits", bits]);
      await runArrowquant(["export", native, "-o", output, "--original", MODEL]);
      const flags = ["--run", "--run-data", data, "--run-samples", String(rows.length), "--json"];
      const { stdout } = await runArrowquant(["validate", MODEL, native, ...flags]);
      reported.push(JSON.parse(stdout).run.variants[0].prediction_error);
      outputs.push(output);
    }
    const ran = await runProcess(process.execPath, [SCRIPT, browser as string, runs, ...outputs]);
    expect(ran.exitCode, ran.stderr).toBe(0);
    const found: number[] = JSON.parse(ran.stdout).predictionErrors;
    for (const [index, error] of reported.entries()) {
      expect(error).toBeGreaterThan(0);
      expect(Math.abs((found[index] as number) - error)).toBeLessThan(FLOAT_NOISE);
    }
  },
  120_000,
);
