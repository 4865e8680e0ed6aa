/** What calibration adds to a chunk's quantization, read into the kernels' memory. */
import { closeSync, openSync } from "node:fs";
import { readError, readExactlySync } from "../io/read.js";
import type { ChunkQuantizer, ChunkShape } from "../kernels/chunk-quantizer.js";
import type { ChunkCalibration, FloatPlace } from "./messages.js";

/** The part of a chunk's shape that calibration decides. */
export function calibratedShape(calibration: ChunkCalibration | null): Partial<ChunkShape> {
  if (calibration === null) return {};
  const { importance, equalizationScales, factor, heldBack } = calibration;
  return {
    ...(importance === null ? {} : { importance }),
    ...(equalizationScales === null ? {} : { equalizationScales }),
    ...(factor === null ? {} : { hessian: { order: factor.order, deadColumns: factor.deadColumns } }),
    ...(heldBack === null ? {} : { heldBack: { rowCount: heldBack.rowCount, activations: heldBack.activations } }),
  };
}

/** Fills in the Hessian's factor and the held-back rows, before the first slab. */
export function readCalibration(quantizer: ChunkQuantizer, calibration: ChunkCalibration | null): void {
  if (calibration === null) return;
  const { factor, heldBack } = calibration;
  if (factor !== null) {
    withPlace(factor, (read) => read(0, quantizer.factor()));
  }
  if (heldBack !== null) {
    withPlace(heldBack, (read) => {
      let floatOffset = 0;
      quantizer.readHeldBack((_firstRow, into) => {
        read(floatOffset, into);
        floatOffset += into.length;
      });
    });
  }
}

/** Opens the file, hands over a function that fills floats from an offset in floats, and closes the file. */
export function withPlace(
  { path, byteOffset }: FloatPlace,
  use: (read: (floatOffset: number, into: Float32Array) => void) => void,
): void {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    throw readError(error, path, "open");
  }
  try {
    use((floatOffset, into) => {
      const bytes = new Uint8Array(into.buffer, into.byteOffset, into.byteLength);
      readExactlySync(fd, path, bytes, byteOffset + 4 * floatOffset);
    });
  } finally {
    closeSync(fd);
  }
}
