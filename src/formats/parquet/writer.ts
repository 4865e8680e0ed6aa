/**
 * Writes a native file row by row; what is in memory at a time is one row group of at most 4 MiB, or one row.
 */
import { ArrowQuantError } from "../../errors.js";
import { encodeFooter, MAGIC, writeRowGroup } from "./footer.js";
import type { NativeRow } from "./row.js";
import { encodedRowBytes, NATIVE_SCHEMA, ROW_GROUP_BYTES, RowGroupBuilder } from "./row-group.js";
import { ThriftWriter } from "./thrift.js";

/** A row group holds consecutive rows up to this many bytes, at least one (FORMAT.md, Rows). */
export const ROW_GROUP_LIMIT_BYTES = 4 * 1024 * 1024;

/** `created_by` of the files written here. */
export const CREATED_BY = "arrowquant";

/** Version of Parquet's own format that the pages keep to. */
const PARQUET_VERSION = 1;

/** Smaller pieces of a row group are joined before they are written: each write is a system call. */
const JOIN_BYTES = 16 * 1024;

/** Where the bytes go. A resolved `write` means that the bytes may be overwritten. */
export interface ByteSink {
  write(bytes: Uint8Array): Promise<void>;
}

/** The same rows and metadata give the same bytes. */
export class NativeWriter {
  readonly #sink: ByteSink;
  readonly #metadata: ReadonlyMap<string, string>;
  readonly #rowGroups = new ThriftWriter();
  #rowGroupCount = 0;
  #rowCount = 0;
  #byteLength = 0;
  #group = new RowGroupBuilder();
  /** Of the rows in the group. */
  #releases: (() => void)[] = [];
  /** Why nothing more can be written; null while it can. */
  #closed: string | null = null;
  #busy = false;

  private constructor(sink: ByteSink, metadata: ReadonlyMap<string, string>) {
    this.#sink = sink;
    this.#metadata = metadata;
  }

  /** @param metadata the file's key/value metadata, written in the map's order */
  static async open(sink: ByteSink, metadata: ReadonlyMap<string, string>): Promise<NativeWriter> {
    const writer = new NativeWriter(sink, metadata);
    await writer.#write(MAGIC);
    return writer;
  }

  /**
   * Takes the next row. Without `release`, the row's buffers may be reused once this has resolved, which costs a copy
   * where the row waits for others; with it they are lent until it is called, or until `abort`.
   * @throws E_LIMIT where one row passes what a Parquet page can hold, and whatever the sink throws
   */
  async write(row: NativeRow, release?: () => void): Promise<void> {
    await this.#exclusively(async () => {
      const rowBytes = encodedRowBytes(row);
      if (this.#group.rowCount > 0 && this.#group.byteLength + rowBytes > ROW_GROUP_LIMIT_BYTES) {
        await this.#flush();
      }
      this.#group.add(row, rowBytes);
      this.#rowCount += 1;
      const isAlone = ROW_GROUP_BYTES + rowBytes > ROW_GROUP_LIMIT_BYTES;
      if (release !== undefined) this.#releases.push(release);
      if (isAlone) await this.#flush();
      else if (release === undefined) this.#group.own();
    });
  }

  /** Writes what is left and the footer. */
  async finish(): Promise<{ rowCount: number; byteLength: number }> {
    return this.#exclusively(async () => {
      if (this.#group.rowCount > 0) await this.#flush();
      await this.#write(
        encodeFooter({
          version: PARQUET_VERSION,
          schemaElements: NATIVE_SCHEMA.elements,
          columnCount: NATIVE_SCHEMA.roots.length,
          leafCount: NATIVE_SCHEMA.leaves.length,
          rowCount: this.#rowCount,
          rowGroupCount: this.#rowGroupCount,
          rowGroups: this.#rowGroups.bytes,
          keyValues: this.#metadata,
          createdBy: CREATED_BY,
        }),
      );
      this.#closed = "the file is finished";
      return { rowCount: this.#rowCount, byteLength: this.#byteLength };
    });
  }

  /** Drops what is buffered; the sink keeps an incomplete file, which is its owner's to remove. */
  async abort(reason: unknown): Promise<void> {
    this.#closed = `it was aborted: ${reason instanceof Error ? reason.message : String(reason)}`;
    this.#group = new RowGroupBuilder();
  }

  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const problem = this.#closed ?? (this.#busy ? "the row before is still being written" : null);
    if (problem !== null) throw new ArrowQuantError("E_INTERNAL", `the native file takes no row: ${problem}`);
    this.#busy = true;
    try {
      return await work();
    } catch (thrown) {
      this.#closed ??= "writing it failed before";
      throw thrown;
    } finally {
      this.#busy = false;
    }
  }

  async #flush(): Promise<void> {
    const { pieces, rowGroup } = this.#group.finish(this.#byteLength);
    this.#group = new RowGroupBuilder();
    for (const piece of joinSmall(pieces)) await this.#write(piece);
    writeRowGroup(this.#rowGroups, rowGroup);
    this.#rowGroupCount += 1;
    for (const release of this.#releases) release();
    this.#releases = [];
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await this.#sink.write(bytes);
    this.#byteLength += bytes.length;
  }
}

/** Runs of small pieces as one piece each. */
function* joinSmall(pieces: readonly Uint8Array[]): Generator<Uint8Array> {
  let small: Uint8Array[] = [];
  for (const piece of pieces) {
    if (piece.length < JOIN_BYTES) {
      small.push(piece);
      continue;
    }
    if (small.length > 0) yield Buffer.concat(small);
    small = [];
    yield piece;
  }
  if (small.length > 0) yield Buffer.concat(small);
}
