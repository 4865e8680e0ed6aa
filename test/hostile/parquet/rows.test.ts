import { describe, expect, test } from "vitest";
import type { NativeRow } from "../../../dist/formats/parquet/row.js";
import { int4Row, keptRow, type MutableRow, sealed, writeRows } from "../../formats/parquet/native-rows.js";
import { encodePlain, plainRow } from "../../formats/parquet/plain-v2.js";
import { refusal } from "./refusal.js";

const coded: NativeRow = sealed({
  ...int4Row("coded"),
  scales: Float32Array.of(1, 2, 3, 4),
  zeroPoints: null,
  scaleBits: 6,
  superGroupSize: 128,
  scaleCodes: new Uint8Array(12),
  zeroPointBits: 4,
  zeroPointCodes: new Uint8Array(8),
});

const r2q: NativeRow = sealed({
  ...coded,
  quantType: "int2",
  data: new Uint8Array(72),
  method: "r2q",
  zeroPointBits: null,
  zeroPointCodes: null,
  residualScaleCodes: new Uint8Array(12),
});

type RowChange = Partial<{ [Key in keyof MutableRow]: unknown }>;

describe("a row", () => {
  test("of each base is legal", async () => {
    expect(
      await refusal(await writeRows([int4Row("a"), keptRow("b"), coded, { ...r2q, layerName: "r2q" }])),
    ).toBeNull();
  });

  const kept: [string, RowChange][] = [
    ["a shape that num_params contradicts", { shape: [5] }],
    ["a negative size", { shape: [-4, -1] }],
    ["a shape beyond 2^53", { shape: [2 ** 30, 2 ** 30], paramCount: 4 }],
    ["an unknown dtype", { dtype: "F33" }],
    ["an unknown stored dtype", { storedDtype: "__proto__" }],
    ["an unknown quant_type", { quantType: "int7" }],
    ["a quant_type off the prototype", { quantType: "toString" }],
    ["no stored dtype", { storedDtype: null }],
    ["scales although it is kept", { scales: Float32Array.of(1) }],
    ["a method although it is kept", { method: "rtn" }],
    ["a group size although it is kept", { groupSize: 32 }],
    ["a byte too many", { data: new Uint8Array(17) }],
    ["a byte too few", { data: new Uint8Array(15) }],
    ["rows too many", { data: new Uint8Array(20) }],
    ["rows too few", { data: new Uint8Array(12) }],
    ["no data at all", { data: new Uint8Array(0) }],
    ["a chunk index beyond its count", { chunkIndex: 1 }],
    ["a negative chunk index", { chunkIndex: -1 }],
    ["no chunks", { chunkCount: 0 }],
    ["more chunks than rows follow", { chunkCount: 2, data: new Uint8Array(8) }],
  ];
  const quantized: [string, NativeRow, RowChange][] = [
    ["one dimension", int4Row("a"), { shape: [280] }],
    ["no elements", int4Row("a"), { shape: [0, 70], paramCount: 0, data: new Uint8Array(0) }],
    ["a stored dtype", int4Row("a"), { storedDtype: "F32" }],
    ["no method", int4Row("a"), { method: null }],
    ["an unknown method", int4Row("a"), { method: "magic" }],
    ["another axis", int4Row("a"), { quantAxis: 0 }],
    ["no axis", int4Row("a"), { quantAxis: null }],
    ["no group size", int4Row("a"), { groupSize: null }],
    ["groups of nothing", int4Row("a"), { groupSize: 0 }],
    ["scales for other groups", int4Row("a"), { groupSize: 16 }],
    ["no scales", int4Row("a"), { scales: null }],
    ["a scale too few", int4Row("a"), { scales: new Float32Array(11) }],
    ["a zero point too many", int4Row("a"), { zeroPoints: new Float32Array(13) }],
    ["half a row", int4Row("a"), { data: new Uint8Array(100) }],
    ["codes of another width", int4Row("a"), { quantType: "int2" }],
    ["scale codes without bits", int4Row("a"), { scaleCodes: new Uint8Array(12) }],
    ["zero-point codes without bits", int4Row("a"), { zeroPointCodes: new Uint8Array(12) }],
    ["residuals without r2q", int4Row("a"), { residualScaleCodes: new Uint8Array(12) }],
    ["super-groups without bits", int4Row("a"), { superGroupSize: 128 }],
    ["equalization of other channels", int4Row("a"), { spatial: equalized(69) }],
    ["scale bits out of range", coded, { scaleBits: 9 }],
    ["scale bits of one", coded, { scaleBits: 1 }],
    ["zero-point bits out of range", coded, { zeroPointBits: 0 }],
    ["super-groups that groups do not divide", coded, { superGroupSize: 100 }],
    ["no super-groups", coded, { superGroupSize: null }],
    ["no scale codes", coded, { scaleCodes: null }],
    ["scale codes too few", coded, { scaleCodes: new Uint8Array(11) }],
    ["zero-point codes too few", coded, { zeroPointCodes: new Uint8Array(7) }],
    ["zero points beside their codes", coded, { zeroPoints: new Float32Array(12) }],
    ["a scale per group beside scale codes", coded, { scales: new Float32Array(12) }],
    ["r2q without residuals", r2q, { residualScaleCodes: null }],
    ["r2q at another width", r2q, { quantType: "int4", data: new Uint8Array(140) }],
    ["r2q with zero points", r2q, { zeroPoints: new Float32Array(12) }],
    [
      "r2q without scale bits",
      r2q,
      { scaleBits: null, superGroupSize: null, scaleCodes: null, scales: new Float32Array(12) },
    ],
  ];
  const all = [
    ...kept.map(([name, change]): [string, NativeRow, RowChange] => [name, keptRow("a"), change]),
    ...quantized,
  ];
  test.each(all)("with %s", async (_, base, change) => {
    const error = await refusal(await writeRows([sealed({ ...base, ...change } as NativeRow), keptRow("z")]));
    expect(error?.code).toBe("E_NATIVE");
    expect(error?.message).toContain(`"${base.layerName}" chunk`);
  });

  test("of a plain file that breaks its rules", async () => {
    const row = plainRow("p");
    for (const change of [
      { scales: [1, 2] },
      { scales: null },
      { scales: [1, 2, 3], quant_axis: 0 },
      { quant_axis: 2 },
      { group_size: 4, quant_axis: 0 },
      { group_size: 0 },
      { zero_points: [1, 2] },
      { data: new Uint8Array(7) },
      { quant_type: "int9" },
      { num_params: 13 },
    ]) {
      const error = await refusal(encodePlain([{ ...row, ...change }]));
      expect(error?.code, JSON.stringify(change)).toBe("E_NATIVE");
    }
  });
});

