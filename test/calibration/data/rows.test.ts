import { Field, Float32, Int64, List, Table, tableToIPC, vectorFromArray } from "apache-arrow";
import { describe, expect, it } from "vitest";
import type { SampleSpec } from "../../../dist/calibration/data/sample.js";
import { collect, failure, open, read, rowOf, rowsOf, samplesOf, scratchFolder, toJsonl } from "./rows.js";

const { place } = scratchFolder();

/** A row as JSON text with some of its values replaced; undefined takes a column out. */
function line(index: number, changes: Readonly<Record<string, unknown>> = {}): string {
  return JSON.stringify({ ...rowOf(index), ...changes });
}

/** The reasons for which these lines among sound ones are rejected. */
async function reasons(lines: readonly string[], spec?: SampleSpec): Promise<string[]> {
  const text = [line(0), ...lines, line(1)].join("\n");
  const stream = await open(place("rows", text), {
    timeRange: { start: 0, end: 1000 },
    maxRejected: 50,
    ...(spec === undefined ? {} : { spec }),
  });
  expect(await collect(stream)).toEqual(samplesOf(rowsOf(2)));
  expect(stream.rejected.map(({ row }) => row)).toEqual(lines.map((_, index) => index + 2));
  return stream.rejected.map(({ reason }) => reason);
}

