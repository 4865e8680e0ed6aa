/**
 * One broken file per rule of the format, with the code that must come out, and odd but legal ones. Among them are the
 * published attacks on readers of GGUF headers (CVE-2024-21802, -21825, -21836, -23496, -23605: counts, lengths of
 * strings and lists, numbers of dimensions; CVE-2025-53630: sums of sizes; alignment 0 and lists of lists).
 */
import {
  buildGguf,
  entry,
  int32List,
  listEntry,
  stringEntry,
  type TensorPart,
  tensorInfo,
  text,
  u32,
  u64,
  uint32Entry,
  VALUE_TYPES,
} from "./build.ts";

export interface HostileCase {
  readonly name: string;
  readonly bytes: Buffer;
  readonly code: string;
  /** What the message must hold: the name and the numbers that matter. */
  readonly says: RegExp;
}

const LARGEST = 0xffff_ffff_ffff_ffffn;

function broken(name: string, bytes: Buffer, code: string, says: RegExp): HostileCase {
  return { name, bytes, code, says };
}

/** A file of one tensor `x` of eight float32, right but for what is given. */
function one(part: Partial<TensorPart> = {}, data = Buffer.alloc(32)): Buffer {
  return buildGguf({ tensors: [tensorInfo({ name: "x", sizes: [8], offset: 0, ...part })], data });
}

/** A file of float32 tensors of eight elements at these offsets, with so many bytes of data. */
function several(offsets: readonly number[], dataBytes: number): Buffer {
  const tensors = offsets.map((offset, index) => tensorInfo({ name: `t${index}`, sizes: [8], offset }));
  return buildGguf({ tensors, data: Buffer.alloc(dataBytes) });
}

const withEntries = (...entries: readonly Buffer[]): Buffer => buildGguf({ entries });
const withAlignment = (alignment: number): Buffer => withEntries(uint32Entry("general.alignment", alignment));

