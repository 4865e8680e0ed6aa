/**
 * Rows as the bytes of one row group: uncompressed, PLAIN, one V1 data page per column chunk.
 *
 * Written here and not by parquet-wasm 0.8: its key/value metadata comes out in an order that changes from
 * call to call, its streaming writer drops write errors, and 70 row groups cost it 1.3 s or more of processor
 * time in a fresh process (measured on a busy machine; warmed up about 1.5 ms each). Here codes and scales go
 * from the caller's memory to the file. Tests read the result with parquet-wasm.
 */
import { ArrowQuantError } from "../../errors.js";
import { FILE_KINDS } from "./columns.js";
import { type ColumnChunk, type RowGroup, UNCOMPRESSED } from "./footer.js";
import { ENCODINGS, encodePlainPageHeader } from "./pages.js";
import { PlainValues, plainBytes } from "./plain-values.js";
import { type NativeRow, rowLabel } from "./row.js";
import { buildSchema, type SchemaNode } from "./schema.js";

/** Sizes in a page header are int32. */
const MAX_PAGE_BYTES = 2 ** 31 - 1;

/** Largest page header: its seven integers of at most five bytes, their field headers, two ends. */
const PAGE_HEADER_BYTES = 45;

export const NATIVE_SCHEMA = buildSchema(FILE_KINDS.extended);

/** What every row group takes beside its rows: page headers, lengths of levels, the last bits of booleans. */
export const ROW_GROUP_BYTES = NATIVE_SCHEMA.leaves.length * (PAGE_HEADER_BYTES + 2 * 4);

/**
 * A run of one level: its count (three bytes below 2^20, more than fit a row group of several rows) and the
 * level.
 */
const RUN_BYTES = 4;

/** Levels that a value and what follows it can add, at most one run each. */
const LEVEL_BYTES = NATIVE_SCHEMA.leaves.map(
  (leaf) => RUN_BYTES * ((leaf.maxRepetition > 0 ? 2 : 0) + (leaf.maxDefinition > 0 ? 1 : 0)),
);

function nodeBytes(node: SchemaNode, value: unknown): number {
  if (value === null) return 0;
  switch (node.type) {
    case "list": {
      const [child] = node.children as readonly [SchemaNode];
      if (child.type === "float32") return 4 * (value as Float32Array).length;
      const items = value as readonly unknown[];
      const levelBytes = items.length * sumLevelBytes(child);
      return items.reduce<number>((sum, item) => sum + nodeBytes(child, item), levelBytes);
    }
    case "struct":
      return node.children.reduce(
        (sum, child) => sum + nodeBytes(child, (value as Record<string, unknown>)[child.key]),
        0,
      );
    default:
      return plainBytes(node.type, value);
  }
}

function sumLevelBytes(node: { readonly firstLeaf: number; readonly endLeaf: number }): number {
  return LEVEL_BYTES.slice(node.firstLeaf, node.endLeaf).reduce((sum, bytes) => sum + bytes, 0);
}

const ROW_LEVEL_BYTES = LEVEL_BYTES.reduce((sum, bytes) => sum + bytes, 0);

/**
 * Bytes a row adds to its row group, at most: its values as they are stored, and every level as a run of its
 * own. A row group of several rows therefore never passes the limit it was filled to.
 */
export function encodedRowBytes(row: NativeRow): number {
  const values = row as unknown as Record<string, unknown>;
  return NATIVE_SCHEMA.roots.reduce((sum, root) => sum + nodeBytes(root, values[root.key]), ROW_LEVEL_BYTES);
}

