import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { Table, tableFromIPC, tableToIPC, Utf8, type Vector, vectorFromArray } from "apache-arrow";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type ColumnChunk,
  encodeFooter,
  type Footer,
  parseFooter,
  parseRowGroup,
  type RowGroup,
  writeRowGroup,
} from "../../../dist/formats/parquet/footer.js";
import { withParquetLibrary } from "../../../dist/formats/parquet/library.js";
import { isNativeFile, wasWrittenByUs } from "../../../dist/formats/parquet/reader.js";
import { ThriftWriter } from "../../../dist/formats/parquet/thrift.js";
import { int4Row, keptRow, writeRows } from "../../formats/parquet/native-rows.js";
import { encodePlain, plainRow } from "../../formats/parquet/plain-v2.js";
import { DAMAGE_CODES, placeFile, refusal } from "./refusal.js";

const library = createRequire(import.meta.url)("parquet-wasm/node") as typeof import("parquet-wasm/node");

function samplePath(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

describe("a file that was cut off", () => {
  test("is refused at every length, and never taken for one of ours", async () => {
    const bytes = await writeRows([int4Row("a"), keptRow("b")]);
    for (let length = 0; length < bytes.length; length += 97) {
      const error = await refusal(bytes.subarray(0, length));
      expect(error?.code, `${length} bytes`).toBe(length < 4 ? "E_NATIVE" : "E_TRUNCATED");
    }
    const path = await placeFile(bytes.subarray(0, 1000));
    expect(await wasWrittenByUs(path)).toBe(false);
    expect(await isNativeFile(path)).toBe(true);
  });

  test("in the middle, its footer kept, is refused", async () => {
    const bytes = await writeRows([int4Row("a", 64, 640), keptRow("b")]);
    const footerStart = bytes.length - 8 - bytes.readUInt32LE(bytes.length - 8);
    const error = await refusal(Buffer.concat([bytes.subarray(0, 5000), bytes.subarray(footerStart)]));
    expect(DAMAGE_CODES).toContain(error?.code);
  });
});

describe("a file with a hostile frame", () => {
  test.each([
    ["no bytes", Buffer.alloc(0), "E_NATIVE"],
    ["another magic", Buffer.concat([Buffer.from("PARX"), Buffer.alloc(64)]), "E_NATIVE"],
    ["the magic alone", Buffer.from("PAR1"), "E_TRUNCATED"],
    ["the magic twice", Buffer.from("PAR1PAR1"), "E_TRUNCATED"],
    ["a footer of no bytes", Buffer.from("PAR1\0\0\0\0PAR1", "latin1"), "E_NATIVE"],
    ["a footer longer than the file", Buffer.from("PAR1\xff\xff\xff\xffPAR1", "latin1"), "E_NATIVE"],
    ["a footer of garbage", Buffer.from(`PAR1${"\x77".repeat(100)}\x64\0\0\0PAR1`, "latin1"), "E_NATIVE"],
    ["an encrypted footer", Buffer.from("PAR1\0\0\0\0PARE", "latin1"), "E_TRUNCATED"],
  ])("%s", async (_, bytes, code) => {
    expect((await refusal(bytes))?.code).toBe(code);
  });

  test("a footer of random bytes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (footer) => {
        const trailer = Buffer.from("\0\0\0\0PAR1", "latin1");
        trailer.writeUInt32LE(footer.length);
        expect(await refusal(Buffer.concat([Buffer.from("PAR1"), footer, trailer]))).not.toBeNull();
      }),
      { numRuns: 300 },
    );
  });

  test("a footer nested without end", async () => {
    const footer = Buffer.alloc(100_000, 0x9c);
    const trailer = Buffer.from("\0\0\0\0PAR1", "latin1");
    trailer.writeUInt32LE(footer.length);
    const error = await refusal(Buffer.concat([Buffer.from("PAR1"), footer, trailer]));
    expect(error?.message).toMatch(/nested|fit|ends/);
  });
});

