/** Rows of a quantized layer in the pack-quantized convention: the same codes, in words, and whole zero points. */
import type { Session } from "../engine/session.js";
import { ArrowQuantError } from "../errors.js";
import {
  countGroups,
  type PackedLayer,
  type PackedPart,
  packedRowBytes,
  shapeBytes,
  ZeroPointPacker,
} from "../formats/compressed-tensors.js";
import type { NativeRow } from "../formats/parquet/row.js";
import { readElement } from "../tensor/element.js";
import { packedBytes } from "../tensor/layout.js";
import { packParts, partsByteLength } from "../worker/parts.js";
import type { TensorForm } from "./export-forms.js";
import type { TensorPlace, WeightFiles } from "./export-weights.js";
import type { RowPlace } from "./stored-rows.js";

/** Rows whose codes end within a word are padded this much at a time. */
const PIECE_BYTES = 1024 * 1024;

type PackedForm = Extract<TensorForm, { kind: "packed" }>;

export class PackedLayerWriter {
  readonly #form: PackedForm;
  readonly #places: ReadonlyMap<PackedPart, TensorPlace>;
  readonly #session: Session;
  readonly #signal: AbortSignal;
  readonly #zeroPoints: ZeroPointPacker;
  /** Largest relative error that rounding made of a scale so far; 0 in float32. */
  scaleRounding = 0;

  private constructor(
    form: PackedForm,
    places: ReadonlyMap<PackedPart, TensorPlace>,
    session: Session,
    signal: AbortSignal,
  ) {
    this.#form = form;
    this.#places = places;
    this.#session = session;
    this.#signal = signal;
    this.#zeroPoints = new ZeroPointPacker({ bits: form.layer.bits, groups: countGroups(form.layer) });
  }

  /** Opens the files of the layer's tensors and writes its shape. */
  static async open(
    form: PackedForm,
    files: WeightFiles,
    session: Session,
    signal: AbortSignal,
  ): Promise<PackedLayerWriter> {
    const places = new Map<PackedPart, TensorPlace>();
    for (const [part, { name }] of form.parts) places.set(part, await files.open(name));
    const writer = new PackedLayerWriter(form, places, session, signal);
    await writer.#write("shape", shapeBytes(form.layer), 0);
    return writer;
  }

  /** Writes the next chunk. Returns the bytes written. @throws E_CONFLICT where a scale does not fit its type */
  async add(row: NativeRow, { firstRow, rows }: RowPlace): Promise<number> {
    let byteCount = await this.#writeCodes(row.data, firstRow, rows);
    byteCount += await this.#writeScales(row, firstRow, rows);
    if (this.#form.layer.symmetric) return byteCount;
    const { byteOffset, words } = this.#zeroPoints.add(readZeroPoints(row, this.#form.layer, rows));
    return byteCount + (await this.#write("zeroPoint", new Uint8Array(words.buffer), byteOffset));
  }

  async #write(part: PackedPart, bytes: Uint8Array, byteOffset: number): Promise<number> {
    const place = this.#places.get(part) as TensorPlace;
    await place.file.writeAt(bytes, place.byteOffset + byteOffset);
    return bytes.byteLength;
  }

  /** Bits stand as they do in the native file; only rows end on a word there and on a byte here. */
  async #writeCodes(data: Uint8Array, firstRow: number, rows: number): Promise<number> {
    const rowBytes = data.length / rows;
    const wordBytes = packedRowBytes(this.#form.layer);
    if (rowBytes === wordBytes) return this.#write("packed", data, firstRow * wordBytes);
    const pieceRows = Math.max(1, Math.floor(PIECE_BYTES / wordBytes));
    let byteCount = 0;
    for (let first = 0; first < rows; first += pieceRows) {
      this.#signal.throwIfAborted();
      const count = Math.min(pieceRows, rows - first);
      const padded = new Uint8Array(count * wordBytes);
      for (let row = 0; row < count; row++) {
        padded.set(data.subarray((first + row) * rowBytes, (first + row + 1) * rowBytes), row * wordBytes);
      }
      byteCount += await this.#write("packed", padded, (firstRow + first) * wordBytes);
    }
    return byteCount;
  }

  async #writeScales(row: NativeRow, firstRow: number, rows: number): Promise<number> {
    const { scaleDtype, layer } = this.#form;
    const groups = countGroups(layer);
    const { budget, buffers } = this.#session;
    // Expanded, as they go to a worker, and as they come back.
    const reserved = 3 * rows * groups * Float32Array.BYTES_PER_ELEMENT;
    if (reserved > budget.capacity) {
      throw this.#session.memoryError(`"${row.layerName}"`, 0, reserved - budget.capacity);
    }
    await budget.acquire(reserved, this.#signal);
    try {
      const scales =
        row.scaleBits === null ? (row.scales as Float32Array) : await this.#expandScales(row, rows, groups);
      const bytes = new Uint8Array(scales.buffer, scales.byteOffset, scales.byteLength);
      if (scaleDtype === "F32") return await this.#write("scale", bytes, firstRow * groups * 4);
      const input = buffers.take(bytes.byteLength);
      new Uint8Array(input).set(bytes);
      const output = buffers.take(bytes.byteLength / 2);
      const shape = { rows, cols: groups, slabRows: this.#slabRows(rows, groups), dtype: scaleDtype };
      const reply = await this.#session.run(
        { kind: "convert", ...shape, storedDtype: "F32", input, output },
        [input, output],
        this.#signal,
      );
      const rounded = new Uint8Array(reply.output, 0, reply.byteLength);
      this.#measureRounding(row, scales, new Uint16Array(reply.output, 0, scales.length), scaleDtype);
      const byteCount = await this.#write("scale", rounded, firstRow * groups * 2);
      buffers.give(reply.input);
      buffers.give(reply.output);
      return byteCount;
    } finally {
      budget.release(reserved);
    }
  }

  /**
   * Coded scales as float32, by the kernel that rebuilds weights: a group's scale is the weight that code 3 stands for
   * in a symmetric layer of 2 bits, (3 − 2) · scale, whose groups have one element each.
   */
  async #expandScales(row: NativeRow, rows: number, groups: number): Promise<Float32Array> {
    const { buffers } = this.#session;
    const parts = {
      data: new Uint8Array(rows * packedBytes(groups, 2)).fill(0xff),
      scales: row.scales,
      zeroPoints: null,
      scaleCodes: row.scaleCodes,
      zeroPointCodes: null,
      residualScaleCodes: null,
    };
    const input = buffers.take(partsByteLength(Object.values(parts).map((part) => part?.byteLength ?? 0)));
    const output = new ArrayBuffer(rows * groups * Float32Array.BYTES_PER_ELEMENT);
    const stored = {
      bits: 2,
      storageBits: 2,
      groupSize: 1,
      superGroupSize: (row.superGroupSize as number) / (row.groupSize as number),
      scaleBits: row.scaleBits,
      zeroPointBits: null,
      isR2q: false,
    };
    const shape = { rows, cols: groups, slabRows: this.#slabRows(rows, groups), dtype: "F32" } as const;
    const reply = await this.#session.run(
      { kind: "rebuild", ...shape, stored, parts: packParts(parts, input), equalizationScales: null, input, output },
      [input, output],
      this.#signal,
    );
    buffers.give(reply.input);
    return new Float32Array(reply.output);
  }

