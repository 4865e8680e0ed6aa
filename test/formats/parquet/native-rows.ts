/** Rows for tests: a legal base, and arbitraries of every kind of tensor cut into chunks in every way. */
import fc from "fast-check";
import { type NativeRow, rowCrc32 } from "../../../dist/formats/parquet/row.js";
import { NativeWriter } from "../../../dist/formats/parquet/writer.js";

export type MutableRow = { -readonly [Key in keyof NativeRow]: NativeRow[Key] };

/** A row with its checksum put right. */
export function sealed(row: NativeRow): NativeRow {
  return { ...row, crc32: rowCrc32(row) };
}

/** A kept vector of `length` float32 values. */
export function keptRow(layerName: string, length = 4): NativeRow {
  return sealed({
    layerName,
    shape: [length],
    dtype: "F32",
    data: new Uint8Array(4 * length).map((_, index) => index * 7),
    paramCount: length,
    quantType: "none",
    scales: null,
    zeroPoints: null,
    quantAxis: null,
    groupSize: null,
    isDiffusionModel: true,
    modality: null,
    timeAware: null,
    spatial: null,
    activationStats: null,
    component: "transformer",
    method: null,
    storedDtype: "F32",
    metrics: null,
    crc32: 0,
    chunkIndex: 0,
    chunkCount: 1,
    scaleBits: null,
    superGroupSize: null,
    scaleCodes: null,
    zeroPointBits: null,
    zeroPointCodes: null,
    residualScaleCodes: null,
  });
}

/** A matrix in int4, groups of 32, float32 scales and zero points. */
export function int4Row(layerName: string, rows = 4, cols = 70): NativeRow {
  const groups = Math.ceil(cols / 32);
  return sealed({
    ...keptRow(layerName),
    shape: [rows, cols],
    data: new Uint8Array(rows * Math.ceil(cols / 2)).map((_, index) => index * 11),
    paramCount: rows * cols,
    quantType: "int4",
    scales: Float32Array.from({ length: rows * groups }, (_, index) => 0.01 * (index + 1)),
    zeroPoints: Float32Array.from({ length: rows * groups }, (_, index) => (index % 16) + 0.25),
    quantAxis: 1,
    groupSize: 32,
    method: "hqq",
    storedDtype: null,
    metrics: {
      dot: 1 / 3,
      sourceNorm2: 2 / 3,
      rebuiltNorm2: 0.1,
      errorNorm2: 1e-300,
      maxAbsError: 0.5,
      cosineSimilarity: 1,
      sqnrDb: Number.POSITIVE_INFINITY,
      relativeRmse: 0,
    },
  });
}

function bytes(length: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: length, maxLength: length });
}

/** Any bit patterns, NaNs among them. */
function floats(length: number): fc.Arbitrary<Float32Array> {
  return bytes(4 * length).map((raw) => new Float32Array(raw.slice().buffer));
}

const float32 = fc.float({ noNaN: true });
const float64 = fc.double({ noNaN: true });
const nullable = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: null });

const timeAware = fc.record({
  enabled: fc.boolean(),
  numTimeGroups: fc.nat(50),
  activationBits: fc.constantFrom(4, 6, 8),
  timeInput: fc.constantFrom("timestep", "sigma", ""),
  timeGroupParams: fc.array(
    fc.record({
      timeRange: fc.record({ start: float64, end: float64 }),
      scale: float32,
      zeroPoint: float32,
      groupSize: nullable(fc.nat(100)),
    }),
    { maxLength: 4 },
  ),
});

const metrics = fc.record({
  dot: float64,
  sourceNorm2: float64,
  rebuiltNorm2: float64,
  errorNorm2: float64,
  maxAbsError: float32,
  cosineSimilarity: float32,
  sqnrDb: float32,
  relativeRmse: float32,
});

const wholeTensor = fc.record({
  modality: nullable(fc.constantFrom("text", "image", "audio")),
  timeAware: nullable(timeAware),
  activationStats: nullable(fc.record({ mean: float32, std: float32, min: float32, max: float32 })),
  component: fc.constantFrom("transformer", "unet", "model"),
  dtype: fc.constantFrom("F32" as const, "F16" as const, "BF16" as const),
});

/** Cuts `rows` rows into consecutive runs. */
function cuts(rows: number): fc.Arbitrary<number[]> {
  return fc.array(fc.boolean(), { minLength: Math.max(0, rows - 1), maxLength: Math.max(0, rows - 1) }).map((marks) => {
    const runs = [1];
    for (const cut of marks) {
      if (cut) runs.push(1);
      else runs[runs.length - 1] = (runs.at(-1) as number) + 1;
    }
    return rows === 0 ? [0] : runs;
  });
}

const KEPT_BYTES = { F32: 4, F16: 2, BF16: 2, I64: 8, BOOL: 1 } as const;

/** Chunks of a kept tensor of any rank. */
const keptTensor: fc.Arbitrary<NativeRow[]> = fc
  .record({
    shape: fc.array(fc.nat(5), { maxLength: 3 }),
    storedDtype: fc.constantFrom(...(Object.keys(KEPT_BYTES) as (keyof typeof KEPT_BYTES)[])),
    common: wholeTensor,
  })
  .chain(({ shape, storedDtype, common }) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const cols = shape.length < 2 ? 1 : shape.slice(1).reduce((product, size) => product * size, 1);
    return cuts(count === 0 ? 0 : count / cols).chain((runs) =>
      fc.tuple(
        ...runs.map((rows, chunkIndex) =>
          bytes(rows * cols * KEPT_BYTES[storedDtype]).map((data) =>
            sealed({
              ...keptRow(""),
              ...common,
              dtype: storedDtype,
              shape,
              paramCount: count,
              data,
              storedDtype,
              chunkIndex,
              chunkCount: runs.length,
            }),
          ),
        ),
      ),
    );
  });