/** A legal file whose only row group says something else of itself. */
async function withRowGroup(change: (rowGroup: RowGroup) => RowGroup, bytes: Buffer): Promise<Buffer> {
  const footerStart = bytes.length - 8 - bytes.readUInt32LE(bytes.length - 8);
  const footer: Footer = parseFooter(bytes.subarray(footerStart, -8), "test");
  const writer = new ThriftWriter();
  writeRowGroup(writer, change(parseRowGroup(footer, 0)));
  return Buffer.concat([
    bytes.subarray(0, footerStart),
    encodeFooter({
      version: footer.version,
      schemaElements: footer.schemaElements,
      columnCount: footer.columns.length,
      leafCount: footer.columns.reduce((sum, column) => sum + column.leafTypes.length, 0),
      rowCount: footer.rowCount,
      rowGroupCount: 1,
      rowGroups: writer.bytes,
      keyValues: footer.keyValues,
      createdBy: "",
    }),
  ]);
}

function changeChunk(name: string, change: Partial<ColumnChunk>): (rowGroup: RowGroup) => RowGroup {
  return (rowGroup) => ({
    ...rowGroup,
    chunks: rowGroup.chunks.map((chunk) => (chunk.path[0] === name ? { ...chunk, ...change } : chunk)),
  });
}

describe("a row group that lies about itself", () => {
  const cases: [string, (rowGroup: RowGroup) => RowGroup][] = [
    ["more rows than it has", (rowGroup) => ({ ...rowGroup, rowCount: 3 })],
    ["fewer rows than it has", (rowGroup) => ({ ...rowGroup, rowCount: 1 })],
    ["a million million rows", (rowGroup) => ({ ...rowGroup, rowCount: 1e12 })],
    ["a column of an exabyte", changeChunk("scales", { compressedBytes: 2 ** 50, uncompressedBytes: 2 ** 50 })],
    ["a column beyond the file", changeChunk("dtype", { dataPageOffset: 1e9 })],
    ["a column inside the magic", changeChunk("dtype", { dataPageOffset: 0 })],
    ["a column in the middle of another", changeChunk("scales", { dataPageOffset: 30 })],
    ["a billion values", changeChunk("scales", { valueCount: 1e9 })],
    ["data of another type", changeChunk("data", { type: 1 })],
    ["a codec that does not exist", changeChunk("modality", { codec: 99 })],
    ["a codec that was not used", changeChunk("layer_name", { codec: 1 })],
    ["data of no bytes", changeChunk("data", { compressedBytes: 0, uncompressedBytes: 0 })],
    ["a column less", (rowGroup) => ({ ...rowGroup, chunks: rowGroup.chunks.slice(1) })],
    ["no columns", (rowGroup) => ({ ...rowGroup, chunks: [] })],
  ];
  test.each(cases)("%s", async (_, change) => {
    const bytes = await writeRows([int4Row("a"), int4Row("b")]);
    expect(await refusal(await withRowGroup((rowGroup) => rowGroup, bytes))).toBeNull();
    expect(await refusal(await withRowGroup(change, bytes))).not.toBeNull();
  });

  test("a compressed page that claims two gigabytes is refused before memory is asked for it", async () => {
    const bytes = Buffer.from(encodePlain([plainRow("a")], { dictionary: false }));
    // In place of the first page: a header with an uncompressed size of 2^31 − 1, and one byte.
    const bomb = Buffer.concat([
      bytes.subarray(0, 4),
      Buffer.from([0x15, 0x00, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0x02, 0x2c, 0x15, 0x02, 0x15, 0x00]),
      Buffer.from([0x15, 0x06, 0x15, 0x06, 0x00, 0x00, 0x00]),
      bytes.subarray(26),
    ]);
    const error = await refusal(
      await withRowGroup(
        changeChunk("layer_name", {
          dataPageOffset: 4,
          compressedBytes: 22,
          valueCount: 1,
          dictionaryPageOffset: null,
        }),
        bomb,
      ),
    );
    expect(error?.message).toContain("a page of 1 bytes claims to be 2147483647");
  });
});

// Written down from the table in FORMAT.md.
const COLUMN_NAMES = [
  "layer_name",
  "shape",
  "dtype",
  "data",
  "num_params",
  "quant_type",
  "scales",
  "zero_points",
  "quant_axis",
  "group_size",
  "is_diffusion_model",
  "modality",
  "time_aware_quant",
  "spatial_quant",
  "activation_stats",
  "component",
  "method",
  "stored_dtype",
  "metrics",
  "crc32",
  "chunk_index",
  "chunk_count",
  "scale_bits",
  "super_group_size",
  "scale_codes",
  "zero_point_bits",
  "zero_point_codes",
  "residual_scale_codes",
];

