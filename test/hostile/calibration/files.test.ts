import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArrowQuantError } from "../../../dist/errors.js";
import {
  open,
  read,
  rowsOf,
  samplesOf,
  scratchFolder,
  toArrow,
  toJsonl,
  toParquet,
} from "../../calibration/data/rows.js";

const { place } = scratchFolder();

const ROWS = rowsOf(60);
const FORMATS: Readonly<Record<string, Uint8Array>> = {
  parquet: toParquet(ROWS, "nested", 20),
  "arrow file": toArrow(ROWS, "file", "nested", 20),
  "arrow stream": toArrow(ROWS, "stream", "nested", 20),
  "arrow of fixed lists": toArrow(ROWS, "stream", "fixed", 20),
  "JSON lines": Buffer.from(toJsonl(ROWS)),
};

/** What damaged data may be called; anything else is a fault of the reader. */
const DAMAGE_CODES = ["E_CALIBRATION", "E_TRUNCATED", "E_TRAILING", "E_UNKNOWN_FORMAT", "E_LIMIT"];

/** Reads bytes as calibration data, all of it; its error, or null where enough of it is sound. */
async function refusal(bytes: Uint8Array): Promise<ArrowQuantError | null> {
  try {
    const samples = await read(place("hostile", bytes), { timeRange: { start: 0, end: 1000 }, maxRejected: 20 });
    for (const { inputs, time } of samples) {
      expect(inputs.get("sample")?.every(Number.isFinite)).toBe(true);
      expect(time).toBeGreaterThanOrEqual(0);
      expect(time).toBeLessThan(1000);
    }
    return null;
  } catch (thrown) {
    if (!(thrown instanceof ArrowQuantError)) throw thrown;
    expect(DAMAGE_CODES).toContain(thrown.code);
    return thrown;
  }
}

describe.each(Object.entries(FORMATS))("%s", (name, bytes) => {
  it("is read where it is whole", async () => {
    expect(await read(place("whole", bytes))).toEqual(samplesOf(ROWS));
  });

  it("that was cut off is refused at every length, with the file's name", async () => {
    if (name === "JSON lines") {
      // A row fewer is no damage that can be seen; half a row is a malformed one.
      const stream = await open(place("cut", bytes.subarray(0, -10)));
      const seen: number[] = [];
      for await (const { time } of stream.samples) seen.push(time);
      expect(seen).toHaveLength(59);
      expect(stream.rejected).toMatchObject([{ row: 60, reason: expect.stringMatching(/^not JSON/) }]);
      return;
    }
    for (let length = 0; length < bytes.length; length += 61) {
      const error = await refusal(bytes.subarray(0, length));
      expect(error?.message, `${length} bytes`).toContain("hostile");
      if (length > 12) expect(["E_TRUNCATED", "E_CALIBRATION"], `${length} bytes`).toContain(error?.code);
    }
  });

  it("with some bytes changed gives sound samples or a refusal, never anything else", async () => {
    const change = fc.record({ at: fc.nat(bytes.length - 1), value: fc.constantFrom(0, 1, 127, 128, 255) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
        const changed = Uint8Array.from(bytes);
        for (const { at, value } of changes) changed[at] = value;
        await refusal(changed);
      }),
      { numRuns: 80 },
    );
  });

  it("inside which bytes are missing gives no other sample than it held", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 200 }), async (from, count) => {
        await refusal(Buffer.concat([bytes.subarray(0, from), bytes.subarray(from + count)]));
      }),
      { numRuns: 40 },
    );
  });
});

describe("Arrow", () => {
  const stream = FORMATS["arrow stream"] as Uint8Array;

  it("cut between two batches, without its end, names the first row that is missing", async () => {
    // Batches are of equal size here: the second one begins where the schema and one batch end.
    const marks: number[] = [];
    for (let at = 0; at + 8 <= stream.length; at += 8) {
      if (Buffer.from(stream).readUInt32LE(at) === 0xffffffff) marks.push(at);
    }
    const third = marks.at(-2) as number;
    const error = await refusal(stream.subarray(0, third));
    expect(error).toMatchObject({ code: "E_TRUNCATED", details: { row: 40, from: third, byteLength: third } });
  });

  it("with another stream behind it is refused: its rows would be lost", async () => {
    expect(await refusal(Buffer.concat([stream, stream]))).toMatchObject({ code: "E_TRAILING" });
  });

  it.each<[string, number, number]>([
    ["a header of 2 GiB", 4, 0x7fffffff],
    ["a header of less than nothing", 4, 0x80000000],
    ["a header that begins beyond its end", 8, 0x7fffffff],
  ])("with %s is refused before anything is allocated", async (_, at, value) => {
    const changed = Buffer.from(stream);
    changed.writeUInt32LE(value, at);
    expect(await refusal(changed)).toMatchObject({ code: expect.stringMatching(/E_TRUNCATED|E_CALIBRATION/) });
  });
});

describe("what is no calibration data", () => {
  it.each<[string, string | Uint8Array, string, RegExp]>([
    ["nothing", "", "E_CALIBRATION", /is empty/],
    ["blank space", " \n \n", "E_UNKNOWN_FORMAT", /neither/],
    ["a gzip", Uint8Array.of(0x1f, 0x8b, 8, 0), "E_UNKNOWN_FORMAT", /gzip/],
    ["a web page", "<!doctype html>", "E_UNKNOWN_FORMAT", /web page/],
    ["one list", "[{}]", "E_UNKNOWN_FORMAT", /one JSON list/],
    ["an archive", "PK\x03\x04", "E_UNKNOWN_FORMAT", /zip/],
    ["zeros", new Uint8Array(4096), "E_UNKNOWN_FORMAT", /neither/],
    ["another magic", "PAR2PAR2", "E_UNKNOWN_FORMAT", /neither/],
    ["the magic of Parquet alone", "PAR1", "E_TRUNCATED", /hostile/],
    ["the magic of Arrow twice", "ARROW1\0\0\0\0\0\0ARROW1", "E_CALIBRATION", /sense/],
    ["an Arrow stream of nothing", Buffer.from("ffffffff00000000", "hex"), "E_CALIBRATION", /schema/],
    ["an object that does not end", "{", "E_CALIBRATION", /line 1: not JSON/],
    ["lines that are no objects", '{"a":\n7\nnull\n', "E_CALIBRATION", /line 1: not JSON/],
  ])("%s is refused", async (_, bytes, code, message) => {
    const error = await refusal(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it("lists nested without measure, or too many side by side, are malformed rows", async () => {
    const nested = (depth: number): string => `{"sample":${"[".repeat(depth)}${"]".repeat(depth)}}`;
    const wide = `{"sample":[${"[],".repeat(400_000)}[]]}`;
    const ragged = `{"sample":[[${"1,".repeat(100_000)}1],${"[],".repeat(1000)}[]]}`;
    const text = [toJsonl(rowsOf(3)), nested(100_000), nested(600_000), wide, ragged].join("\n");
    const data = await open(place("nested", text), { maxRejected: 4 });
    let count = 0;
    for await (const { inputs } of data.samples) count += inputs.size;
    expect(count).toBe(9);
    expect(data.rejected.map(({ reason }) => reason)).toEqual([
      expect.stringMatching(/nested deeper than 8/),
      expect.stringMatching(/more than 262144 lists/),
      expect.stringMatching(/more than 262144 lists/),
      expect.stringMatching(/ragged/),
    ]);
  });
});
