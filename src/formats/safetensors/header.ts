/**
 * The header of a safetensors file: what it may say and what must be true of it.
 *
 * Source: https://github.com/huggingface/safetensors (README "Format", and `Metadata::validate` of
 * safetensors/src/tensor.rs). As there: unknown keys of a tensor's entry are passed over, tensors may
 * stand in any order but must cover the data without gap or overlap, zero-dimensional and zero-element
 * tensors and an empty header are legal. Stricter than there, as the README asks: the first byte is "{",
 * padding is spaces, keys are unique, `__metadata__` is an object of strings.
 */
import { ArrowQuantError, type ErrorCode } from "../../errors.js";
import { DTYPES, type Dtype, isBlockQuantized, isDtype } from "../../tensor/dtype.js";
import { countElements } from "../../tensor/layout.js";
import { JsonScanner, quoteName } from "../json.js";

/** Bytes of the little-endian length that a file begins with. */
export const LENGTH_BYTES = 8;

/** Longest header, as in the reference (`MAX_HEADER_SIZE`): bounds what a hostile file makes us allocate. */
export const MAX_HEADER_BYTES = 100_000_000;

/** Most dimensions of a tensor: PyTorch makes no tensor of more, and a longer list only costs memory. */
export const MAX_RANK = 64;

/** One tensor as the header describes it, `begin` and `end` counted from the first byte of the data. */
export interface HeaderTensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  /** Ordered by `begin`, then `end`. */
  readonly tensors: readonly HeaderTensor[];
  /** `__metadata__`; empty where there is none. */
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * The header's length from the first 8 bytes of a file of `fileByteLength` bytes.
 * Throws `E_HEADER_SIZE` where it passes the limit or the file.
 */
export function readHeaderLength(first: Uint8Array, fileByteLength: number, source: string): number {
  const view = new DataView(first.buffer, first.byteOffset, LENGTH_BYTES);
  const length = view.getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw new ArrowQuantError(
      "E_HEADER_SIZE",
      `${source} would have ${length} bytes, the limit is ${MAX_HEADER_BYTES}`,
      {
        hint: "is this a safetensors file at all?",
        details: { headerByteLength: length.toString(), limit: MAX_HEADER_BYTES },
      },
    );
  }
  const available = fileByteLength - LENGTH_BYTES;
  if (length > BigInt(available)) {
    throw new ArrowQuantError("E_HEADER_SIZE", `${source} would have ${length} bytes, the file has ${available} left`, {
      hint: "the file is cut off or is no safetensors file: download it again",
      details: { headerByteLength: Number(length), available },
    });
  }
  return Number(length);
}

/**
 * Parses and checks a header. `bytes` is the JSON text alone, `dataByteLength` what the file has after it,
 * `source` what messages call it. Throws `E_UTF8`, `E_JSON`, `E_HEADER`, `E_DUPLICATE`, `E_INTEGER`,
 * `E_DTYPE`, `E_SHAPE`, `E_BOUNDS`, `E_OVERLAP`, `E_HOLE`, `E_TRUNCATED`, `E_TRAILING` or `E_LIMIT`.
 */
export function parseHeader(bytes: Uint8Array, dataByteLength: number, source: string): SafetensorsHeader {
  const scanner = new JsonScanner(bytes, source);
  if (bytes[0] !== 0x7b) scanner.fail("E_HEADER", 'the first byte must be "{"', 0);
  const tensors: HeaderTensor[] = [];
  const names = new Set<string>();
  let metadata: ReadonlyMap<string, string> = new Map();
  scanner.readObject((name, at) => {
    if (names.has(name)) scanner.fail("E_DUPLICATE", `${quoteName(name)} stands twice`, at);
    names.add(name);
    if (name === "__metadata__") metadata = readMetadata(scanner);
    else tensors.push(readTensor(scanner, name));
  });
  for (; scanner.offset < bytes.length; scanner.offset += 1) {
    if (bytes[scanner.offset] !== 0x20) scanner.fail("E_HEADER", "only spaces may follow the header's object");
  }
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkCoverage(tensors, dataByteLength, source);
  return { tensors, metadata };
}

function readMetadata(scanner: JsonScanner): Map<string, string> {
  if (!scanner.atObject()) {
    scanner.fail("E_HEADER", `"__metadata__": an object is expected, this is ${scanner.describeNext()}`);
  }
  const metadata = new Map<string, string>();
  scanner.readObject((key, at) => {
    const what = `"__metadata__", key ${quoteName(key)}`;
    if (metadata.has(key)) scanner.fail("E_DUPLICATE", `${what} stands twice`, at);
    if (!scanner.atString())
      scanner.fail("E_HEADER", `${what}: a string is expected, this is ${scanner.describeNext()}`);
    metadata.set(key, scanner.readString());
  });
  return metadata;
}