const BITS = { int2: 2, int3: 3, int4: 4, int5: 5, int6: 6, int8: 8 } as const;

const quantSettings = fc
  .record({
    quantType: fc.constantFrom(...(Object.keys(BITS) as (keyof typeof BITS)[])),
    shape: fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 2, maxLength: 4 }),
    groupSize: fc.integer({ min: 1, max: 40 }),
    superGroups: fc.integer({ min: 1, max: 4 }),
    method: fc.constantFrom("rtn" as const, "hqq" as const, "mse" as const, "gptq" as const),
    scaleBits: nullable(fc.integer({ min: 2, max: 8 })),
    zeroPoints: fc.constantFrom("none", "float", "coded"),
    zeroPointBits: fc.integer({ min: 2, max: 8 }),
    isR2q: fc.boolean(),
    isEqualized: fc.boolean(),
    common: wholeTensor,
  })
  .map((settings) =>
    settings.isR2q
      ? {
          ...settings,
          method: "r2q" as const,
          quantType: "int2" as const,
          scaleBits: settings.scaleBits ?? 4,
          zeroPoints: "none",
        }
      : settings,
  );

/** Chunks of a quantized tensor with any storage of scales and zero points. */
const quantizedTensor: fc.Arbitrary<NativeRow[]> = quantSettings.chain((settings) => {
  const { shape, groupSize, scaleBits, zeroPoints, isR2q } = settings;
  const cols = shape.slice(1).reduce((product, size) => product * size, 1);
  const groups = Math.ceil(cols / groupSize);
  const superGroupSize = scaleBits === null ? null : groupSize * settings.superGroups;
  const scalesPerRow = superGroupSize === null ? groups : Math.ceil(cols / superGroupSize);
  const zeroPointBits = zeroPoints === "coded" ? settings.zeroPointBits : null;
  const codes = (rows: number, count: number, bits: number) => bytes(rows * Math.ceil((count * bits) / 8));
  const absent = fc.constant(null);
  const spatial = settings.isEqualized
    ? floats(shape[1] as number).map((equalizationScales) => ({
        enabled: true,
        channelEqualization: true,
        activationSmoothing: 0.5,
        equalizationScales,
      }))
    : absent;
  return fc.tuple(cuts(shape[0] as number), spatial).chain(([runs, spatialQuant]) =>
    fc.tuple(
      ...runs.map((rows, chunkIndex) =>
        fc
          .record({
            data: codes(rows, cols, BITS[settings.quantType]),
            scales: floats(rows * scalesPerRow),
            zeroPoints: zeroPoints === "float" ? floats(rows * groups) : absent,
            scaleCodes: scaleBits === null ? absent : codes(rows, groups, scaleBits),
            zeroPointCodes: zeroPointBits === null ? absent : codes(rows, groups, zeroPointBits),
            residualScaleCodes: isR2q && scaleBits !== null ? codes(rows, groups, scaleBits) : absent,
            metrics,
          })
          .map((parts) =>
            sealed({
              ...keptRow(""),
              ...settings.common,
              ...parts,
              shape,
              paramCount: cols * (shape[0] as number),
              quantType: settings.quantType,
              quantAxis: 1,
              groupSize,
              spatial: spatialQuant,
              method: settings.method,
              storedDtype: null,
              chunkIndex,
              chunkCount: runs.length,
              scaleBits,
              superGroupSize,
              zeroPointBits,
            }),
          ),
      ),
    ),
  );
});

/** Rows of a whole file: tensors of every kind with different names. */
export const fileRows: fc.Arbitrary<NativeRow[]> = fc
  .array(fc.oneof(keptTensor, quantizedTensor), { maxLength: 6 })
  .chain((tensors) =>
    fc
      .uniqueArray(fc.string({ unit: "grapheme", maxLength: 12 }), {
        minLength: tensors.length,
        maxLength: tensors.length,
      })
      .map((names) =>
        tensors.flatMap((rows, index) => rows.map((row) => ({ ...row, layerName: names[index] as string }))),
      ),
  );

export const METADATA: ReadonlyMap<string, string> = new Map([
  ["arrowquant.format", "2.1"],
  ["arrowquant.version", "0.1.0"],
  ["arrowquant.config", '{"bit_width":4}'],
  ["arrowquant.source", '{"files":[]}'],
  ["arrowquant.component_config", '{"_class_name":"Ünet"}\n'],
]);

/** The bytes of a file of these rows. */
export async function writeRows(
  rows: Iterable<NativeRow>,
  metadata: ReadonlyMap<string, string> = METADATA,
): Promise<Buffer> {
  const pieces: Buffer[] = [];
  const writer = await NativeWriter.open(
    {
      write: async (piece) => {
        pieces.push(Buffer.from(piece));
      },
    },
    metadata,
  );
  for (const row of rows) await writer.write(row);
  const { byteLength } = await writer.finish();
  const file = Buffer.concat(pieces);
  if (file.length !== byteLength) throw new Error(`${file.length} bytes were written, ${byteLength} reported`);
  return file;
}
