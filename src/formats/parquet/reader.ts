/** Reads native files, extended and plain V2, row group by row group. */
import { ArrowQuantError } from "../../errors.js";
import { type OpenFile, readExactly, withFile } from "../../io/read.js";
import type { Dtype } from "../../tensor/dtype.js";
import { type Column, EXTENDED_MARK, FILE_KINDS, type FileKind, PAYLOAD_COLUMNS } from "./columns.js";
import { type Footer, MAGIC, parseFooter, TRAILER_BYTES } from "./footer.js";
import type { NativeRow, NativeRowMeta } from "./row.js";
import { BULK_COLUMN, buildSchemaFile, readRowGroupParts } from "./row-group-file.js";
import { ChunkSequence, checkMeta, checkRow } from "./rules.js";
import { CREATED_BY } from "./writer.js";

/** Key whose presence says that a file is of this format. */
export const FORMAT_KEY = "arrowquant.format";

/** A footer of this size belongs to a native file of about 300 GB; a larger one would only fill memory. */
const MAX_FOOTER_BYTES = 512 * 1024 * 1024;

/** Component of a file that names none. */
const DEFAULT_COMPONENT = "model";

/** A row without its codes and scales, and where they are. */
export interface NativeRowHeader extends NativeRowMeta {
  readonly rowGroup: number;
}

export interface NativeFile {
  readonly path: string;
  readonly kind: FileKind;
  /** File-level key/value metadata in file order. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Component of the first row. */
  readonly component: string;
  readonly byteLength: number;
  readonly rowGroupCount: number;
  readonly rowCount: number;
  /** Every row without its codes and scales, which are not read. Order and completeness are checked. */
  rowHeaders(): AsyncIterableIterator<NativeRowHeader>;
  /**
   * Every row, or those of some row groups, with lengths and checksums verified; over the whole file also
   * that chunks are complete and in order. A row's buffers are views of one buffer per row group; with
   * `reuseBuffers` the next row group is read into the same one, so that reading leaves no garbage.
   */
  rows(options?: RowsOptions): AsyncIterableIterator<NativeRow>;
  readRowGroup(index: number): Promise<NativeRow[]>;
  /** Frees what the file holds in memory; it is open only while something is read. */
  close(): void;
}

export interface RowsOptions {
  readonly rowGroups?: readonly number[];
  /** A row is then good only until the next one is asked for. */
  readonly reuseBuffers?: boolean;
}

export interface FooterPlace {
  readonly footer: Footer;
  /** Where the footer starts. */
  readonly dataEnd: number;
  readonly byteLength: number;
  readonly identity: string;
}

function isMagic(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, MAGIC) === 0;
}

function nativeError(path: string, problem: string, details: Readonly<Record<string, unknown>>): ArrowQuantError {
  return new ArrowQuantError("E_NATIVE", `"${path}" ${problem}`, { details: { path, ...details } });
}

/** @throws E_NATIVE, E_TRUNCATED, E_LIMIT where the frame or the footer of a Parquet file is damaged */
export async function readFooter(file: OpenFile): Promise<FooterPlace> {
  const { path, byteLength, identity } = file;
  const head = new Uint8Array(Math.min(MAGIC.length, byteLength));
  await readExactly(file, head, 0);
  if (!isMagic(head)) throw nativeError(path, "is no Parquet file", { byteLength });
  const trailer = new Uint8Array(TRAILER_BYTES);
  const trailerStart = byteLength - TRAILER_BYTES;
  if (trailerStart >= MAGIC.length) await readExactly(file, trailer, trailerStart);
  if (!isMagic(trailer.subarray(4))) {
    throw new ArrowQuantError("E_TRUNCATED", `"${path}" ends at byte ${byteLength} without Parquet's closing mark`, {
      hint: "the file was cut off; copy or write it again",
      details: { path, byteLength },
    });
  }
  const footerBytes = new DataView(trailer.buffer).getUint32(0, true);
  const dataEnd = trailerStart - footerBytes;
  if (dataEnd < MAGIC.length) {
    throw nativeError(path, `has ${byteLength} bytes, its footer claims ${footerBytes}`, {
      byteLength,
      footerBytes,
    });
  }
  if (footerBytes > MAX_FOOTER_BYTES) {
    throw new ArrowQuantError(
      "E_LIMIT",
      `"${path}" has a footer of ${footerBytes} bytes, the limit is ${MAX_FOOTER_BYTES}`,
      {
        details: { path, footerBytes, limit: MAX_FOOTER_BYTES },
      },
    );
  }
  const bytes = new Uint8Array(footerBytes);
  await readExactly(file, bytes, dataEnd);
  return { footer: parseFooter(bytes, `footer of "${path}"`), dataEnd, byteLength, identity };
}

