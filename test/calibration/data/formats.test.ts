import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { SampleSpec } from "../../../dist/calibration/data/sample.js";
import {
  collect,
  failure,
  type Nesting,
  open,
  read,
  rowOf,
  rowsOf,
  samplesOf,
  scratchFolder,
  type TestRow,
  toArrow,
  toJsonl,
  toParquet,
} from "./rows.js";

const { folder, place } = scratchFolder();
const MODELS = fileURLToPath(new URL("../../../../shared/models/", import.meta.url));

// Without −0, which JSON does not know.
const float32 = fc.float({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0);
const row: fc.Arbitrary<TestRow> = fc.record({
  sample: fc.array(fc.array(float32, { minLength: 3, maxLength: 3 }), { minLength: 2, maxLength: 2 }),
  timestep: fc.nat(999),
  label: fc.nat(9),
});

function formatsOf(rows: readonly TestRow[], nesting: Nesting, blockRows: number): Record<string, string | Uint8Array> {
  return {
    jsonl: toJsonl(rows, nesting),
    parquet: toParquet(rows, nesting, blockRows),
    arrowFile: toArrow(rows, "file", nesting, blockRows),
    arrowStream: toArrow(rows, "stream", nesting, blockRows),
  };
}

describe("every format", () => {
  it("gives the samples that were written, however lists are nested and rows are cut into blocks", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(row, { minLength: 1, maxLength: 20 }),
        fc.constantFrom<Nesting>("nested", "flat", "fixed"),
        fc.integer({ min: 1, max: 20 }),
        async (rows, nesting, blockRows) => {
          for (const [name, bytes] of Object.entries(formatsOf(rows, nesting, blockRows))) {
            expect(await read(place("any", bytes)), name).toEqual(samplesOf(rows));
          }
        },
      ),
      { numRuns: 25 },
    );
  });

  it("gives the same samples for the same limit, spread over the rows, and again when read again", async () => {
    const rows = rowsOf(500);
    const seen = new Set<string>();
    for (const [name, bytes] of Object.entries(formatsOf(rows, "nested", 64))) {
      const stream = await open(place(name, bytes), { limit: 50 });
      const samples = await collect(stream);
      expect(await collect(stream)).toEqual(samples);
      expect(stream).toMatchObject({ rowCount: 500, selection: "evenly", rejected: [] });
      const indices = samples.map(({ inputs }) => (inputs.get("sample") as Float32Array)[0] as number);
      expect(indices.map((index) => Math.floor(index / 10))).toEqual(Array.from({ length: 50 }, (_, run) => run));
      seen.add(indices.join());
    }
    expect(seen.size).toBe(1);
  });

  it.each(["dit-mnist", "unet-mnist"])("gives the same samples of %s as shipped", async (model) => {
    const spec: SampleSpec = {
      inputs: [
        { role: "sample", name: "sample", dtype: "F32", shape: [1, 16, 16] },
        { role: "time", name: "timestep", dtype: "I64", shape: [] },
        { role: "classLabels", name: "class_labels", dtype: "I64", shape: [] },
      ],
    };
    const options = { spec, timeRange: { start: 0, end: 1000 } };
    const parquet = await read(join(MODELS, model, "calibration.parquet"), options);
    const jsonl = await read(join(MODELS, model, "calibration.jsonl"), options);
    expect(parquet).toHaveLength(128);
    expect(jsonl).toEqual(parquet);
    const [line = ""] = readFileSync(join(MODELS, model, "calibration.jsonl"), "utf8").split("\n");
    const first = JSON.parse(line) as { sample: number[]; timestep: number; class_label: number };
    expect(parquet[0]?.inputs.get("sample")).toEqual(Float32Array.from(first.sample));
    expect(parquet[0]?.inputs.get("class_labels")).toEqual(BigInt64Array.of(BigInt(first.class_label)));
    expect(parquet[0]?.time).toBe(first.timestep);
  });

  it("is known again by its content, and by no other", async () => {
    const prints = async (bytes: string | Uint8Array, name: string): Promise<string> =>
      (await open(place(name, bytes))).source.fingerprint;
    const rows = rowsOf(20);
    const same = [await prints(toJsonl(rows), "a"), await prints(toJsonl(rows), "b")];
    expect(same[0]).toBe(same[1]);
    const others = [toJsonl(rowsOf(21)), toJsonl(rows, "flat"), toArrow(rows, "file"), toArrow(rows, "stream")];
    const all = new Set([same[0], ...(await Promise.all(others.map((bytes, index) => prints(bytes, `o${index}`))))]);
    expect(all.size).toBe(5);
  });
});

describe("JSON lines", () => {
  it("may have a byte order mark, blank lines, carriage returns, other keys, and no newline at the end", async () => {
    const [first, second, third] = rowsOf(3).map((value) => JSON.stringify({ ...value, __proto__: null, note: "ü" }));
    const path = place("odd", `\ufeff${first}\r\n\r\n  \n${second}\n\n${third}`);
    const stream = await open(path);
    expect(await collect(stream)).toEqual(samplesOf(rowsOf(3)));
    expect(stream).toMatchObject({ rowCount: 3, selection: "all", source: { kind: "jsonl", location: path } });
  });
});