describe("columns", () => {
  async function goodTable(): Promise<Table> {
    return tableFromIPC(library.readParquet(await writeRows([int4Row("a"), keptRow("b")])).intoIPCStream());
  }

  function encodeTable(columns: Record<string, Vector>): Uint8Array {
    return library.writeParquet(library.Table.fromIPCStream(tableToIPC(new Table(columns), "stream")));
  }

  test("written by another writer with other settings are read all the same", async () => {
    expect(await refusal(encodeTable(await columnsOf(goodTable())))).toBeNull();
  });

  test.each(COLUMN_NAMES)("without %s", async (name) => {
    const { [name]: missing, ...rest } = await columnsOf(goodTable());
    expect(missing).toBeDefined();
    const error = await refusal(encodeTable(rest));
    // Without its mark a file is plain V2, and its rows break that kind's rules or fill it.
    if (name === "is_diffusion_model") expect(error === null || error.code === "E_NATIVE").toBe(true);
    else expect(error?.message).toContain(`no column "${name}"`);
  });

  test.each(COLUMN_NAMES.filter((name) => !["layer_name", "is_diffusion_model"].includes(name)))(
    "of the wrong type: %s",
    async (name) => {
      const columns = await columnsOf(goodTable());
      const text = new Utf8().toString();
      const isText = String(columns[name]?.type) === text;
      const other = isText ? vectorFromArray([1, 2]) : vectorFromArray(["a", "b"], new Utf8());
      const error = await refusal(encodeTable({ ...columns, [name]: other }));
      expect(error?.code).toBe("E_NATIVE");
      expect(error?.message).toContain(`column "${name}"`);
    },
  );

  test("that are null where a value is required", async () => {
    const columns = await columnsOf(goodTable());
    const error = await refusal(encodeTable({ ...columns, component: vectorFromArray(["x", null], new Utf8()) }));
    expect(error?.message).toContain('column "component" is null in row 1');
    const plain = await refusal(encodePlain([{ ...plainRow("a"), data: null }]));
    expect(plain?.code).toBe("E_NATIVE");
    expect((await refusal(encodePlain([{ ...plainRow("a"), shape: null }])))?.message).toContain("shape");
  });
});

async function columnsOf(table: Promise<Table>): Promise<Record<string, Vector>> {
  const found = await table;
  return Object.fromEntries(found.schema.fields.map(({ name }) => [name, found.getChild(name) as Vector]));
}

describe("damage anywhere", () => {
  test.each(["extended", "plain-v2"])("in %s is an error of ours or changes nothing that can be told", async (name) => {
    const good = await readFile(samplePath(`../../formats/parquet/samples/${name}.parquet`));
    const footerStart = good.length - 8 - good.readUInt32LE(good.length - 8);
    const position = fc.oneof(fc.nat(footerStart - 1), fc.integer({ min: footerStart, max: good.length - 9 }));
    const damage = fc.array(fc.tuple(position, fc.nat(255)), { minLength: 1, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(damage, async (changes) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of changes) bytes[at] = value;
        await refusal(bytes);
      }),
      { numRuns: 250 },
    );
  });
});

describe("a panic of the library", () => {
  test("is an error like others, and the next file is read by a fresh instance", async () => {
    // Found by fuzzing plain-v2.parquet: parquet-wasm 0.8.0 traps on it.
    const trap = await readFile(samplePath("samples/panic.parquet"));
    const instanceBefore = withParquetLibrary("test", (used) => used);
    expect((await refusal(trap))?.message).toContain("cannot be decoded");
    const instanceAfter = withParquetLibrary("test", (used) => used);
    expect(instanceAfter).not.toBe(instanceBefore);
    expect(await refusal(await writeRows([int4Row("a")]))).toBeNull();
    expect(withParquetLibrary("test", (used) => used)).toBe(instanceAfter);
  });

  test("is told from errors that the library returns", () => {
    const instance = withParquetLibrary("test", (used) => used);
    expect(() => withParquetLibrary("the file", (used) => used.readParquet(new Uint8Array(20)))).toThrow(/the file: /);
    expect(withParquetLibrary("test", (used) => used)).toBe(instance);
  });
});