function equalized(length: number) {
  const equalizationScales = new Float32Array(length);
  return { enabled: true, channelEqualization: true, activationSmoothing: 0.5, equalizationScales };
}

describe("chunks", () => {
  const chunk = (chunkIndex: number, chunkCount: number, change: RowChange = {}): NativeRow =>
    sealed({ ...keptRow("t", 2), shape: [6], paramCount: 6, chunkIndex, chunkCount, ...change } as NativeRow);

  test("in order are legal", async () => {
    expect(await refusal(await writeRows([0, 1, 2].map((index) => chunk(index, 3))))).toBeNull();
  });

  const broken: [string, NativeRow[]][] = [
    ["missing at the start", [chunk(1, 3), chunk(2, 3)]],
    ["missing in the middle", [chunk(0, 3), chunk(2, 3)]],
    ["missing at the end", [chunk(0, 3), chunk(1, 3)]],
    ["missing before another tensor", [chunk(0, 3), keptRow("other")]],
    ["swapped", [chunk(0, 3), chunk(2, 3), chunk(1, 3)]],
    ["twice", [chunk(0, 3), chunk(1, 3), chunk(1, 3), chunk(2, 3)]],
    [
      "of a tensor that stands twice",
      [chunk(0, 1, keptRow("t", 6)), chunk(0, 1, keptRow("t", 6))].map((row) =>
        sealed({ ...row, shape: [6], paramCount: 6 }),
      ),
    ],
    ["that disagree about the type", [chunk(0, 3), chunk(1, 3, { dtype: "F16" }), chunk(2, 3)]],
    ["that disagree about their number", [chunk(0, 3), chunk(1, 4), chunk(2, 4), chunk(3, 4)]],
    ["of too few rows", [chunk(0, 2), chunk(1, 2)]],
    ["of too many rows", [0, 1, 2, 3].map((index) => chunk(index, 4))],
  ];
  test.each(broken)("%s", async (_, rows) => {
    expect((await refusal(await writeRows(rows)))?.code).toBe("E_NATIVE");
  });
});