export const HOSTILE_CASES: readonly HostileCase[] = [
  // Magic number, version, byte order.
  broken("nothing-at-all", Buffer.alloc(0), "E_TRUNCATED", /magic number at byte 0 needs 4 bytes, 0 are left/),
  broken("magic-of-ggml", buildGguf({ magic: "GGJT" }), "E_HEADER", /begins with "GGJT", not "GGUF"/),
  broken("magic-backwards", buildGguf({ magic: "FUGG" }), "E_HEADER", /begins with "FUGG"/),
  broken("magic-only", Buffer.from("GGUF"), "E_TRUNCATED", /the version at byte 4 needs 4 bytes, 0 are left/),
  broken("counts-cut-off", buildGguf().subarray(0, 20), "E_TRUNCATED", /number of keys at byte 16/),
  broken("version-0", buildGguf({ version: 0 }), "E_HEADER", /version 0/),
  broken("version-1", buildGguf({ version: 1 }), "E_HEADER", /version 1/),
  broken("version-4", buildGguf({ version: 4 }), "E_HEADER", /version 4/),
  broken("big-endian", buildGguf({ version: 0x0300_0000 }), "E_HEADER", /big-endian/),

  // Counts.
  broken("tensors-2-64", buildGguf({ tensorCount: LARGEST }), "E_INTEGER", /tensors is 18446744073709551615/),
  broken("tensors-many", buildGguf({ tensorCount: 2 ** 32 }), "E_LIMIT", /4294967296 tensors.*1048576/),
  broken("tensors-one-more", buildGguf({ tensorCount: 1 }), "E_TRUNCATED", /name of tensor 0 at byte 24/),
  broken("keys-2-63", buildGguf({ entryCount: 2n ** 63n }), "E_INTEGER", /keys is 9223372036854775808/),
  broken("keys-many", buildGguf({ entryCount: 2 ** 28 }), "E_LIMIT", /268435456 keys.*65536/),
  broken("keys-one-more", buildGguf({ entryCount: 1 }), "E_TRUNCATED", /key 0 at byte 24/),

  // Strings.
  broken(
    "key-2-63",
    buildGguf({ entryCount: 1, entries: [u64(2n ** 63n)] }),
    "E_INTEGER",
    /key 0 is 9223372036854775808/,
  ),
  broken("key-2-64", buildGguf({ entryCount: 1, entries: [u64(LARGEST)] }), "E_INTEGER", /beyond 2\^53/),
  broken("key-2-40", buildGguf({ entryCount: 1, entries: [u64(2 ** 40)] }), "E_TRUNCATED", /needs 1099511627776 bytes/),
  broken("key-long", withEntries(uint32Entry("k".repeat(65_536), 1)), "E_LIMIT", /65536 bytes.*65535/),
  broken("key-empty", withEntries(uint32Entry("", 1)), "E_HEADER", /key 0 is empty/),
  broken(
    "key-not-utf8",
    buildGguf({ entries: [Buffer.concat([text(Uint8Array.of(0xff)), u32(7), Buffer.alloc(1)])] }),
    "E_UTF8",
    /key 0 is not UTF-8/,
  ),
  broken(
    "value-cut-off",
    withEntries(entry("a", VALUE_TYPES.string, u64(2 ** 31))),
    "E_TRUNCATED",
    /key "a".*2147483648/,
  ),
  broken("value-2-63", withEntries(entry("a", VALUE_TYPES.string, u64(2n ** 63n))), "E_INTEGER", /length of key "a"/),
  broken(
    "value-not-utf8",
    withEntries(entry("a", VALUE_TYPES.string, text(Uint8Array.of(0xc0, 0xaf)))),
    "E_UTF8",
    /key "a" is not UTF-8/,
  ),

  // Values.
  broken("type-13", withEntries(entry("a", 13, u32(0))), "E_HEADER", /key "a" has type 13/),
  broken("type-2-32", withEntries(entry("a", 0xffff_ffff, u32(0))), "E_HEADER", /type 4294967295/),
  broken("number-cut-off", withEntries(entry("a", VALUE_TYPES.uint64, u32(0))), "E_TRUNCATED", /needs 8 bytes, 4/),
  broken(
    "list-2-64",
    withEntries(listEntry("a", VALUE_TYPES.uint8, LARGEST, u32(0))),
    "E_INTEGER",
    /length of key "a"/,
  ),
  broken("list-2-50", withEntries(listEntry("a", VALUE_TYPES.uint64, 2 ** 50, u32(0))), "E_TRUNCATED", /key "a"/),
  broken("list-of-13", withEntries(listEntry("a", 13, 1, u32(0))), "E_HEADER", /elements of type 13/),
  broken(
    "list-of-texts-2-50",
    withEntries(listEntry("a", VALUE_TYPES.string, 2 ** 50, text("x"))),
    "E_TRUNCATED",
    /key "a"\[1\] at byte/,
  ),
  broken(
    "list-of-texts-2-63",
    withEntries(listEntry("a", VALUE_TYPES.string, 2, Buffer.concat([text("x"), u64(2n ** 63n)]))),
    "E_TRUNCATED",
    /key "a"\[1\]/,
  ),
  broken("list-of-lists", withEntries(listEntry("a", VALUE_TYPES.array, 1, u64(0))), "E_HEADER", /list of lists/),
  broken(
    "lists-all-the-way",
    withEntries(
      entry("a", VALUE_TYPES.array, Buffer.concat(Array.from({ length: 4096 }, () => [u32(9), u64(1)]).flat())),
    ),
    "E_HEADER",
    /list of lists/,
  ),
  broken("key-twice", withEntries(uint32Entry("a", 1), stringEntry("a", "b")), "E_DUPLICATE", /key "a" stands twice/),

  // Alignment.
  broken("alignment-0", withAlignment(0), "E_HEADER", /is 0, no power of two/),
  broken("alignment-24", withAlignment(24), "E_HEADER", /is 24/),
  broken("alignment-2-31", withAlignment(2 ** 31), "E_LIMIT", /is 2147483648/),
  broken("alignment-2-30", withAlignment(2 ** 30), "E_LIMIT", /1073741824.*2097152/),
  broken(
    "alignment-of-8-bytes",
    withEntries(entry("general.alignment", VALUE_TYPES.uint64, u64(32))),
    "E_HEADER",
    /of type uint64, not uint32/,
  ),

  // Names and shapes.
  broken("name-2-63", buildGguf({ tensorCount: 1, tensors: [u64(2n ** 63n)] }), "E_INTEGER", /name of tensor 0/),
  broken("name-long", one({ name: "n".repeat(1025) }), "E_LIMIT", /1025 bytes, the limit is 1024/),
  broken("name-with-nul", one({ name: "x\0y" }), "E_HEADER", /NUL/),
  broken("name-not-utf8", buildGguf({ tensorCount: 1, tensors: [text(Uint8Array.of(0x80))] }), "E_UTF8", /tensor 0/),
  broken(
    "name-twice",
    buildGguf({
      tensors: [0, 32].map((offset) => tensorInfo({ name: "x", sizes: [8], offset })),
      data: Buffer.alloc(64),
    }),
    "E_DUPLICATE",
    /"x" stands twice/,
  ),
  broken("dimensions-2-32", one({ sizeCount: 0xffff_ffff }), "E_LIMIT", /4294967295 dimensions, the limit is 5/),
  broken("dimensions-6", one({ sizes: [8, 1, 1, 1, 1, 1] }), "E_LIMIT", /"x" has 6 dimensions/),
  broken("dimension-negative", one({ sizes: [LARGEST] }), "E_INTEGER", /dimension 0 of "x" is 18446744073709551615/),
  broken("product-2-64", one({ sizes: [2 ** 32, 2 ** 32] }), "E_SHAPE", /18446744073709551616 elements/),
  broken("product-2-64-plus-8", one({ sizes: [8, 2 ** 31, 2 ** 30 + 1] }), "E_SHAPE", /beyond 2\^53/),
  broken("bytes-beyond-2-53", one({ sizes: [2 ** 52] }), "E_TRUNCATED", /ends at byte 18014398509481984/),
  broken("rows-of-no-block", one({ sizes: [16, 2], type: 2 }), "E_SHAPE", /rows of 16 .*blocks of 32/),
  broken("rows-of-half-a-block", one({ sizes: [128, 2], type: 12 }), "E_SHAPE", /rows of 128.*256/),

  // Types.
  broken("type-of-no-name", one({ type: 99 }), "E_DTYPE", /"x" has type 99/),
  broken("type-negative", one({ type: 0xffff_ffff }), "E_DTYPE", /4294967295/),
  broken("type-q4-2", one({ type: 4 }), "E_PREQUANTIZED", /Q4_2.*dropped/),
  broken("type-q8-1", one({ type: 9 }), "E_PREQUANTIZED", /Q8_1.*activations/),
  broken("type-iq4-xs", one({ type: 23 }), "E_PREQUANTIZED", /"x" is IQ4_XS.*codebooks/),
  broken("type-tq1-0", one({ type: 34 }), "E_PREQUANTIZED", /TQ1_0.*ternary/),
  broken("type-mxfp4", one({ type: 39 }), "E_PREQUANTIZED", /MXFP4/),

  // Offsets.
  broken("offset-2-63", one({ offset: 2n ** 63n }), "E_INTEGER", /offset of "x"/),
  broken("offset-beyond-file", one({ offset: 2 ** 40 }), "E_TRUNCATED", /ends at byte 1099511627808.*file has 32/),
  broken("offset-unaligned", one({ offset: 4 }, Buffer.alloc(64)), "E_BOUNDS", /begins at byte 4.*multiple of 32/),
  broken("no-data", one({}, Buffer.alloc(0)), "E_TRUNCATED", /ends at byte 32.*file has 0/),
  broken("one-byte-short", one({}, Buffer.alloc(31)), "E_TRUNCATED", /ends at byte 32.*file has 31/),
  broken("overlap", several([0, 0], 64), "E_OVERLAP", /"t1" begins at byte 0, "t0" before it takes all up to 32/),
  broken("hole", several([0, 64], 96), "E_HOLE", /"t1" begins at byte 64, the tensors before it end at 32/),
  broken("hole-at-the-start", several([32], 64), "E_HOLE", /"t0" begins at byte 32/),

  // Shapes of ComfyUI-GGUF.
  broken(
    "original-shape-of-more",
    buildGguf({
      entries: [int32List("comfy.gguf.orig_shape.x", [3, 3])],
      tensors: [tensorInfo({ name: "x", sizes: [8], offset: 0 })],
      data: Buffer.alloc(32),
    }),
    "E_SHAPE",
    /"x" is \[8\], its original shape is \[3,3\]/,
  ),
  ...(
    [
      ["negative", int32List("comfy.gguf.orig_shape.x", [-2, -4])],
      ["empty", int32List("comfy.gguf.orig_shape.x", [])],
      ["of-floats", listEntry("comfy.gguf.orig_shape.x", VALUE_TYPES.float32, 1, u32(0x41000000))],
      ["of-a-string", stringEntry("comfy.gguf.orig_shape.x", "8")],
      ["of-65", int32List("comfy.gguf.orig_shape.x", Array<number>(65).fill(1))],
    ] as const
  ).map(([name, shape]) =>
    broken(
      `original-shape-${name}`,
      buildGguf({
        entries: [shape],
        tensors: [tensorInfo({ name: "x", sizes: [8], offset: 0 })],
        data: Buffer.alloc(32),
      }),
      "E_SHAPE",
      /orig_shape\.x" is no shape/,
    ),
  ),

  // Splits.
  broken(
    "split-of-another-name",
    withEntries(uint32Entry("split.no", 0), uint32Entry("split.count", 3), uint32Entry("split.tensors.count", 0)),
    "E_INDEX",
    /file 1 of 3, its name does not say so/,
  ),
  broken("split-without-number", withEntries(uint32Entry("split.count", 3)), "E_INDEX", /"split.no" not there/),
  broken(
    "split-beyond-count",
    withEntries(uint32Entry("split.no", 3), uint32Entry("split.count", 3), uint32Entry("split.tensors.count", 0)),
    "E_INDEX",
    /"split.count" is 3, "split.no" 3/,
  ),
  broken("split-of-text", withEntries(stringEntry("split.count", "3")), "E_INDEX", /no count, but string 3/),
];