describe("a malformed row", () => {
  it.each<[string, string, string | RegExp]>([
    ["a missing column", line(2, { sample: undefined }), 'column "sample" is missing'],
    ["too few numbers", line(2, { sample: [1, 2, 3, 4, 5] }), 'column "sample" has shape [5], "sample" needs [2, 3]'],
    [
      "another shape",
      line(2, {
        sample: [
          [1, 2],
          [3, 4],
          [5, 6],
        ],
      }),
      'column "sample" has shape [3, 2], "sample" needs [2, 3]',
    ],
    [
      "ragged lists",
      line(2, {
        sample: [
          [1, 2, 3],
          [4, 5],
        ],
      }),
      'column "sample" is ragged: a list of 2 beside lists of 3',
    ],
    ["a number among lists", line(2, { sample: [[1, 2, 3], 4] }), /ragged: item 1 beside lists is 4/],
    ["a list among numbers", line(2, { sample: [1, 2, 3, 4, 5, [6]] }), 'column "sample" holds a list at element 5'],
    ["a null", line(2, { sample: [1, 2, null, 4, 5, 6] }), 'column "sample" holds null at element 2'],
    ["a text", line(2, { timestep: "7" }), /column "timestep" holds the text "7"/],
    ["an object", line(2, { label: {} }), /column "label" holds an object/],
    ["a truth value", line(2, { label: true }), /column "label" holds true/],
    ["infinity", line(2).replace("[[2,", "[[1e999,"), 'column "sample" holds Infinity at element 0'],
    ["NaN as Python writes it", line(2).replace("[[2,", "[[NaN,"), /not JSON: .*NaN/],
    [
      "more than float32 holds",
      line(2, { sample: [1, 2, 3, 4, 5, -1e39] }),
      /-1e\+39 at element 5, which is beyond F32/,
    ],
    ["a fraction of a timestep", line(2, { timestep: 7.5 }), /7\.5, which is no number of I64/],
    ["an integer that JSON rounds", line(2, { label: 2 ** 53 }), /9007199254740992, which is no number of I64/],
    [
      "a time before the range",
      line(2, { timestep: -1 }),
      /time -1 lies outside the scheduler's range, 0 to below 1000/,
    ],
    ["a time at the end of the range", line(2, { timestep: 1000 }), /time 1000 lies outside/],
    ["an empty list", line(2, { sample: [] }), /has shape \[0\]/],
    ["no object", "[1, 2]", "JSON, but no object"],
    ["half a line", line(2).slice(0, 30), /^not JSON/],
    ["control characters", '{"\x1b[2J', /^not JSON: [^\p{Cc}]*$/u],
    ["lists without end", `{"sample":${"[".repeat(100_000)}${"]".repeat(100_000)}}`, /nested deeper than 8/],
  ])("with %s is rejected with its line and the reason", async (_, malformed, expected) => {
    expect(await reasons([malformed])).toEqual([
      typeof expected === "string" ? expected : expect.stringMatching(expected),
    ]);
  });

  it("of other integer types is told their range", async () => {
    const inputs = (["U8", "I8", "I32", "BOOL", "F16"] as const).map((dtype) => ({
      role: "other" as const,
      name: dtype,
      dtype,
      shape: [],
    }));
    const spec: SampleSpec = { inputs: [{ role: "time", name: "t", dtype: "F32", shape: [] }, ...inputs] };
    const sound = { t: 0.5, U8: 255, I8: -128, I32: -(2 ** 31), BOOL: true, F16: 65504 };
    const bad = { U8: 256, I8: -129, I32: 2 ** 31, BOOL: 2, F16: 65505 };
    const lines = [sound, ...Object.entries(bad).map(([name, value]) => ({ ...sound, [name]: value }))];
    const stream = await open(place("types", lines.map((value) => JSON.stringify(value)).join("\n")), {
      spec,
      maxRejected: 9,
    });
    const [sample, ...others] = await collect(stream);
    expect(others).toEqual([]);
    expect(Object.fromEntries(sample?.inputs ?? [])).toEqual({
      t: Float32Array.of(0.5),
      U8: Int32Array.of(255),
      I8: Int32Array.of(-128),
      I32: Int32Array.of(-(2 ** 31)),
      BOOL: Int32Array.of(1),
      F16: Float32Array.of(65504),
    });
    expect(stream.rejected.map(({ reason }) => reason.match(/"(\w+)" holds (\d+|-\d+)/)?.slice(1))).toEqual(
      Object.entries(bad).map(([name, value]) => [name, String(value)]),
    );
  });

  it("of Arrow is rejected with its row and the reason", async () => {
    const sample = new List(new Field("item", new List(new Field("item", new Float32(), true)), true));
    const good = [
      [1, 2, 3],
      [4, 5, 6],
    ];
    const table = new Table({
      sample: vectorFromArray(
        [
          good,
          null,
          [[1, 2, 3], null],
          [
            [1, 2, 3],
            [4, 5],
          ],
          [
            [1, 2, null],
            [4, 5, 6],
          ],
          [
            [1, Number.NaN, 3],
            [4, 5, 6],
          ],
          good,
          [],
        ],
        sample,
      ),
      timestep: vectorFromArray([1n, 1n, 1n, 1n, 1n, 1n, null, 1n], new Int64()),
      label: vectorFromArray(
        Array.from({ length: 8 }, () => 1n),
        new Int64(),
      ),
    });
    const path = place("arrow", tableToIPC(table, "stream"));
    const stream = await open(path, { maxRejected: 10 });
    expect(await collect(stream)).toHaveLength(1);
    expect(stream.rejected.map(({ file, unit, row, reason }) => [file === path, unit, row, reason])).toEqual([
      [true, "row", 1, 'column "sample" is null'],
      [true, "row", 2, 'column "sample" holds a null'],
      [true, "row", 3, 'column "sample" is ragged: a list of 2 beside lists of 3'],
      [true, "row", 4, 'column "sample" holds a null'],
      [true, "row", 5, 'column "sample" holds NaN at element 1'],
      [true, "row", 6, 'column "timestep" is null'],
      [true, "row", 7, expect.stringMatching(/has shape \[0/)],
    ]);
  });
});

describe("malformed rows", () => {
  const mixed = (sound: number, bad: number): string =>
    toJsonl(rowsOf(sound)) + Array.from({ length: bad }, (_, index) => `${line(index, { label: null })}\n`).join("");

  it("are passed over up to the limit; one more is an error with the first reasons", async () => {
    const path = place("mixed", mixed(10, 7));
    expect(await read(path, { maxRejected: 7 })).toEqual(samplesOf(rowsOf(10)));
    const { code, message, details } = await failure(read(path, { maxRejected: 6 }));
    expect(code).toBe("E_CALIBRATION");
    expect(message).toMatch(/^7 rows .* the limit is 6: ".*", line 11: column "label" holds null; .* and 2 more$/);
    expect(details).toMatchObject({ rejected: 7, limit: 6 });
  });

  it("may by default be a hundred, and no more than there are sound ones", async () => {
    expect(await read(place("half", mixed(10, 10)))).toHaveLength(10);
    expect(await failure(read(place("most", mixed(10, 11))))).toMatchObject({
      message: expect.stringMatching(/^11 rows .* 10 are sound/),
    });
    expect(await failure(read(place("many", mixed(500, 101))))).toMatchObject({
      message: expect.stringMatching(/the limit is 100/),
    });
  });
});

describe("too few samples", () => {
  it("are an error that says how many there are and why not more", async () => {
    const path = place("few", `${toJsonl(rowsOf(15))}${line(0, { timestep: null })}\n`);
    const found = await failure(read(path, { limit: 128, minSamples: undefined }));
    expect(found).toMatchObject({ code: "E_CALIBRATION", details: { found: 15, needed: 16, rejected: 1 } });
    expect(found.message).toMatch(
      /has 15 sound rows, 16 are needed; 1 rows are malformed: .* line 16: column "timestep"/,
    );
    expect(await failure(read(path, { limit: 128, minSamples: 100 }))).toMatchObject({ details: { needed: 100 } });
    expect(await read(path, { limit: 15, minSamples: 100 })).toHaveLength(15);
  });

  it("are told from no rows at all", async () => {
    expect(await failure(open(place("blank", "{}")))).toMatchObject({
      code: "E_CALIBRATION",
      message: expect.stringMatching(/no column/),
    });
    expect(await failure(open(place("none", "")))).toMatchObject({
      code: "E_CALIBRATION",
      message: expect.stringMatching(/is empty/),
    });
  });
});
