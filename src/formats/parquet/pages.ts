/**
 * Page headers: what stands before each run of values in a column chunk.
 * Spec: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift (PageHeader)
 */
import { type ColumnChunk, PHYSICAL_TYPES, type PhysicalType, UNCOMPRESSED } from "./footer.js";
import { THRIFT, ThriftReader, ThriftWriter } from "./thrift.js";

/** `type` of a page header. */
const DATA_PAGE = 0;
const DICTIONARY_PAGE = 2;
const DATA_PAGE_V2 = 3;

/** Encodings of values and of levels. */
const PLAIN = 0;
const RLE = 3;
const BIT_PACKED = 4;

/** Encodings of chunks whose values are stored as they are: of values, and of levels. */
const PLAIN_ENCODINGS: ReadonlySet<number> = new Set([PLAIN, RLE, BIT_PACKED]);

/** Zstandard's limit: a block of 128 KiB of one byte takes four. Gzip and Snappy stay far below. */
const MAX_EXPANSION = 32768;

/** A page of this size is always allowed, whatever it says of itself. */
const SMALL_PAGE_BYTES = 64 * 1024;

/** Encodings found in the chunks written here: of values, then of levels. */
export const ENCODINGS: readonly number[] = [PLAIN, RLE];

interface PageHeader {
  readonly type: number;
  readonly uncompressedBytes: number;
  readonly storedBytes: number;
  /** Values of a data page, entries of a dictionary. */
  readonly valueCount: number;
  readonly encoding: number;
  /** Bytes of levels before the values; V2 pages only, in V1 pages they carry their own length. */
  readonly levelBytes: number;
}

interface ContentFields {
  readonly valueCount: number;
  readonly encoding: number;
  readonly levels: readonly number[];
}

/**
 * The structs of a page header that describe its content, by field number, with the numbers of their fields.
 */
const CONTENT_FIELDS: Readonly<Record<number, ContentFields>> = {
  5: { valueCount: 1, encoding: 2, levels: [] },
  7: { valueCount: 1, encoding: 2, levels: [] },
  8: { valueCount: 1, encoding: 4, levels: [5, 6] },
};

function readPageHeader(reader: ThriftReader): PageHeader {
  const numbers = new Map<number, number>();
  const content = { valueCount: 0, encoding: -1, levelBytes: 0 };
  reader.struct((id, type) => {
    const fields = CONTENT_FIELDS[id];
    if (type === THRIFT.int32 && id <= 3) numbers.set(id, reader.count());
    else if (type === THRIFT.struct && fields !== undefined) {
      reader.struct((field, fieldType) => {
        if (fieldType !== THRIFT.int32) return false;
        if (field === fields.valueCount) content.valueCount = reader.count();
        else if (field === fields.encoding) content.encoding = reader.count();
        else if (fields.levels.includes(field)) content.levelBytes += reader.count();
        else return false;
        return true;
      });
    } else return false;
    return true;
  });
  const required = (id: number, name: string): number => numbers.get(id) ?? reader.fail(`a page has no ${name}`);
  return {
    ...content,
    type: required(1, "type"),
    uncompressedBytes: required(2, "uncompressed size"),
    storedBytes: required(3, "stored size"),
  };
}

/** Reads the header of the next page, whose content then starts at `reader.position` and fits. */
function nextPage(reader: ThriftReader, pages: Uint8Array, chunk: ColumnChunk): PageHeader {
  const page = readPageHeader(reader);
  if (reader.position + page.storedBytes > pages.length) {
    reader.fail(`a page of ${page.storedBytes} bytes does not fit`);
  }
  const { storedBytes, uncompressedBytes } = page;
  const mostBytes = chunk.codec === UNCOMPRESSED ? storedBytes : SMALL_PAGE_BYTES + storedBytes * MAX_EXPANSION;
  if (uncompressedBytes > mostBytes) {
    reader.fail(`a page of ${storedBytes} bytes claims to be ${uncompressedBytes} when decompressed`);
  }
  return page;
}

function pageReader(pages: Uint8Array, chunk: ColumnChunk, what: string): ThriftReader {
  return new ThriftReader(pages, `${what}, pages of column "${chunk.path.join(".")}"`);
}

