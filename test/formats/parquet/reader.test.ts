import { copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isNativeFile, openNative, wasWrittenByUs } from "../../../dist/formats/parquet/reader.js";
import { type NativeRow, rowCrc32 } from "../../../dist/formats/parquet/row.js";
import { toStoredChunk } from "../../../dist/formats/parquet/stored.js";
import { int4Row, keptRow, METADATA, writeRows } from "./native-rows.js";
import { encodeParquet, encodePlain, type PlainRow, plainColumns, plainRow } from "./plain-v2.js";
import { rebuildChunk } from "./rebuild.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-reader-"));
});
afterAll(() => rm(folder, { recursive: true }));

function samplePath(name: string): string {
  return fileURLToPath(new URL(`samples/${name}`, import.meta.url));
}

async function place(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function readRows(path: string): Promise<NativeRow[]> {
  return collect((await openNative(path)).rows());
}

/** Bytes of every tensor, rebuilt where it was quantized. */
async function rebuildFile(path: string): Promise<Map<string, Buffer>> {
  const tensors = new Map<string, Buffer>();
  for (const row of await readRows(path)) {
    const bytes = row.quantType === "none" ? row.data : new Uint8Array(rebuildChunk(toStoredChunk(row)).buffer);
    tensors.set(row.layerName, Buffer.concat([tensors.get(row.layerName) ?? Buffer.alloc(0), bytes]));
  }
  return tensors;
}

async function readSafetensors(path: string): Promise<Map<string, Buffer>> {
  const file = await readFile(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, start).toString("utf8")) as Record<
    string,
    { data_offsets: [number, number] }
  >;
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== "__metadata__")
      .map(
        ([
          name,
          {
            data_offsets: [from, to],
          },
        ]) => [name, file.subarray(start + from, start + to)],
      ),
  );
}

/**
 * One element of the sample is −0 where code 0, zero point +0 and a positive scale give +0 (the numpy reader
 * of test/interop says so too): tensor and index.
 */
const NEGATIVE_ZEROS = new Map([["float32_scales.int4", 96]]);

