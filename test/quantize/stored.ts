/** What native files hold, for comparing two of them. */
import { openNative } from "../../dist/formats/parquet/reader.js";

export interface StoredRow {
  readonly shape: readonly number[];
  readonly quantType: string;
  readonly storedDtype: string | null;
  readonly chunkIndex: number;
  readonly chunkCount: number;
  /** Codes, scales and zero points. */
  readonly parts: readonly (string | null)[];
}

/** The rows of each tensor. */
export async function readStored(path: string): Promise<Record<string, StoredRow[]>> {
  const native = await openNative(path);
  const stored: Record<string, StoredRow[]> = {};
  for await (const { layerName, data, scales, zeroPoints, scaleCodes, zeroPointCodes, ...row } of native.rows()) {
    const { shape, quantType, storedDtype, chunkIndex, chunkCount } = row;
    const parts = [data, scales, zeroPoints, scaleCodes, zeroPointCodes].map((part) =>
      part === null ? null : Buffer.from(part.buffer, part.byteOffset, part.byteLength).toString("base64"),
    );
    stored[layerName] ??= [];
    stored[layerName].push({ shape, quantType, storedDtype, chunkIndex, chunkCount, parts });
  }
  native.close();
  return stored;
}