/** Bytes of one decoded value; texts and binaries count as what their pages hold. */
const VALUE_BYTES: Readonly<Record<PhysicalType, number>> = {
  boolean: 1,
  int32: 4,
  int64: 8,
  int96: 12,
  float32: 4,
  float64: 8,
  byte_array: 4,
  fixed_len_byte_array: 4,
};

/**
 * Walks the pages of a chunk and checks that their sizes and counts are what the footer said, so that nothing
 * is decoded, or allocated for, that does not add up.
 *
 * @returns bytes that decoding needs, as far as the headers tell.
 * @throws E_NATIVE where they disagree.
 */
export function checkPages(pages: Uint8Array, chunk: ColumnChunk, what: string): number {
  const reader = pageReader(pages, chunk, what);
  let valueCount = 0;
  let uncompressedBytes = 0;
  while (reader.position < pages.length) {
    const headerStart = reader.position;
    const page = nextPage(reader, pages, chunk);
    if (page.type === DATA_PAGE || page.type === DATA_PAGE_V2) valueCount += page.valueCount;
    else if (page.type !== DICTIONARY_PAGE) reader.fail(`a page has type ${page.type}`);
    uncompressedBytes += reader.position - headerStart + page.uncompressedBytes;
    reader.position += page.storedBytes;
  }
  if (valueCount !== chunk.valueCount) {
    reader.fail(`the pages hold ${valueCount} values, the footer says ${chunk.valueCount}`);
  }
  const type = PHYSICAL_TYPES[chunk.type] ?? reader.fail(`physical type ${chunk.type} is unknown`);
  return uncompressedBytes + valueCount * VALUE_BYTES[type];
}

/** Whether a chunk of binaries can be taken from its pages as it is: nothing compressed, no dictionary. */
export function isPlain(chunk: ColumnChunk): boolean {
  return (
    chunk.codec === UNCOMPRESSED &&
    chunk.type === PHYSICAL_TYPES.indexOf("byte_array") &&
    chunk.encodings.every((encoding) => PLAIN_ENCODINGS.has(encoding))
  );
}

/**
 * The values of a plain chunk of binaries without nulls: views of the pages.
 * @param hasLevels whether the column may hold nulls, so that levels stand before the values
 * @throws E_NATIVE where lengths and counts disagree
 */
export function splitBinaries(pages: Uint8Array, chunk: ColumnChunk, hasLevels: boolean, what: string): Uint8Array[] {
  const reader = pageReader(pages, chunk, what);
  const view = new DataView(pages.buffer, pages.byteOffset, pages.byteLength);
  const values: Uint8Array[] = [];
  while (reader.position < pages.length) {
    const page = nextPage(reader, pages, chunk);
    const isV1 = page.type === DATA_PAGE;
    if (!isV1 && page.type !== DATA_PAGE_V2) reader.fail(`a page has type ${page.type}`);
    if (page.encoding !== PLAIN) reader.fail(`a page has encoding ${page.encoding}`);
    const end = reader.position + page.storedBytes;
    const readLength = (): number => {
      if (reader.position + 4 > end) reader.fail("a page ends before its values do");
      const length = view.getUint32(reader.position, true);
      reader.position += 4;
      return length;
    };
    const levelBytes = isV1 && hasLevels ? readLength() : page.levelBytes;
    reader.position += levelBytes;
    for (let index = 0; index < page.valueCount; index++) {
      const length = readLength();
      if (reader.position + length > end) reader.fail(`a value of ${length} bytes does not fit its page`);
      values.push(pages.subarray(reader.position, reader.position + length));
      reader.position += length;
    }
    if (reader.position !== end) reader.fail("a page goes on after its values");
  }
  return values;
}

/** Header of a V1 data page of plain values, uncompressed. */
export function encodePlainPageHeader(valueCount: number, pageBytes: number): Uint8Array {
  const writer = new ThriftWriter();
  writer.struct(() => {
    writer.integer(1, THRIFT.int32, DATA_PAGE);
    writer.integer(2, THRIFT.int32, pageBytes);
    writer.integer(3, THRIFT.int32, pageBytes);
    writer.field(5, THRIFT.struct);
    writer.struct(() => {
      writer.integer(1, THRIFT.int32, valueCount);
      writer.integer(2, THRIFT.int32, PLAIN);
      writer.integer(3, THRIFT.int32, RLE);
      writer.integer(4, THRIFT.int32, RLE);
    });
  });
  return writer.bytes;
}