export interface LegalCase {
  readonly name: string;
  readonly bytes: Buffer;
  readonly tensors: readonly (readonly [name: string, dtype: string, shape: readonly number[]])[];
}

const legal = (name: string, bytes: Buffer, tensors: LegalCase["tensors"]): LegalCase => ({ name, bytes, tensors });

export const LEGAL_CASES: readonly LegalCase[] = [
  legal("nothing", buildGguf(), []),
  legal("version-2", buildGguf({ version: 2 }), []),
  legal(
    "nothing-at-the-end",
    buildGguf({
      tensors: [tensorInfo({ name: "a", sizes: [3], offset: 0 }), tensorInfo({ name: "b", sizes: [0], offset: 32 })],
      data: Buffer.alloc(12),
    }),
    [
      ["a", "F32", [3]],
      ["b", "F32", [0]],
    ],
  ),
  legal("scalar", one({ sizes: [] }), [["x", "F32", []]]),
  legal("last-not-padded", one({ sizes: [3] }, Buffer.alloc(12)), [["x", "F32", [3]]]),
  legal("five-dimensions", one({ sizes: [2, 1, 4, 1, 1] }), [["x", "F32", [1, 1, 4, 1, 2]]]),
  legal("sizes-of-nothing", one({ sizes: [0, 2 ** 20] }, Buffer.alloc(0)), [["x", "F32", [2 ** 20, 0]]]),
  legal(
    "nothing-between",
    buildGguf({
      tensors: [
        tensorInfo({ name: "b", sizes: [8], offset: 32 }),
        tensorInfo({ name: "empty", sizes: [0], offset: 32 }),
        tensorInfo({ name: "a", sizes: [1], offset: 0 }),
      ],
      data: Buffer.alloc(64),
    }),
    [
      ["a", "F32", [1]],
      ["empty", "F32", [0]],
      ["b", "F32", [8]],
    ],
  ),
  legal(
    "alignment-1",
    buildGguf({
      entries: [uint32Entry("general.alignment", 1)],
      tensors: [
        tensorInfo({ name: "a", sizes: [3], type: 24, offset: 0 }),
        tensorInfo({ name: "b", sizes: [1], offset: 3 }),
      ],
      alignment: 1,
      data: Buffer.alloc(7),
    }),
    [
      ["a", "I8", [3]],
      ["b", "F32", [1]],
    ],
  ),
  legal("prototype", one({ name: "__proto__" }), [["__proto__", "F32", [8]]]),
  legal(
    "list-of-nothing",
    buildGguf({ entries: [listEntry("a", VALUE_TYPES.string, 0, Buffer.alloc(0)), stringEntry("__proto__", "")] }),
    [],
  ),
  legal("long-value", withEntries(stringEntry("a", "v".repeat(600_000)), uint32Entry("b", 1)), []),
  legal(
    "long-lists",
    withEntries(
      listEntry("a", VALUE_TYPES.string, 70_000, Buffer.concat(Array.from({ length: 70_000 }, () => text("token")))),
      listEntry("b", VALUE_TYPES.float64, 50_000, Buffer.alloc(400_000)),
      uint32Entry("c", 1),
    ),
    [],
  ),
  legal("unsplit", withEntries(uint32Entry("split.count", 1)), []),
];