describe("a folder", () => {
  function saveDataset(name: string, shards: Readonly<Record<string, number>>, state: object): string {
    const path = join(folder, name);
    mkdirSync(path, { recursive: true });
    let first = 0;
    for (const [file, count] of Object.entries(shards)) {
      const rows = Array.from({ length: count }, (_, index) => rowOf(first + index));
      writeFileSync(join(path, file), toArrow(rows, "stream"));
      first += count;
    }
    writeFileSync(join(path, "state.json"), JSON.stringify(state));
    writeFileSync(join(path, "dataset_info.json"), JSON.stringify({ features: {} }));
    return path;
  }

  it("that a data set was saved in is read in the order of its state", async () => {
    const shards = { "data-00000-of-00003.arrow": 7, "data-00001-of-00003.arrow": 0, "data-00002-of-00003.arrow": 5 };
    const filenames = Object.keys(shards).map((filename) => ({ filename }));
    const path = saveDataset("saved", shards, { _data_files: filenames, _fingerprint: "x" });
    const stream = await open(path);
    expect(await collect(stream)).toEqual(samplesOf(rowsOf(12)));
    expect(stream).toMatchObject({ source: { kind: "dataset" }, rowCount: 12 });
    expect((await read(path, { limit: 4 })).map(({ time }) => Math.floor(time / 3))).toEqual([0, 1, 2, 3]);

    saveDataset("saved", shards, { _data_files: [...filenames].reverse() });
    expect(await read(path)).toEqual(samplesOf([7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6].map(rowOf)));

    mkdirSync(join(folder, "splits"));
    writeFileSync(join(folder, "splits", "dataset_dict.json"), JSON.stringify({ splits: ["test", "train"] }));
    saveDataset("splits/train", shards, { _data_files: filenames });
    expect(await read(join(folder, "splits"))).toHaveLength(12);
  });

  it.each<[string, object, RegExp]>([
    ["climbs out", { _data_files: [{ filename: "../outside.arrow" }] }, /^E_PATH/],
    ["names a file that is gone", { _data_files: [{ filename: "gone.arrow" }] }, /^E_NOT_FOUND/],
    ["names nothing", { _data_files: [] }, /^E_CALIBRATION .*_data_files/],
    ["names numbers", { _data_files: [{ filename: 7 }] }, /^E_CALIBRATION .*filename/],
    ["goes through an index", { _data_files: [], _indices_data_files: [{ filename: "i" }] }, /^E_CALIBRATION .*index/],
  ])("whose state %s is refused", async (name, state, expected) => {
    const { code, message } = await failure(open(saveDataset(name, { "a.arrow": 3 }, state)));
    expect(`${code} ${message}`).toMatch(expected);
  });

  it("of files of one format is read in the order of their names; of two it is refused", async () => {
    const path = join(folder, "files");
    mkdirSync(path);
    writeFileSync(join(path, "b.parquet"), toParquet([rowOf(2), rowOf(3)]));
    writeFileSync(join(path, "a.parquet"), toParquet([rowOf(0), rowOf(1)]));
    writeFileSync(join(path, ".hidden.arrow"), "");
    expect(await read(path)).toEqual(samplesOf(rowsOf(4)));
    writeFileSync(join(path, "c.parquet"), toParquet([rowOf(4)]).slice(0, -1));
    expect(await failure(open(path))).toMatchObject({
      code: "E_TRUNCATED",
      message: expect.stringContaining("c.parquet"),
    });
    writeFileSync(join(path, "c.jsonl"), toJsonl([rowOf(4)]));
    expect(await failure(open(path))).toMatchObject({ message: expect.stringContaining("Parquet and JSON lines") });
    mkdirSync(join(folder, "empty"));
    expect(await failure(open(join(folder, "empty")))).toMatchObject({ code: "E_CALIBRATION" });
  });
});

it("says which file changed while it was read", async () => {
  const path = place("changing", toArrow(rowsOf(40), "stream", "nested", 10));
  const stream = await open(path);
  const reading = (async () => {
    for await (const { time } of stream.samples) if (time === 5) writeFileSync(path, toArrow(rowsOf(41), "stream"));
  })();
  expect(await failure(reading)).toMatchObject({ code: "E_CHANGED", message: expect.stringContaining("changing") });
});

it("stops with the signal's reason", async () => {
  const controller = new AbortController();
  const stream = await open(place("stopped", toJsonl(rowsOf(40))), { signal: controller.signal });
  const reading = (async () => {
    for await (const { time } of stream.samples) if (time === 5) controller.abort(new Error("enough"));
  })();
  await expect(reading).rejects.toThrow("enough");
});