function readTensor(scanner: JsonScanner, name: string): HeaderTensor {
  if (!scanner.atObject()) {
    scanner.fail("E_HEADER", `${quoteName(name)}: an object is expected, this is ${scanner.describeNext()}`);
  }
  const start = scanner.offset;
  let dtype: Dtype | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  let others: Set<string> | undefined;
  scanner.readObject((key, at) => {
    const isKnown = key === "dtype" || key === "shape" || key === "data_offsets";
    const isSecond =
      key === "dtype"
        ? dtype !== undefined
        : key === "shape"
          ? shape !== undefined
          : key === "data_offsets"
            ? offsets !== undefined
            : others?.has(key) === true;
    if (isSecond) scanner.fail("E_DUPLICATE", `${quoteName(name)}: key ${quoteName(key)} stands twice`, at);
    if (!isKnown) {
      others ??= new Set();
      others.add(key);
      scanner.skipValue();
    } else if (key === "dtype") dtype = readDtype(scanner, name);
    else if (key === "shape") shape = readCounts(scanner, name, "shape", MAX_RANK);
    else offsets = readCounts(scanner, name, "data_offsets", 2);
  });
  if (dtype === undefined) return scanner.fail("E_HEADER", `${quoteName(name)} has no "dtype"`, start);
  if (shape === undefined) return scanner.fail("E_HEADER", `${quoteName(name)} has no "shape"`, start);
  const [begin, end] = offsets ?? [];
  if (begin === undefined || end === undefined) {
    return scanner.fail("E_HEADER", `${quoteName(name)} needs two "data_offsets"`, start);
  }
  checkLength(scanner, { name, dtype, shape, begin, end }, start);
  return { name, dtype, shape, begin, end };
}

function readDtype(scanner: JsonScanner, name: string): Dtype {
  if (!scanner.atString()) {
    scanner.fail("E_HEADER", `${quoteName(name)}: "dtype" must be a string, this is ${scanner.describeNext()}`);
  }
  const at = scanner.offset;
  const dtype = scanner.readString();
  if (!isDtype(dtype) || isBlockQuantized(dtype))
    return scanner.fail("E_DTYPE", `${quoteName(name)}: unknown type ${quoteName(dtype)}`, at);
  return dtype;
}

function readCounts(scanner: JsonScanner, name: string, key: string, limit: number): number[] {
  const what = (): string => `${quoteName(name)}: "${key}"`;
  if (!scanner.atArray()) scanner.fail("E_HEADER", `${what()} must be an array, this is ${scanner.describeNext()}`);
  const counts: number[] = [];
  scanner.readArray(() => {
    if (counts.length === limit) scanner.fail("E_LIMIT", `${what()} has more than ${limit} elements`);
    counts.push(scanner.readCount(what));
  });
  return counts;
}

/** That shape, type and offsets of one tensor say the same number of bytes. */
function checkLength(scanner: JsonScanner, tensor: HeaderTensor, at: number): void {
  const { dtype, shape, begin, end } = tensor;
  if (end < begin) {
    scanner.fail("E_BOUNDS", `${quoteName(tensor.name)} begins at byte ${begin} and ends at byte ${end}`, at);
  }
  const bitCount = DTYPES[dtype].bits * countElements(shape);
  if (bitCount <= Number.MAX_SAFE_INTEGER && bitCount === 8 * (end - begin)) {
    if (shape.length < 2 || !shape.includes(0)) return;
  }
  const bits = BigInt(DTYPES[dtype].bits) * countExactly(scanner, tensor, at);
  const what = `${quoteName(tensor.name)}: [${shape}] of ${dtype} is`;
  if (bits % 8n !== 0n) scanner.fail("E_SHAPE", `${what} ${bits} bits, no whole bytes`, at);
  if (bits / 8n !== BigInt(end - begin)) {
    scanner.fail("E_SHAPE", `${what} ${bits / 8n} bytes, its offsets span ${end - begin}`, at);
  }
}

/** Number of elements; as in the reference no partial product may pass 2^64 − 1, a later 0 or not. */
function countExactly(scanner: JsonScanner, tensor: HeaderTensor, at: number): bigint {
  let product = 1n;
  for (const size of tensor.shape) {
    product *= BigInt(size);
    if (product > 0xffff_ffff_ffff_ffffn) {
      scanner.fail("E_SHAPE", `${quoteName(tensor.name)}: [${tensor.shape}] passes 2^64 - 1 elements`, at);
    }
  }
  return product;
}

/** That the tensors, sorted, follow each other from the first byte of the data to the last of the file. */
function checkCoverage(tensors: readonly HeaderTensor[], dataByteLength: number, source: string): void {
  let covered = 0;
  let previous: HeaderTensor | undefined;
  for (const tensor of tensors) {
    const name = quoteName(tensor.name);
    if (tensor.begin < covered) {
      const other = previous === undefined ? "" : quoteName(previous.name);
      fail("E_OVERLAP", `${name} begins at byte ${tensor.begin}, ${other} before it ends at byte ${covered}`, tensor);
    }
    if (tensor.begin > covered) {
      fail("E_HOLE", `${name} begins at byte ${tensor.begin}, the tensors before it end at byte ${covered}`, tensor);
    }
    covered = tensor.end;
    previous = tensor;
    if (covered > dataByteLength) {
      fail("E_TRUNCATED", `${name} ends at byte ${covered}, the file has ${dataByteLength} bytes of data`, tensor);
    }
  }
  if (covered < dataByteLength) {
    fail("E_TRAILING", `the tensors end at byte ${covered}, the file has ${dataByteLength} bytes of data`);
  }

  function fail(code: ErrorCode, problem: string, tensor?: HeaderTensor): never {
    throw new ArrowQuantError(code, `${source}: ${problem}`, {
      ...(code === "E_TRUNCATED" ? { hint: "the file is cut off: download it again" } : {}),
      details: {
        tensor: tensor?.name ?? null,
        begin: tensor?.begin ?? null,
        end: tensor?.end ?? null,
        covered,
        dataByteLength,
      },
    });
  }
}
