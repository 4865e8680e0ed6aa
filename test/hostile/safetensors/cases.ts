/**
 * One broken file per rule of the format, with the code that must come out, and odd but legal ones.
 * Hugging Face's safetensors 0.8.0 agrees on each of them but seven, where it is laxer than its own README or
 * has no limit: duplicate-unknown-key, duplicate-inside-unknown, duplicate-metadata-key, leading-space,
 * padding-newline, metadata-null, rank-65.
 */
import { buildFile } from "./build.ts";

export interface HostileCase {
  /** Also the file's name in files/. */
  readonly name: string;
  readonly bytes: Buffer;
  readonly code: string;
  /** What the message must hold: the name and the numbers that matter. */
  readonly says: RegExp;
}

const four = new Uint8Array(4);
const eight = new Uint8Array(8);

function entry(dtype: string, shape: string, offsets: string): string {
  return `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
}

/** A header of one tensor `x` that is right but for what is given. */
function one(dtype = "F32", shape = "[1]", offsets = "[0,4]"): string {
  return `{"x":${entry(dtype, shape, offsets)}}`;
}

function broken(name: string, bytes: Buffer, code: string, says: RegExp): HostileCase {
  return { name, bytes, code, says };
}

export const HOSTILE_CASES: readonly HostileCase[] = [
  // The length of the header.
  broken("empty-file", Buffer.alloc(0), "E_TRUNCATED", /has 0 bytes.*alone has 8/),
  broken("seven-bytes", Buffer.alloc(7), "E_TRUNCATED", /has 7 bytes/),
  broken("length-only", buildFile("", four, 0n), "E_HEADER", /first byte must be "\{"/),
  broken("header-over-limit", buildFile("{}", four, 100_000_001n), "E_HEADER_SIZE", /100000001.*100000000/),
  broken("header-at-limit", buildFile("{}", four, 100_000_000n), "E_HEADER_SIZE", /100000000.*6 left/),
  broken("header-2-64", buildFile("{}", four, 0xffff_ffff_ffff_ffffn), "E_HEADER_SIZE", /18446744073709551615/),
  broken("header-beyond-file", buildFile("{}", four, 7n), "E_HEADER_SIZE", /7 bytes.*6 left/),
  broken("header-cut-off", buildFile(one(), new Uint8Array(0)).subarray(0, 30), "E_HEADER_SIZE", /22 left/),

  // The header's text.
  broken("leading-space", buildFile(` ${one()}`, four), "E_HEADER", /first byte/),
  broken("an-array", buildFile("[]"), "E_HEADER", /first byte/),
  broken("byte-order-mark", buildFile(`\ufeff${one()}`, four), "E_HEADER", /first byte/),
  broken("not-utf8", buildFile(Buffer.from('{"\xff":1}', "latin1")), "E_UTF8", /not valid UTF-8/),
  broken("overlong-utf8", buildFile(Buffer.from('{"\xc0\xaf":1}', "latin1")), "E_UTF8", /not valid UTF-8/),
  broken("padding-newline", buildFile(`${one()}\n`, four), "E_HEADER", /only spaces/),
  broken("padding-nul", buildFile(`${one()}\0`, four), "E_HEADER", /only spaces/),
  broken("second-object", buildFile(`${one()}{}`, four), "E_HEADER", /only spaces/),
  broken("unclosed", buildFile(one().slice(0, -1), four), "E_JSON", /end of the text/),
  broken("unclosed-string", buildFile('{"x', four), "E_JSON", /ends inside a string/),
  broken("trailing-comma", buildFile(`{"x":${entry("F32", "[1]", "[0,4]")},}`, four), "E_JSON", /key in quotes/),
  broken("single-quotes", buildFile("{'x':1}", four), "E_JSON", /key in quotes/),
  broken("control-character", buildFile('{"a\u0001":1}'), "E_JSON", /control character 1/),
  broken("half-surrogate", buildFile('{"\\ud800":1}'), "E_JSON", /surrogate/),
  broken("bad-escape", buildFile('{"\\x41":1}'), "E_JSON", /unknown escape/),
  broken("nested-unknown-key", buildFile(`{"x":{"y":${"[".repeat(200)}`, four), "E_LIMIT", /deeper than 128/),
  broken("nested-tensor", buildFile(`{"x":${"[".repeat(500)}`, four), "E_HEADER", /object is expected/),

  // Keys and kinds.
  broken(
    "duplicate-tensor",
    buildFile(`{"x":${entry("F32", "[1]", "[0,4]")},"x":${entry("F32", "[1]", "[4,8]")}}`, eight),
    "E_DUPLICATE",
    /"x" stands twice/,
  ),
  broken(
    "duplicate-by-escape",
    buildFile(`{"x":${entry("F32", "[1]", "[0,4]")},"\\u0078":${entry("F32", "[1]", "[4,8]")}}`, eight),
    "E_DUPLICATE",
    /"x"/,
  ),
  broken(
    "duplicate-dtype",
    buildFile('{"x":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', four),
    "E_DUPLICATE",
    /"x": key "dtype"/,
  ),
  broken(
    "duplicate-shape",
    buildFile('{"x":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}', four),
    "E_DUPLICATE",
    /key "shape"/,
  ),
  broken(
    "duplicate-unknown-key",
    buildFile('{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"a":1,"a":1}}', four),
    "E_DUPLICATE",
    /key "a"/,
  ),
  broken(
    "duplicate-inside-unknown",
    buildFile('{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"a":{"b":1,"b":1}}}', four),
    "E_DUPLICATE",
    /key "b"/,
  ),
  broken("duplicate-metadata", buildFile('{"__metadata__":{},"__metadata__":{}}'), "E_DUPLICATE", /"__metadata__"/),
  broken("duplicate-metadata-key", buildFile('{"__metadata__":{"a":"1","a":"2"}}'), "E_DUPLICATE", /key "a"/),
  broken("metadata-number", buildFile('{"__metadata__":{"a":1}}'), "E_HEADER", /key "a": a string is expected/),
  broken("metadata-null", buildFile('{"__metadata__":null}'), "E_HEADER", /"__metadata__": an object.*null/),
  broken("metadata-array", buildFile('{"__metadata__":["a"]}'), "E_HEADER", /this is an array/),
  broken("tensor-null", buildFile('{"x":null}'), "E_HEADER", /"x": an object is expected, this is null/),
  broken("no-dtype", buildFile('{"x":{"shape":[1],"data_offsets":[0,4]}}', four), "E_HEADER", /no "dtype"/),
  broken("no-shape", buildFile('{"x":{"dtype":"F32","data_offsets":[0,4]}}', four), "E_HEADER", /no "shape"/),
  broken("no-offsets", buildFile('{"x":{"dtype":"F32","shape":[1]}}', four), "E_HEADER", /"data_offsets"/),
  broken("one-offset", buildFile(one("F32", "[1]", "[0]"), four), "E_HEADER", /two "data_offsets"/),
  broken("three-offsets", buildFile(one("F32", "[1]", "[0,4,4]"), four), "E_LIMIT", /more than 2/),
  broken("shape-is-string", buildFile(one("F32", '"1"'), four), "E_HEADER", /"shape" must be an array.*a string/),
  broken("size-is-string", buildFile(one("F32", '["1"]'), four), "E_HEADER", /number is expected, this is a string/),
  broken(
    "dtype-is-number",
    buildFile('{"x":{"dtype":32,"shape":[1],"data_offsets":[0,4]}}', four),
    "E_HEADER",
    /"dtype" must be a string/,
  ),

  // Types and integers.
  broken("unknown-dtype", buildFile(one("F128"), four), "E_DTYPE", /"x": unknown type "F128"/),
  broken("lowercase-dtype", buildFile(one("f32"), four), "E_DTYPE", /"f32"/),
  broken("inherited-dtype", buildFile(one("toString"), four), "E_DTYPE", /"toString"/),
  broken("negative-size", buildFile(one("F32", "[-1]"), four), "E_INTEGER", /-1/),
  broken("minus-zero", buildFile(one("F32", "[-0]", "[0,0]")), "E_INTEGER", /-0/),
  broken("fraction", buildFile(one("F32", "[1.0]"), four), "E_INTEGER", /1\.0/),
  broken("exponent", buildFile(one("F32", "[1e0]"), four), "E_INTEGER", /1e0/),
  broken("leading-zero", buildFile(one("F32", "[01]"), four), "E_INTEGER", /01/),
  broken("size-2-53", buildFile(one("F32", "[9007199254740992]"), four), "E_INTEGER", /9007199254740992/),
  broken("size-2-63", buildFile(one("U8", "[9223372036854775808]", "[0,4]"), four), "E_INTEGER", /9223372036854775808/),
  broken("size-2-64-plus-4", buildFile(one("U8", "[18446744073709551620]", "[0,4]"), four), "E_INTEGER", /51620/),
  broken("offset-2-53", buildFile(one("F32", "[1]", "[0,9007199254740993]"), four), "E_INTEGER", /740993/),

  // Shapes.
  broken("too-short", buildFile(one("F32", "[2]"), four), "E_SHAPE", /\[2\] of F32 is 8 bytes.*span 4/),
  broken("scalar-of-8-bytes", buildFile(one("F32", "[]", "[0,8]"), eight), "E_SHAPE", /is 4 bytes.*span 8/),
  broken("product-2-64", buildFile(one("U8", "[4294967296,4294967296]", "[0,0]")), "E_SHAPE", /2\^64/),
  broken(
    "product-2-62",
    buildFile(one("U8", "[2147483648,2147483648]", "[0,0]")),
    "E_SHAPE",
    /4611686018427387904 bytes/,
  ),
  broken("overflow-then-zero", buildFile(one("U8", "[4294967296,4294967296,0]", "[0,0]")), "E_SHAPE", /2\^64/),
  broken("half-a-byte", buildFile(one("F4", "[3]", "[0,1]"), new Uint8Array(1)), "E_SHAPE", /12 bits, no whole bytes/),
  broken("six-bits", buildFile(one("F6_E2M3", "[2]", "[0,1]"), new Uint8Array(1)), "E_SHAPE", /12 bits/),
  broken(
    "rank-65",
    buildFile(one("U8", `[${Array(65).fill(1)}]`, "[0,1]"), new Uint8Array(1)),
    "E_LIMIT",
    /more than 64/,
  ),

  // Offsets.
  broken(
    "end-before-begin",
    buildFile(one("F32", "[1]", "[8,4]"), eight),
    "E_BOUNDS",
    /begins at byte 8 and ends at byte 4/,
  ),
  broken(
    "overlap",
    buildFile(`{"x":${entry("F32", "[1]", "[0,4]")},"y":${entry("F32", "[1]", "[2,6]")}}`, new Uint8Array(6)),
    "E_OVERLAP",
    /"y" begins at byte 2, "x" before it ends at byte 4/,
  ),
  broken(
    "same-bytes",
    buildFile(`{"x":${entry("F32", "[1]", "[0,4]")},"y":${entry("I32", "[1]", "[0,4]")}}`, four),
    "E_OVERLAP",
    /"y" begins at byte 0/,
  ),
  broken(
    "hole",
    buildFile(`{"x":${entry("F32", "[1]", "[0,4]")},"y":${entry("U8", "[2]", "[6,8]")}}`, eight),
    "E_HOLE",
    /"y" begins at byte 6.*byte 4/,
  ),
  broken("hole-at-start", buildFile(one("F32", "[1]", "[4,8]"), eight), "E_HOLE", /begins at byte 4.*byte 0/),
  broken("empty-tensor-in-hole", buildFile(one("F32", "[0]", "[4,4]"), four), "E_HOLE", /begins at byte 4/),
  broken(
    "truncated-data",
    buildFile(one("F32", "[2]", "[0,8]"), four),
    "E_TRUNCATED",
    /"x" ends at byte 8, the file has 4/,
  ),
  broken("no-data", buildFile(one()), "E_TRUNCATED", /"x" ends at byte 4, the file has 0/),
  broken("trailing-byte", buildFile(one(), new Uint8Array(5)), "E_TRAILING", /end at byte 4, the file has 5/),
  broken("trailing-after-nothing", buildFile("{}", four), "E_TRAILING", /end at byte 0, the file has 4/),
];

/** Files that look odd and are right, with the shapes they must be read with. */
export const LEGAL_CASES: readonly {
  name: string;
  bytes: Buffer;
  tensors: readonly (readonly [string, string, number[]])[];
}[] = [
  { name: "no-tensors", bytes: buildFile("{}"), tensors: [] },
  { name: "padded", bytes: buildFile(`${one()}     `, four), tensors: [["x", "F32", [1]]] },
  { name: "only-metadata", bytes: buildFile('{"__metadata__":{"format":"pt"}}'), tensors: [] },
  { name: "zero-dimensional", bytes: buildFile(one("F32", "[]"), four), tensors: [["x", "F32", []]] },
  {
    name: "zero-elements",
    bytes: buildFile(one("F32", "[3,0,5]", "[0,0]")),
    tensors: [["x", "F32", [3, 0, 5]]],
  },
  {
    name: "empty-tensors-between",
    bytes: buildFile(
      `{"y":${entry("U8", "[4]", "[0,4]")},"b":${entry("F32", "[0]", "[4,4]")},` +
        `"a":${entry("F32", "[0]", "[0,0]")}}`,
      four,
    ),
    tensors: [
      ["a", "F32", [0]],
      ["y", "U8", [4]],
      ["b", "F32", [0]],
    ],
  },
  {
    name: "empty-name",
    bytes: buildFile(`{"":${entry("U8", "[4]", "[0,4]")}}`, four),
    tensors: [["", "U8", [4]]],
  },
  {
    name: "strange-names",
    bytes: buildFile(
      `{"__proto__":${entry("U8", "[1]", "[0,1]")},` +
        `"\\u0000\\ud83d\\ude00/..\\\\":${entry("U8", "[1]", "[1,2]")},` +
        `"é\u2028":${entry("U8", "[2]", "[2,4]")}}`,
      four,
    ),
    tensors: [
      ["__proto__", "U8", [1]],
      ["\0😀/..\\", "U8", [1]],
      ["é\u2028", "U8", [2]],
    ],
  },
  {
    name: "unknown-keys-and-spaces",
    bytes: buildFile(
      '{ "x" : {\t"note" : [ null , {"a":[-1.5e3,true]} ] , "data_offsets":[ 0 , 4 ],' +
        '"shape":[\r\n1 ] ,"dtype":"F32"} }',
      four,
    ),
    tensors: [["x", "F32", [1]]],
  },
  {
    name: "unordered",
    bytes: buildFile(`{"a":${entry("U8", "[2]", "[2,4]")},"b":${entry("U8", "[2]", "[0,2]")}}`, four),
    tensors: [
      ["b", "U8", [2]],
      ["a", "U8", [2]],
    ],
  },
  {
    name: "rank-64",
    bytes: buildFile(one("U8", `[${Array(64).fill(1)}]`, "[0,1]"), new Uint8Array(1)),
    tensors: [["x", "U8", Array(64).fill(1)]],
  },
];