function fileKind(footer: Footer): FileKind {
  return footer.columns.some((column) => column.name === EXTENDED_MARK) ? "extended" : "plain-v2";
}

/**
 * Whether `path` is a native file: a Parquet file with this format's key or with the columns of a plain V2
 * file. A damaged Parquet file counts as one, so that opening it says what is wrong with it.
 */
export async function isNativeFile(path: string): Promise<boolean> {
  return sniff(
    path,
    ({ keyValues, columns }) => {
      const names = new Set(columns.map((column) => column.name));
      return keyValues.has(FORMAT_KEY) || FILE_KINDS["plain-v2"].every(({ name }) => names.has(name));
    },
    true,
  );
}

/** Whether `path` is a complete native file of this program, which it may therefore replace. */
export async function wasWrittenByUs(path: string): Promise<boolean> {
  return sniff(path, ({ createdBy, keyValues }) => createdBy === CREATED_BY && keyValues.has(FORMAT_KEY), false);
}

async function sniff(path: string, test: (footer: Footer) => boolean, whenDamaged: boolean): Promise<boolean> {
  let isParquet = false;
  try {
    return await withFile(path, async (file) => {
      const head = new Uint8Array(Math.min(MAGIC.length, file.byteLength));
      await readExactly(file, head, 0);
      isParquet = isMagic(head);
      return isParquet && test((await readFooter(file)).footer);
    });
  } catch (thrown) {
    if (!(thrown instanceof ArrowQuantError)) throw thrown;
    return isParquet && whenDamaged;
  }
}

/**
 * Opens a native file by its footer.
 * @throws E_NOT_FOUND, E_READ; E_NATIVE, E_TRUNCATED, E_LIMIT where it is damaged or not of this format
 */
export async function openNative(path: string): Promise<NativeFile> {
  const place = await withFile(path, readFooter);
  // apache-arrow and parquet-wasm take about 120 ms to load: not to be paid by whoever only sniffs.
  const arrow = await import("./arrow-decode.js");
  const { withParquetLibrary } = await import("./library.js");
  const kind = fileKind(place.footer);
  const columns = FILE_KINDS[kind];
  const names = place.footer.columns.map((column) => column.name);
  for (const { name } of columns) {
    const count = names.filter((candidate) => candidate === name).length;
    if (count !== 1)
      throw nativeError(path, `has ${count === 0 ? "no" : count} column "${name}"`, { column: name, kind });
  }
  const what = `"${path}"`;
  const schemaIpc = withParquetLibrary(what, (library) =>
    library.readSchema(buildSchemaFile(place.footer, new Set(columns.map(({ name }) => name)))).intoIPCStream(),
  );
  arrow.checkColumnTypes(schemaIpc, columns, what, { allowFloat64Lists: kind === "plain-v2" });
  const decode = (bytes: Uint8Array, taken: readonly Column[], where: string): Record<string, unknown>[] =>
    withParquetLibrary(where, (library) => arrow.decodeIpc(library.readParquet(bytes).intoIPCStream(), taken, where));
  const file = new OpenNativeFile(path, kind, place, decode);
  return file.withComponent();
}

type Decode = (bytes: Uint8Array, columns: readonly Column[], what: string) => Record<string, unknown>[];

class OpenNativeFile implements NativeFile {
  readonly path: string;
  readonly kind: FileKind;
  readonly byteLength: number;
  readonly rowGroupCount: number;
  readonly rowCount: number;
  readonly metadata: ReadonlyMap<string, string>;
  component = DEFAULT_COMPONENT;
  #place: FooterPlace | null;
  readonly #decode: Decode;
  /** Memory of the row group read last, for the next. */
  #scratch: Uint8Array | null = null;
  /** Memory of the codes read last, where they may be overwritten. */
  #bulk: Uint8Array | null = null;

  constructor(path: string, kind: FileKind, place: FooterPlace, decode: Decode) {
    this.path = path;
    this.kind = kind;
    this.byteLength = place.byteLength;
    this.rowGroupCount = place.footer.rowGroupPositions.length;
    this.rowCount = place.footer.rowCount;
    this.metadata = place.footer.keyValues;
    this.#place = place;
    this.#decode = decode;
  }

  async withComponent(): Promise<this> {
    if (this.kind === "plain-v2" || this.rowGroupCount === 0) return this;
    const column = FILE_KINDS.extended.filter(({ key }) => key === "component");
    const [first] = await this.#read(0, column);
    this.component = (first?.["component"] as string | undefined) ?? DEFAULT_COMPONENT;
    return this;
  }

