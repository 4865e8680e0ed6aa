import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tableFromIPC } from "apache-arrow";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openNative } from "../../../dist/formats/parquet/reader.js";
import type { NativeRow } from "../../../dist/formats/parquet/row.js";
import { NativeWriter, ROW_GROUP_LIMIT_BYTES } from "../../../dist/formats/parquet/writer.js";
import { fileRows, int4Row, keptRow, METADATA, type MutableRow, sealed, writeRows } from "./native-rows.js";

// Another implementation of Parquet reads what is written here.
const library = createRequire(import.meta.url)("parquet-wasm/node") as typeof import("parquet-wasm/node");

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "arrowquant-writer-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function readRows(bytes: Uint8Array): Promise<NativeRow[]> {
  const path = join(folder, "file.parquet");
  await writeFile(path, bytes);
  const file = await openNative(path);
  const rows: NativeRow[] = [];
  for await (const row of file.rows()) rows.push(row);
  file.close();
  return rows;
}

async function rowGroups(bytes: Uint8Array): Promise<{ numRows: number; totalByteSize: number }[]> {
  const file = await library.ParquetFile.fromFile(new Blob([new Uint8Array(bytes)]));
  return file
    .metadata()
    .rowGroups()
    .map((group) => ({ numRows: group.numRows(), totalByteSize: group.totalByteSize() }));
}

/** Large data is compared apart: a matcher would go through it byte by byte. */
function withoutData({ data, ...rest }: NativeRow) {
  return { ...rest, byteLength: data.length };
}