/** Spreads a value over the stored columns under `node` (Dremel's shredding). */
function shred(
  leaves: readonly PlainValues[],
  node: SchemaNode,
  value: unknown,
  repetition: number,
  parentDefinition: number,
): void {
  const definition = parentDefinition + (node.nullable && value !== null ? 1 : 0);
  const isEmpty = value === null || (node.type === "list" && (value as ArrayLike<unknown>).length === 0);
  if (isEmpty) {
    for (let leaf = node.firstLeaf; leaf < node.endLeaf; leaf++) {
      (leaves[leaf] as PlainValues).levels(repetition, definition, 1);
    }
    return;
  }
  switch (node.type) {
    case "list": {
      const [child] = node.children as readonly [SchemaNode];
      const items = value as ArrayLike<unknown>;
      if (items instanceof Float32Array) {
        const leaf = leaves[child.firstLeaf] as PlainValues;
        leaf.levels(repetition, definition + 1, 1);
        leaf.levels(node.repetition, definition + 1, items.length - 1);
        leaf.floats(items);
        return;
      }
      for (let index = 0; index < items.length; index++) {
        shred(leaves, child, items[index], index === 0 ? repetition : node.repetition, definition + 1);
      }
      return;
    }
    case "struct":
      for (const child of node.children) {
        shred(leaves, child, (value as Record<string, unknown>)[child.key], repetition, definition);
      }
      return;
    default: {
      const leaf = leaves[node.firstLeaf] as PlainValues;
      leaf.levels(repetition, definition, 1);
      leaf.scalar(value);
    }
  }
}

/** One row group, ready to be written. */
export interface EncodedRowGroup {
  /** In file order; large ones are views of the rows' own buffers. */
  readonly pieces: readonly Uint8Array[];
  readonly byteLength: number;
  /** Offsets are those of the file. */
  readonly rowGroup: RowGroup;
}

/** Collects consecutive rows and turns them into a row group. */
export class RowGroupBuilder {
  readonly #leaves = NATIVE_SCHEMA.leaves.map((leaf) => new PlainValues(leaf));
  #rowCount = 0;
  /** Upper bound of the encoded bytes. */
  #byteLength = ROW_GROUP_BYTES;
  #lastRow = "";

  get rowCount(): number {
    return this.#rowCount;
  }

  get byteLength(): number {
    return this.#byteLength;
  }

  /**
   * Takes a row; its large buffers are borrowed until `own` or until the group is written.
   * @param rowBytes `encodedRowBytes(row)`
   */
  add(row: NativeRow, rowBytes: number): void {
    const values = row as unknown as Record<string, unknown>;
    for (const root of NATIVE_SCHEMA.roots) shred(this.#leaves, root, values[root.key], 0, 0);
    this.#byteLength += rowBytes;
    this.#rowCount += 1;
    this.#lastRow = rowLabel(row);
  }

  /** Copies what is borrowed, so that the rows' buffers may be used for something else. */
  own(): void {
    for (const leaf of this.#leaves) leaf.own();
  }

  /**
   * @param fileOffset where the row group will start
   * @throws E_LIMIT where a page passes what Parquet can say of its size
   */
  finish(fileOffset: number): EncodedRowGroup {
    const pieces: Uint8Array[] = [];
    const chunks: ColumnChunk[] = [];
    let offset = fileOffset;
    for (const [index, leaf] of NATIVE_SCHEMA.leaves.entries()) {
      const values = this.#leaves[index] as PlainValues;
      const page = values.finish();
      const pageBytes = page.reduce((sum, piece) => sum + piece.length, 0);
      if (pageBytes > MAX_PAGE_BYTES) {
        const problem = `column "${leaf.path[0]}" takes ${pageBytes} bytes, the limit is ${MAX_PAGE_BYTES}`;
        throw new ArrowQuantError("E_LIMIT", `${this.#lastRow}: ${problem}`, { details: { pageBytes } });
      }
      const header = encodePlainPageHeader(values.levelCount, pageBytes);
      const chunkBytes = header.length + pageBytes;
      pieces.push(header, ...page);
      chunks.push({
        type: leaf.physicalType,
        encodings: ENCODINGS,
        path: leaf.path,
        codec: UNCOMPRESSED,
        valueCount: values.levelCount,
        uncompressedBytes: chunkBytes,
        compressedBytes: chunkBytes,
        dataPageOffset: offset,
        dictionaryPageOffset: null,
      });
      offset += chunkBytes;
    }
    return { pieces, byteLength: offset - fileOffset, rowGroup: { rowCount: this.#rowCount, chunks } };
  }
}
