import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import { temporaryFolder, wave, writeModel } from "../cli/models.js";

const folder = temporaryFolder();
const place = temporaryFolder();
const config = { method: "rtn", modality: "image", bit_width: 4 } as const;
const workerUrl = new URL("./dying-worker.mjs", import.meta.url);

function model(name: string, tensors: readonly string[]): string {
  const path = join(folder, `${name}.safetensors`);
  return writeModel(
    path,
    tensors.map((tensor) => ({ name: tensor, shape: [64, 256], values: wave })),
  );
}

const healthy = model(
  "healthy",
  Array.from({ length: 20 }, (_, index) => `blocks.${index}.attn.to_q.weight`),
);

function job(input: string, name: string) {
  return { input, output: join(place, `${name}.parquet`), config };
}

describe("a worker thread that dies", () => {
  it.each(["exit", "throw", "memory"])("of %s fails its own job, is replaced, and harms nobody else", async (death) => {
    const input = model(death, [
      ...Array.from({ length: 8 }, (_, index) => `blocks.${index}.attn.to_q.weight`),
      `blocks.8.dies_of_${death}.weight`,
    ]);
    await using session = new Session({ threads: 2, workerUrl });
    const [failed, sibling] = await Promise.allSettled([
      quantizeModel(job(input, death), session),
      quantizeModel(job(healthy, "sibling"), session),
    ]);
    expect(failed).toMatchObject({ status: "rejected", reason: { code: "E_WORKER", exitCode: 1 } });
    expect(sibling.status).toBe("fulfilled");
    expect(session.budget.available).toBe(session.budget.capacity);
    // More jobs than threads: with none replaced they would have nobody to run them.
    const names = ["first", "second", "third"];
    await Promise.all(names.map((name) => quantizeModel(job(healthy, name), session)));
    for (const name of ["sibling", ...names]) {
      expect(readFileSync(join(place, `${name}.parquet`)).equals(readFileSync(join(place, "first.parquet")))).toBe(
        true,
      );
    }
    expect(readdirSync(place).filter((name) => !name.endsWith(".parquet") || name.startsWith(death))).toEqual([]);
  });
});
