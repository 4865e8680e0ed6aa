/**
 * Plain V2 files for tests, made with another writer of Parquet (parquet-wasm), compressed and with
 * dictionaries.
 */
import { createRequire } from "node:module";
import {
  Binary,
  Field,
  Float32,
  Float64,
  Int32,
  Int64,
  List,
  Table,
  tableToIPC,
  Utf8,
  type Vector,
  vectorFromArray,
} from "apache-arrow";

const library = createRequire(import.meta.url)("parquet-wasm/node") as typeof import("parquet-wasm/node");

export interface PlainRow {
  layer_name: string | null;
  shape: number[] | null;
  dtype: string;
  data: Uint8Array | null;
  num_params: number;
  quant_type: string;
  scales: number[] | null;
  zero_points: number[] | null;
  quant_axis: number | null;
  group_size: number | null;
}

export function plainRow(layerName: string): PlainRow {
  return {
    layer_name: layerName,
    shape: [2, 6],
    dtype: "F32",
    data: Uint8Array.of(0x21, 0x43, 0x65, 0x87, 0xa9, 0xcb),
    num_params: 12,
    quant_type: "int4",
    scales: [0.5],
    zero_points: [7],
    quant_axis: null,
    group_size: null,
  };
}

export interface PlainOptions {
  readonly float64?: boolean;
  readonly compression?: "SNAPPY" | "ZSTD" | "UNCOMPRESSED";
  readonly dictionary?: boolean;
}

export function plainColumns(rows: readonly PlainRow[], options: PlainOptions = {}): Record<string, Vector> {
  const column = <Key extends keyof PlainRow>(key: Key) => rows.map((row) => row[key]);
  const floats = new List(new Field("item", options.float64 === true ? new Float64() : new Float32(), true));
  return {
    layer_name: vectorFromArray(column("layer_name"), new Utf8()),
    shape: vectorFromArray(
      column("shape").map((shape) => shape?.map(BigInt) ?? null),
      new List(new Field("item", new Int64(), true)),
    ),
    dtype: vectorFromArray(column("dtype"), new Utf8()),
    data: vectorFromArray(column("data"), new Binary()),
    num_params: vectorFromArray(column("num_params").map(BigInt), new Int64()),
    quant_type: vectorFromArray(column("quant_type"), new Utf8()),
    scales: vectorFromArray(column("scales"), floats),
    zero_points: vectorFromArray(column("zero_points"), floats),
    quant_axis: vectorFromArray(column("quant_axis"), new Int32()),
    group_size: vectorFromArray(column("group_size"), new Int32()),
  };
}

export function encodeParquet(columns: Record<string, Vector>, options: PlainOptions = {}): Uint8Array {
  const table = library.Table.fromIPCStream(tableToIPC(new Table(columns), "stream"));
  const properties = new library.WriterPropertiesBuilder()
    .setCompression(library.Compression[options.compression ?? "SNAPPY"])
    .setDictionaryEnabled(options.dictionary ?? true)
    .build();
  return library.writeParquet(table, properties);
}

export function encodePlain(rows: readonly PlainRow[], options: PlainOptions = {}): Uint8Array {
  return encodeParquet(plainColumns(rows, options), options);
}