describe("rows", () => {
  test("come back as they were written, whatever they hold and however they were cut", async () => {
    await fc.assert(
      fc.asyncProperty(fileRows, async (rows) => {
        expect(await readRows(await writeRows(rows))).toEqual(rows);
      }),
      { numRuns: 150 },
    );
  });

  test("are the same to another reader of Parquet", async () => {
    await fc.assert(
      fc.asyncProperty(
        fileRows.filter((rows) => rows.length > 0),
        async (rows) => {
          const table = tableFromIPC(library.readParquet(await writeRows(rows)).intoIPCStream());
          expect(table.numRows).toBe(rows.length);
          for (const [index, row] of rows.entries()) {
            const read = table.get(index);
            expect(read?.["layer_name"]).toBe(row.layerName);
            expect([...(read?.["shape"] ?? [])].map(Number)).toEqual(row.shape);
            expect(new Uint8Array(read?.["data"])).toEqual(row.data);
            expect(read?.["scales"]?.toArray() ?? null).toEqual(row.scales);
            expect(read?.["zero_points"]?.toArray() ?? null).toEqual(row.zeroPoints);
            expect(read?.["residual_scale_codes"] ?? null).toEqual(row.residualScaleCodes);
            expect(read?.["metrics"]?.["dot"] ?? null).toEqual(row.metrics?.dot ?? null);
            expect(read?.["spatial_quant"]?.["equalization_scales"]?.toArray() ?? null).toEqual(
              row.spatial?.equalizationScales ?? null,
            );
            const groups = [...(read?.["time_aware_quant"]?.["time_group_params"] ?? [])];
            expect(groups.map((group) => [group.time_range.start, group.scale, group.group_size])).toEqual(
              (row.timeAware?.timeGroupParams ?? []).map((group) => [
                group.timeRange.start,
                group.scale,
                group.groupSize,
              ]),
            );
            expect(read?.["crc32"]).toBe(row.crc32);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test("may have their buffers reused once their write has resolved", async () => {
    const rows = [int4Row("a"), int4Row("b", 300, 512), keptRow("c", 1_500_000), int4Row("d"), keptRow("e", 9000)];
    const lent = rows.map(
      (row): MutableRow => ({
        ...row,
        data: row.data.slice(),
        scales: row.scales?.slice() ?? null,
      }),
    );
    const pieces: Buffer[] = [];
    const writer = await NativeWriter.open({ write: async (piece) => void pieces.push(Buffer.from(piece)) }, METADATA);
    for (const row of lent) {
      await writer.write(row);
      row.data.fill(255);
      row.scales?.fill(-1);
    }
    await writer.finish();
    const read = await readRows(Buffer.concat(pieces));
    expect(read.map(withoutData)).toEqual(rows.map(withoutData));
    expect(read.every(({ data }, index) => Buffer.compare(data, rows[index]?.data ?? data.subarray(1)) === 0)).toBe(
      true,
    );
  });
});

describe("the file", () => {
  test("is a function of rows and metadata", async () => {
    await fc.assert(
      fc.asyncProperty(fileRows, async (rows) => {
        expect((await writeRows(rows)).equals(await writeRows(rows.map((row) => ({ ...row }))))).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  test("of no rows is legal", async () => {
    const bytes = await writeRows([]);
    expect(tableFromIPC(library.readParquet(bytes).intoIPCStream()).numRows).toBe(0);
    expect(await readRows(bytes)).toEqual([]);
  });

  test("keeps a tensor without elements and a scalar", async () => {
    const rows = [
      sealed({ ...keptRow("empty"), shape: [0, 5], paramCount: 0, data: new Uint8Array(0) }),
      sealed({ ...keptRow("scalar"), shape: [], paramCount: 1, data: Uint8Array.of(1, 2, 3, 4) }),
    ];
    expect(await readRows(await writeRows(rows))).toEqual(rows);
  });

  test("carries its metadata in the given order, as file-level keys, and nothing else", async () => {
    const bytes = await writeRows([keptRow("a")]);
    const footer = bytes.subarray(bytes.length - 8 - bytes.readUInt32LE(bytes.length - 8)).toString("utf8");
    const positions = [...METADATA.keys()].map((key) => footer.indexOf(key));
    expect(positions).toEqual(positions.toSorted((a, b) => a - b));
    const file = await library.ParquetFile.fromFile(new Blob([new Uint8Array(bytes)]));
    const { keyValueMetadata, createdBy, version } = {
      keyValueMetadata: file.metadata().fileMetadata().keyValueMetadata(),
      createdBy: file.metadata().fileMetadata().createdBy(),
      version: file.metadata().fileMetadata().version(),
    };
    expect(new Map([...keyValueMetadata].sort())).toEqual(new Map([...METADATA].sort()));
    expect(createdBy).toBe("arrowquant");
    expect(version).toBe(1);
    const opened = await openWritten(bytes);
    expect([...opened.metadata]).toEqual([...METADATA]);
  });

  test("is uncompressed, plain, without dictionaries, one page per column chunk", async () => {
    const bytes = await writeRows([int4Row("a"), keptRow("b"), int4Row("c", 3, 900)]);
    const file = await library.ParquetFile.fromFile(new Blob([new Uint8Array(bytes)]));
    const [group] = file.metadata().rowGroups();
    const columns = group?.columns() ?? [];
    expect(columns).toHaveLength(49);
    for (const column of columns) {
      expect(column.compression()).toBe(library.Compression.UNCOMPRESSED);
      expect(column.encodings().toSorted()).toEqual([library.Encoding.PLAIN, library.Encoding.RLE]);
      expect(column.compressedSize()).toBe(column.uncompressedSize());
    }
  });

  test("has the columns of FORMAT.md: names, order, types, nullability, list children", async () => {
    const bytes = await writeRows([int4Row("a")]);
    const { schema } = tableFromIPC(library.readSchema(bytes).intoIPCStream());
    expect(schema.fields.map(describeField)).toEqual(EXPECTED_SCHEMA);
  });
});

async function openWritten(bytes: Uint8Array) {
  const path = join(folder, "opened.parquet");
  await writeFile(path, bytes);
  return openNative(path);
}

interface FieldLike {
  name: string;
  nullable: boolean;
  type: { children?: readonly FieldLike[] | null; toString(): string };
}

function describeField(field: FieldLike): string {
  const { name, nullable, type } = field;
  const mark = nullable ? "?" : "";
  const [kind = ""] = String(type).split("<");
  const children = (type.children ?? []).map(describeField);
  return children.length === 0 ? `${name}${mark}: ${kind}` : `${name}${mark}: ${kind}<${children.join(", ")}>`;
}

// Written down from the table in FORMAT.md; `?` marks what may be null.
const EXPECTED_SCHEMA = [
  "layer_name: Utf8",
  "shape: List<item: Int64>",
  "dtype: Utf8",
  "data: Binary",
  "num_params: Int64",
  "quant_type: Utf8",
  "scales?: List<item: Float32>",
  "zero_points?: List<item: Float32>",
  "quant_axis?: Int32",
  "group_size?: Int32",
  "is_diffusion_model: Bool",
  "modality?: Utf8",
  "time_aware_quant?: Struct<enabled: Bool, num_time_groups: Int32, activation_bits: Int32, " +
    "time_input: Utf8, time_group_params: List<item: Struct<time_range: Struct<start: Float64, end: Float64>, " +
    "scale: Float32, zero_point: Float32, group_size?: Int32>>>",
  "spatial_quant?: Struct<enabled: Bool, channel_equalization: Bool, activation_smoothing: Float32, " +
    "equalization_scales: List<item: Float32>>",
  "activation_stats?: Struct<mean: Float32, std: Float32, min: Float32, max: Float32>",
  "component: Utf8",
  "method?: Utf8",
  "stored_dtype?: Utf8",
  "metrics?: Struct<dot: Float64, source_norm2: Float64, rebuilt_norm2: Float64, error_norm2: Float64, " +
    "max_abs_error: Float32, cosine_similarity: Float32, sqnr_db: Float32, relative_rmse: Float32>",
  "crc32: Uint32",
  "chunk_index: Int32",
  "chunk_count: Int32",
  "scale_bits?: Int32",
  "super_group_size?: Int32",
  "scale_codes?: Binary",
  "zero_point_bits?: Int32",
  "zero_point_codes?: Binary",
  "residual_scale_codes?: Binary",
];

describe("row groups", () => {
  test("of several rows never pass 4 MiB, and a row that does stands alone", async () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 1_300_000 }), { minLength: 1, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(sizes, async (lengths) => {
        const rows = lengths.map((length, index) => ({
          ...keptRow("r"),
          layerName: `r${index}`,
          ...sized(length),
        }));
        const groups = await rowGroups(await writeRows(rows));
        expect(groups.reduce((sum, { numRows }) => sum + numRows, 0)).toBe(rows.length);
        let first = 0;
        for (const { numRows, totalByteSize } of groups) {
          if (numRows > 1) expect(totalByteSize).toBeLessThanOrEqual(ROW_GROUP_LIMIT_BYTES);
          const next = rows[first + numRows];
          // As full as they can be: the next row would have passed the limit, but for the allowance for
          // levels.
          if (next !== undefined) {
            expect(totalByteSize + next.data.length + 8192).toBeGreaterThan(ROW_GROUP_LIMIT_BYTES);
          }
          first += numRows;
        }
      }),
      { numRuns: 12 },
    );
  });

  test("5,000 tiny tensors are a handful of groups", async () => {
    const rows = Array.from({ length: 5000 }, (_, index) => keptRow(`blocks.${index}.norm.bias`, 16));
    const bytes = await writeRows(rows);
    const groups = await rowGroups(bytes);
    expect(groups.length).toBeLessThanOrEqual(2);
    expect(bytes.length / rows.length).toBeLessThan(300);
    expect(await readRows(bytes)).toEqual(rows);
  });
});

function sized(length: number): Pick<NativeRow, "shape" | "paramCount" | "data"> {
  return { shape: [length], paramCount: length, data: new Uint8Array(4 * length) };
}

describe("the writer", () => {
  test("passes on what the sink throws and takes nothing afterwards", async () => {
    let room = 100_000;
    const sink = {
      write: async (bytes: Uint8Array) => {
        room -= bytes.length;
        if (room < 0) throw new Error("disk full");
      },
    };
    const writer = await NativeWriter.open(sink, METADATA);
    await expect(writer.write(keptRow("big", 2_000_000))).rejects.toThrow("disk full");
    await expect(writer.write(keptRow("a"))).rejects.toMatchObject({ code: "E_INTERNAL" });
    await expect(writer.finish()).rejects.toMatchObject({ code: "E_INTERNAL" });
  });

  test("writes nothing after an abort", async () => {
    const lengths: number[] = [];
    const sink = { write: async (bytes: Uint8Array) => void lengths.push(bytes.length) };
    const writer = await NativeWriter.open(sink, METADATA);
    await writer.write(keptRow("a"));
    await writer.abort(new Error("interrupted"));
    await expect(writer.finish()).rejects.toThrow("interrupted");
    expect(lengths).toEqual([4]);
  });

  test("holds no more than a row group, and hands large buffers on without copying them", async () => {
    const row = int4Row("big", 4096, 2048);
    let borrowed = 0;
    const sink = {
      write: async (bytes: Uint8Array) => {
        if (bytes.buffer === row.data.buffer) borrowed += bytes.length;
      },
    };
    const writer = await NativeWriter.open(sink, METADATA);
    await writer.write(row);
    expect(borrowed).toBe(row.data.length);
  });
});
