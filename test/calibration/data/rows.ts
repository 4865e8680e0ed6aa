/** Calibration data made for a test, in every format that is read. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type DataType,
  Field,
  FixedSizeList,
  Float32,
  Int64,
  List,
  Table,
  tableToIPC,
  type Vector,
  vectorFromArray,
} from "apache-arrow";
import { afterAll } from "vitest";
import {
  type CalibrationDataOptions,
  openCalibrationData,
  type SampleStream,
} from "../../../dist/calibration/data/data.js";
import type { CalibrationSample, SampleSpec } from "../../../dist/calibration/data/sample.js";

const library = createRequire(import.meta.url)("parquet-wasm/node") as typeof import("parquet-wasm/node");

/** Inputs of a small denoiser. */
export const SPEC: SampleSpec = {
  inputs: [
    { role: "sample", name: "sample", dtype: "F32", shape: [2, 3] },
    { role: "time", name: "timestep", dtype: "I64", shape: [] },
    { role: "classLabels", name: "class_labels", dtype: "I64", shape: [] },
  ],
};

export interface TestRow {
  readonly sample: readonly (readonly number[])[];
  readonly timestep: number;
  readonly label: number;
}

/** A row whose numbers tell which one it is. */
export function rowOf(index: number): TestRow {
  const numbers = [0, 1, 2].map((column) => index + column / 4);
  return { sample: [numbers, numbers.map((number) => 1 - number)], timestep: index % 1000, label: index % 10 };
}

export function rowsOf(count: number): TestRow[] {
  return Array.from({ length: count }, (_, index) => rowOf(index));
}

export type Nesting = "nested" | "flat" | "fixed";

export function toJsonl(rows: readonly TestRow[], nesting: Nesting = "nested"): string {
  return rows
    .map(
      ({ sample, ...rest }) =>
        `${JSON.stringify({ sample: nesting === "nested" ? sample : sample.flat(), ...rest })}\n`,
    )
    .join("");
}

const float = new Field("item", new Float32());
const SAMPLE_TYPES: Readonly<Record<Nesting, DataType>> = {
  nested: new List(new Field("item", new List(float))),
  flat: new List(float),
  fixed: new FixedSizeList(6, float),
};

export function toTable(rows: readonly TestRow[], nesting: Nesting = "nested"): Table {
  const samples = rows.map(({ sample }) => (nesting === "nested" ? sample : sample.flat()));
  const integers = (key: "timestep" | "label"): Vector =>
    vectorFromArray(
      rows.map((row) => BigInt(row[key])),
      new Int64(),
    );
  return new Table({
    sample: vectorFromArray(samples, SAMPLE_TYPES[nesting]),
    timestep: integers("timestep"),
    label: integers("label"),
  });
}

/** In batches of `batchRows`. */
export function toArrow(
  rows: readonly TestRow[],
  format: "file" | "stream",
  nesting: Nesting = "nested",
  batchRows = 1000,
): Uint8Array {
  const tables: Table[] = [];
  for (let from = 0; from < rows.length; from += batchRows) {
    tables.push(toTable(rows.slice(from, from + batchRows), nesting));
  }
  const [first = toTable([], nesting), ...rest] = tables;
  return tableToIPC(first.concat(...rest), format);
}

/** In row groups of `groupRows`. */
export function toParquet(rows: readonly TestRow[], nesting: Nesting = "nested", groupRows = 1000): Uint8Array {
  const table = library.Table.fromIPCStream(tableToIPC(toTable(rows, nesting), "stream"));
  return library.writeParquet(table, new library.WriterPropertiesBuilder().setMaxRowGroupSize(groupRows).build());
}

/** A scratch folder of a test file, removed after it, and a way to put files there. */
export function scratchFolder(): { folder: string; place: (name: string, bytes: string | Uint8Array) => string } {
  const folder = mkdtempSync(join(tmpdir(), "arrowquant-data-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  return {
    folder,
    place: (name, bytes) => {
      const path = join(folder, name);
      writeFileSync(path, bytes);
      return path;
    },
  };
}

export type OpenOptions = Partial<CalibrationDataOptions> & { readonly spec?: SampleSpec };

export async function open(location: string, { spec = SPEC, ...options }: OpenOptions = {}): Promise<SampleStream> {
  return openCalibrationData(location, spec, {
    limit: 1000,
    minSamples: 1,
    signal: new AbortController().signal,
    cacheFolder: join(tmpdir(), "arrowquant-data-that-is-not-there"),
    ...options,
  });
}

export async function collect(stream: SampleStream): Promise<CalibrationSample[]> {
  const samples: CalibrationSample[] = [];
  for await (const sample of stream.samples) samples.push(sample);
  return samples;
}

export async function read(location: string, options?: OpenOptions): Promise<CalibrationSample[]> {
  return collect(await open(location, options));
}

/** What `rows` are as samples. */
export function samplesOf(rows: readonly TestRow[]): CalibrationSample[] {
  return rows.map(({ sample, timestep, label }) => ({
    time: timestep,
    inputs: new Map<string, Float32Array | BigInt64Array>([
      ["sample", Float32Array.from(sample.flat())],
      ["timestep", BigInt64Array.of(BigInt(timestep))],
      ["class_labels", BigInt64Array.of(BigInt(label))],
    ]),
    shapes: new Map<string, number[]>([
      ["sample", [2, 3]],
      ["timestep", []],
      ["class_labels", []],
    ]),
  }));
}

/** The code of what `work` fails with, and its message. */
export async function failure(work: Promise<unknown>): Promise<{ code: string; message: string; details: object }> {
  try {
    await work;
  } catch (thrown) {
    const { code, message, details } = thrown as { code: string; message: string; details: object };
    return { code, message, details };
  }
  throw new Error("it did not fail");
}