  async *rowHeaders(): AsyncIterableIterator<NativeRowHeader> {
    const columns = FILE_KINDS[this.kind].filter(({ name }) => !PAYLOAD_COLUMNS.has(name));
    const sequence = new ChunkSequence();
    for (let rowGroup = 0; rowGroup < this.rowGroupCount; rowGroup++) {
      for (const values of await this.#read(rowGroup, columns)) {
        const header = { ...this.#complete(values), rowGroup };
        checkMeta(header);
        sequence.next(header, null);
        yield header;
      }
    }
    sequence.end();
  }

  async *rows(options: RowsOptions = {}): AsyncIterableIterator<NativeRow> {
    if (options.rowGroups !== undefined) {
      for (const rowGroup of options.rowGroups) yield* await this.readRowGroup(rowGroup);
      return;
    }
    const sequence = new ChunkSequence();
    let rowCount = 0;
    for (let rowGroup = 0; rowGroup < this.rowGroupCount; rowGroup++) {
      for (const row of await this.#readRows(rowGroup, options.reuseBuffers)) {
        sequence.next(row, checkRow(row, this.kind));
        rowCount += 1;
        yield row;
      }
    }
    sequence.end();
    if (rowCount !== this.rowCount) {
      throw nativeError(this.path, `has ${rowCount} rows, its footer says ${this.rowCount}`, { rowCount });
    }
  }

  async readRowGroup(index: number): Promise<NativeRow[]> {
    const rows = await this.#readRows(index);
    for (const row of rows) checkRow(row, this.kind);
    return rows;
  }

  close(): void {
    this.#place = null;
    this.#scratch = null;
    this.#bulk = null;
  }

  async #readRows(rowGroup: number, reuseBuffers = false): Promise<NativeRow[]> {
    const rows = await this.#read(rowGroup, FILE_KINDS[this.kind], reuseBuffers);
    return rows.map((values) => this.#complete(values) as NativeRow);
  }

  async #read(rowGroup: number, columns: readonly Column[], reuseBuffers = false): Promise<Record<string, unknown>[]> {
    const place = this.#place;
    if (place === null) throw new ArrowQuantError("E_INTERNAL", `"${this.path}" is read after it was closed`);
    const what = `"${this.path}", row group ${rowGroup}`;
    const names = new Set(columns.map(({ name }) => name));
    return withFile(this.path, async (file) => {
      if (file.identity !== place.identity) {
        throw new ArrowQuantError("E_CHANGED", `"${this.path}" changed while it was read`, {
          details: { path: this.path, before: place.identity, now: file.identity },
        });
      }
      const allocate = (byteLength: number): Uint8Array => {
        const scratch = this.#scratch;
        this.#scratch = null;
        return scratch !== null && scratch.length >= byteLength ? scratch : new Uint8Array(byteLength);
      };
      const allocateBulk = (byteLength: number): Uint8Array => {
        if (!reuseBuffers) return new Uint8Array(Buffer.allocUnsafeSlow(byteLength).buffer);
        if (this.#bulk === null || this.#bulk.length < byteLength) this.#bulk = new Uint8Array(byteLength);
        return this.#bulk;
      };
      const { footer, dataEnd } = place;
      const parts = await readRowGroupParts({ file, footer, dataEnd }, rowGroup, names, allocate, allocateBulk);
      const { bulkValues } = parts;
      const decoded = bulkValues === null ? columns : columns.filter(({ name }) => name !== BULK_COLUMN);
      const rows = this.#decode(parts.file, decoded, what);
      this.#scratch = new Uint8Array(parts.file.buffer);
      return bulkValues === null ? rows : rows.map((row, index) => ({ ...row, data: bulkValues[index] }));
    });
  }

  /** A decoded row with what a plain V2 file does not say. */
  #complete(values: Record<string, unknown>): NativeRowMeta {
    if (this.kind === "extended") return values as unknown as NativeRowMeta;
    const isKept = values["quantType"] === "none";
    const missing: Omit<NativeRow, PlainKey> = {
      isDiffusionModel: false,
      modality: null,
      timeAware: null,
      spatial: null,
      activationStats: null,
      component: DEFAULT_COMPONENT,
      method: null,
      storedDtype: isKept ? (values["dtype"] as Dtype) : null,
      metrics: null,
      crc32: null,
      chunkIndex: 0,
      chunkCount: 1,
      scaleBits: null,
      superGroupSize: null,
      scaleCodes: null,
      zeroPointBits: null,
      zeroPointCodes: null,
      residualScaleCodes: null,
    };
    return { ...missing, ...values } as NativeRow;
  }
}

/** Properties that columns 1–10 hold. */
type PlainKey =
  | "layerName"
  | "shape"
  | "dtype"
  | "data"
  | "paramCount"
  | "quantType"
  | "scales"
  | "zeroPoints"
  | "quantAxis"
  | "groupSize";