describe("files written by pyarrow from FORMAT.md alone", () => {
  test.each(["extended", "plain-v2"])("%s rebuilds to the bit", async (name) => {
    const rebuilt = await rebuildFile(samplePath(`${name}.parquet`));
    const expected = await readSafetensors(samplePath(`${name}.expected.safetensors`));
    expect([...rebuilt.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [tensor, bytes] of expected) {
      const found = Buffer.from(rebuilt.get(tensor) ?? Buffer.alloc(0));
      const negativeZero = NEGATIVE_ZEROS.get(tensor);
      if (negativeZero !== undefined) {
        expect([found.readUInt32LE(4 * negativeZero), bytes.readUInt32LE(4 * negativeZero)]).toEqual([0, 0x8000_0000]);
        found.writeUInt32LE(0x8000_0000, 4 * negativeZero);
      }
      expect(Buffer.compare(found, bytes), tensor).toBe(0);
    }
  });

  test("extended is known by its key, its kind and its rows", async () => {
    const file = await openNative(samplePath("extended.parquet"));
    expect(file.kind).toBe("extended");
    expect(file.metadata.get("arrowquant.format")).toBe("2.1");
    expect(file.component).toBe("model");
    expect(file.rowCount).toBe(35);
    const rows = await collect(file.rows());
    expect(rows).toHaveLength(35);
    expect(rows.map((row) => rowCrc32(row))).toEqual(rows.map((row) => row.crc32));
  });

  test("plain-v2 has the rest filled in", async () => {
    const file = await openNative(samplePath("plain-v2.parquet"));
    expect(file.kind).toBe("plain-v2");
    for (const row of await collect(file.rows())) {
      expect(row).toMatchObject({
        isDiffusionModel: false,
        crc32: null,
        chunkIndex: 0,
        chunkCount: 1,
        method: null,
        scaleBits: null,
        spatial: null,
      });
    }
  });
});

describe("a written file", () => {
  const rows = [int4Row("a"), keptRow("b"), int4Row("c", 2000, 4000), keptRow("d"), int4Row("e", 2000, 4000)];

  test("gives headers without codes and scales, each with its row group", async () => {
    const file = await openNative(await place("headers.parquet", await writeRows(rows)));
    expect(file.rowGroupCount).toBe(4);
    const headers = await collect(file.rowHeaders());
    expect(headers.map(({ layerName, rowGroup }) => [layerName, rowGroup])).toEqual([
      ["a", 0],
      ["b", 0],
      ["c", 1],
      ["d", 2],
      ["e", 3],
    ]);
    const { data, scales, zeroPoints, scaleCodes, zeroPointCodes, residualScaleCodes, ...meta } = rows[0] as NativeRow;
    expect([data, scales, zeroPoints, scaleCodes, zeroPointCodes, residualScaleCodes]).toHaveLength(6);
    expect(headers[0]).toEqual({ ...meta, rowGroup: 0 });
  });

  test("gives headers although its codes cannot be read", async () => {
    const bytes = await writeRows([keptRow("a", 100_000), int4Row("b")]);
    // Right in the middle of the first row's data.
    bytes.fill(0xee, 100_000, 200_000);
    const file = await openNative(await place("damaged-data.parquet", bytes));
    expect((await collect(file.rowHeaders())).map(({ layerName }) => layerName)).toEqual(["a", "b"]);
    await expect(collect(file.rows())).rejects.toMatchObject({ code: "E_CRC" });
  });

  test("gives the rows of chosen row groups", async () => {
    const file = await openNative(await place("chosen.parquet", await writeRows(rows)));
    const chosen = await collect(file.rows({ rowGroups: [3, 0] }));
    expect(chosen.map(({ layerName }) => layerName)).toEqual(["e", "a", "b"]);
    expect((await file.readRowGroup(1)).map(({ layerName }) => layerName)).toEqual(["c"]);
  });

  test("may be read at several places at once", async () => {
    const file = await openNative(await place("at-once.parquet", await writeRows(rows)));
    const groups = await Promise.all([0, 1, 2, 1, 3].map((index) => file.readRowGroup(index)));
    expect(groups.map((group) => group.map(({ layerName }) => layerName).join(""))).toEqual(["ab", "c", "d", "c", "e"]);
    for (const row of groups.flat()) expect(rowCrc32(row)).toBe(row.crc32);
  });

  test("is refused once it was replaced or closed", async () => {
    const path = await place("replaced.parquet", await writeRows(rows));
    const file = await openNative(path);
    await rm(path);
    await writeFile(path, await writeRows([keptRow("other")]));
    await expect(file.readRowGroup(0)).rejects.toMatchObject({ code: "E_CHANGED" });
    file.close();
    await expect(file.readRowGroup(0)).rejects.toMatchObject({ code: "E_INTERNAL" });
  });
});

describe("a checksum", () => {
  test("that does not match names layer and chunk", async () => {
    const first = { ...keptRow("blocks.7.norm.bias"), shape: [8], paramCount: 8, chunkCount: 2 };
    const bad = { ...first, chunkIndex: 1, crc32: 0x1234 };
    const path = await place("crc.parquet", await writeRows([first, bad]));
    await expect(readRows(path)).rejects.toMatchObject({
      code: "E_CRC",
      message: expect.stringContaining('"blocks.7.norm.bias" chunk 1 of 2'),
      details: { layer: "blocks.7.norm.bias", chunkIndex: 1, stored: 0x1234 },
    });
  });

  test("catches every flipped bit of codes and scales", async () => {
    const row = { ...int4Row("a", 1, 4), scales: Float32Array.of(0.5), zeroPoints: Float32Array.of(3) };
    const good = await writeRows([{ ...row, crc32: rowCrc32(row) }]);
    const parts = [row.data, new Uint8Array(row.scales.buffer), new Uint8Array(row.zeroPoints.buffer)];
    for (const part of parts) {
      const at = good.indexOf(Buffer.from(part));
      for (let bit = 0; bit < 8 * part.length; bit++) {
        const bad = Buffer.from(good);
        bad[at + (bit >> 3)] = (bad[at + (bit >> 3)] as number) ^ (1 << (bit & 7));
        await expect(readRows(await place("flipped.parquet", bad)), `bit ${bit}`).rejects.toMatchObject({
          code: "E_CRC",
        });
      }
    }
  });

  test("chains data, scales, zero points and codes in this order", () => {
    // zlib.crc32 of Python over the same bytes, one after the other.
    const row = {
      data: Uint8Array.of(1, 2, 3),
      scales: Float32Array.of(0.5, -2),
      zeroPoints: Float32Array.of(7.25),
      scaleCodes: Uint8Array.of(4, 5),
      zeroPointCodes: Uint8Array.of(6),
      residualScaleCodes: Uint8Array.of(7, 8, 9),
    };
    expect(rowCrc32(row)).toBe(PYTHON_CRC32);
    expect(rowCrc32({ ...row, scaleCodes: null })).not.toBe(PYTHON_CRC32);
  });
});

const PYTHON_CRC32 = 1487799602;

describe("plain V2 files of another writer", () => {
  const packed = plainRow("packed");
  const asBytes: PlainRow = {
    ...plainRow("bytes"),
    data: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
  };
  // (code − 7) · 0.5 of codes 1 … 12.
  const expected = Float32Array.from({ length: 12 }, (_, index) => (index + 1 - 7) * 0.5);

  async function rebuilt(rows: PlainRow[], options = {}): Promise<Float32Array[]> {
    const path = await place("plain.parquet", encodePlain(rows, options));
    return (await readRows(path)).map((row) => rebuildChunk(toStoredChunk(row)));
  }

  test.each([
    { float64: false, compression: "SNAPPY", dictionary: true },
    { float64: true, compression: "SNAPPY", dictionary: true },
    { float64: true, compression: "ZSTD", dictionary: false },
    { float64: false, compression: "UNCOMPRESSED", dictionary: true },
    { float64: false, compression: "UNCOMPRESSED", dictionary: false },
  ])("are read packed and unpacked: %o", async (options) => {
    expect(await rebuilt([packed, asBytes], options)).toEqual([expected, expected]);
  });

  test("hold one scale per tensor, row, column or group", async () => {
    const perRow = { ...packed, layer_name: "rows", scales: [1, 2], zero_points: [0, 1], quant_axis: 0 };
    const perColumn = {
      ...packed,
      layer_name: "cols",
      scales: [1, 2, 3, 4, 5, 6],
      zero_points: null,
      quant_axis: 1,
    };
    const perGroup = {
      ...packed,
      layer_name: "groups",
      scales: [1, 2, 3, 4],
      zero_points: [0, 0, 0, 0],
      quant_axis: 1,
      group_size: 4,
    };
    expect(await rebuilt([perRow, perColumn, perGroup])).toEqual([
      Float32Array.of(1, 2, 3, 4, 5, 6, 12, 14, 16, 18, 20, 22),
      Float32Array.of(-7, -12, -15, -16, -15, -12, -1, 0, 3, 8, 15, 24),
      Float32Array.of(1, 2, 3, 4, 10, 12, 21, 24, 27, 30, 44, 48),
    ]);
  });

  test("can be taken a few rows at a time", async () => {
    const row = { ...packed, scales: [1, 2, 3, 4, 5, 6], zero_points: [6, 5, 4, 3, 2, 1], quant_axis: 1 };
    const path = await place("parts.parquet", encodePlain([row]));
    const [read] = await readRows(path);
    const whole = rebuildChunk(toStoredChunk(read as NativeRow));
    const parts = [0, 1].map((firstRow) => rebuildChunk(toStoredChunk(read as NativeRow, { firstRow, rowCount: 1 })));
    expect(parts.flatMap((part) => [...part])).toEqual([...whole]);
  });

  test("keep tensors and may have columns of their own", async () => {
    const kept = {
      ...plainRow("kept"),
      shape: [3],
      num_params: 3,
      data: new Uint8Array(Float32Array.of(1, 2, 3).buffer),
      quant_type: "none",
      scales: null,
      zero_points: null,
    };
    const columns = plainColumns([kept]);
    const path = await place("more.parquet", encodeParquet({ ...columns, note: columns["dtype"] as never }));
    const [row] = await readRows(path);
    expect(row).toMatchObject({ layerName: "kept", storedDtype: "F32", quantType: "none" });
    expect(() => toStoredChunk(row as NativeRow)).toThrow(/kept/);
  });
});

describe("sniffing", () => {
  test("tells native files from others", async () => {
    const ours = await place("ours.parquet", await writeRows([keptRow("a")]));
    const other = await place("other.parquet", encodeParquet({ a: plainColumns([plainRow("x")])["dtype"] as never }));
    const text = await place("text.parquet", Buffer.from("PAR, not quite"));
    expect(await isNativeFile(ours)).toBe(true);
    expect(await isNativeFile(samplePath("extended.parquet"))).toBe(true);
    expect(await isNativeFile(samplePath("plain-v2.parquet"))).toBe(true);
    for (const path of [other, text, samplePath("extended.expected.safetensors"), folder, join(folder, "none")]) {
      expect(await isNativeFile(path), path).toBe(false);
    }
  });

  test("knows its own complete files alone", async () => {
    const bytes = await writeRows([keptRow("a")]);
    expect(await wasWrittenByUs(await place("ours.parquet", bytes))).toBe(true);
    expect(await wasWrittenByUs(await place("cut.parquet", bytes.subarray(0, -1)))).toBe(false);
    expect(await wasWrittenByUs(await place("no-key.parquet", await writeRows([keptRow("a")], new Map())))).toBe(false);
    const sample = join(folder, "sample.parquet");
    await copyFile(samplePath("extended.parquet"), sample);
    expect(await wasWrittenByUs(sample)).toBe(false);
    expect(await wasWrittenByUs(join(folder, "none"))).toBe(false);
  });

  test("does not mistake another writer's key for its own", async () => {
    expect(METADATA.has("arrowquant.format")).toBe(true);
    expect(await wasWrittenByUs(samplePath("extended.parquet"))).toBe(false);
  });
});
