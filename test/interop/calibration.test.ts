/** Calibration data as pyarrow writes it. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openCalibrationData } from "../../dist/calibration/data/data.js";
import type { SampleSpec } from "../../dist/calibration/data/sample.js";
import { preparePython } from "./environment.js";
import { runPython } from "./process.js";

const { python } = await preparePython();
const folder = mkdtempSync(join(tmpdir(), "arrowquant-interop-data-"));
afterAll(() => rmSync(folder, { recursive: true }));

const SPEC: SampleSpec = {
  inputs: [
    { role: "sample", name: "sample", dtype: "F32", shape: [1, 4, 4] },
    { role: "time", name: "timestep", dtype: "I64", shape: [] },
    { role: "classLabels", name: "class_labels", dtype: "I64", shape: [] },
  ],
};

async function readRows(path: string) {
  const data = await openCalibrationData(path, SPEC, {
    limit: 128,
    minSamples: 128,
    maxRejected: 0,
    timeRange: { start: 0, end: 1000 },
    signal: new AbortController().signal,
    cacheFolder: "",
  });
  const rows = { samples: [] as number[][], timesteps: [] as number[], labels: [] as number[] };
  for await (const { inputs, time } of data.samples) {
    rows.samples.push([...(inputs.get("sample") as Float32Array)]);
    rows.timesteps.push(time);
    rows.labels.push(...[...(inputs.get("class_labels") as BigInt64Array)].map(Number));
  }
  return rows;
}

test.skipIf(python === null)(
  "Arrow and Parquet of every list type and compression hold the rows that were written",
  async () => {
    const rows = await runPython(python as string, "make_calibration.py", [folder]);
    const names = readdirSync(folder);
    expect(names).toHaveLength(6 * 3 + 5 + 1);
    for (const name of names) expect(await readRows(join(folder, name)), name).toEqual(rows);
  },
);