  #slabRows(rows: number, groups: number): number {
    return Math.max(1, Math.min(rows, Math.floor(this.#session.slabBytes / (groups * Float32Array.BYTES_PER_ELEMENT))));
  }

  #measureRounding(row: NativeRow, scales: Float32Array, rounded: Uint16Array, dtype: "F16" | "BF16"): void {
    const values = valuesOf(dtype);
    for (let index = 0; index < scales.length; index++) {
      const scale = scales[index] as number;
      if (scale === 0) continue;
      const kept = values[rounded[index] as number] as number;
      const error = Math.abs(kept - scale) / Math.abs(scale);
      // A scale that became 0 is off by 1, one that became infinite by infinity.
      if (error < 1) {
        if (error > this.scaleRounding) this.scaleRounding = error;
      } else {
        throw new ArrowQuantError("E_CONFLICT", `a scale of "${row.layerName}" is ${scale}, in ${dtype} ${kept}`, {
          hint: dtype === "F16" ? "--dtype bf16 or f32" : "--dtype f32",
          details: { layer: row.layerName, scale, dtype },
        });
      }
    }
  }
}

/** Every value of a 16-bit type, by its bits. */
const valueTables = new Map<"F16" | "BF16", Float32Array>();

function valuesOf(dtype: "F16" | "BF16"): Float32Array {
  let values = valueTables.get(dtype);
  if (values === undefined) {
    const view = new DataView(Uint16Array.from({ length: 0x10000 }, (_, bits) => bits).buffer);
    values = Float32Array.from({ length: 0x10000 }, (_, bits) => readElement(view, bits, dtype));
    valueTables.set(dtype, values);
  }
  return values;
}

/** A chunk's zero points, one a byte; `planPacking` has seen that they are whole and in range. */
function readZeroPoints(row: NativeRow, layer: PackedLayer, rows: number): Uint8Array {
  const { bits } = layer;
  const groups = countGroups(layer);
  const { zeroPoints, zeroPointCodes, zeroPointBits } = row;
  if (zeroPoints !== null) return Uint8Array.from(zeroPoints);
  const values = new Uint8Array(rows * groups);
  // Other chunks of the layer have zero points, this one has none (FORMAT.md, Rebuilding).
  if (zeroPointCodes === null || zeroPointBits === null) return values.fill(2 ** (bits - 1));
  // Whole, as `zeroPointBits` divides `bits`: (2^bits − 1) / (2^zeroPointBits − 1) for each step of the code.
  const step = (2 ** bits - 1) / (2 ** zeroPointBits - 1);
  const rowBytes = packedBytes(groups, zeroPointBits);
  const mask = 2 ** zeroPointBits - 1;
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const bit = group * zeroPointBits;
      const byte = zeroPointCodes[row * rowBytes + (bit >> 3)] as number;
      values[row * groups + group] = step * ((byte >> (bit & 7)) & mask);
    }
  }
  return values;
}
