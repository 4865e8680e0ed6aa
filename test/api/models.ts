/** Models and looks at outputs that the API's tests share. */
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gaussianFloats, gaussianPart, writeModel } from "../quantize/source.js";

export const unet = fileURLToPath(new URL("../models/unet-mnist", import.meta.url));
export const dit = fileURLToPath(new URL("../models/dit-mnist", import.meta.url));

/** Settings under which made-up tensor names are no riddle. */
export const plain = { modality: "image", method: "rtn" } as const;

/** About 200 KB in three quantized layers and a kept one; another `seed` makes another model. */
export function writeSmallModel(path: string, seed: number): Promise<string> {
  return writeModel(path, [
    gaussianPart("blocks.0.weight", [96, 256], 4 * seed + 1),
    gaussianPart("blocks.0.norm", [96], 4 * seed + 2),
    gaussianPart("blocks.1.weight", [64, 256], 4 * seed + 3),
    gaussianPart("blocks.2.weight", [32, 256], 4 * seed + 4),
  ]);
}

/** One layer of 64 Mi weights in 256 MiB: seconds of work for method mse. The weights repeat, who reads them cannot tell. */
export async function writeLargeModel(path: string): Promise<string> {
  const rows = 8192;
  const cols = 8192;
  const header = JSON.stringify({
    "large.weight": { dtype: "F32", shape: [rows, cols], data_offsets: [0, 4 * rows * cols] },
  });
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(header.length));
  const block = Buffer.from(gaussianFloats(cols * 32, 99).buffer);
  const file = await open(path, "w");
  try {
    await file.write(Buffer.concat([prefix, Buffer.from(header)]));
    for (let row = 0; row < rows; row += 32) await file.write(block);
  } finally {
    await file.close();
  }
  return path;
}

export async function digest(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}

/** What unfinished outputs a folder holds. */
export function leftovers(folder: string): string[] {
  return readdirSync(folder).filter((name) => name.includes(".arrowquant-"));
}
