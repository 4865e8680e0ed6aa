/** A stopped run that is resumed gives the bytes of one that was never stopped (`--resume`). */
import { existsSync } from "node:fs";
import { readFile, stat, truncate, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Session } from "../../dist/engine/session.js";
import { quantizeModel } from "../../dist/quantize/quantize.js";
import type { LayerReport } from "../../dist/quantize/result.js";
import { gaussianPart, useFolder, writeModel } from "./source.js";

const folder = useFolder();
const session = new Session({ threads: 2 });
afterAll(() => session.dispose());

const config = { modality: "image", method: "hqq", bit_width: 2, min_accuracy: 0.5 };
const layerCount = 12;
let input = "";
let unbroken: Buffer;
let reports: readonly LayerReport[];

beforeAll(async () => {
  const parts = Array.from({ length: layerCount }, (_, index) => gaussianPart(`l${index}.weight`, [96, 256], index));
  input = await writeModel(folder.path("model.safetensors"), parts);
  const output = folder.path("unbroken.parquet");
  reports = (await quantizeModel({ input, output, config }, session)).layers;
  unbroken = await readFile(output);
});

/** Runs until `count` layers are written, then stops. */
async function stopAfter(count: number, output: string, over: object = {}): Promise<void> {
  const controller = new AbortController();
  let done = 0;
  const onLayer = () => {
    done += 1;
    if (done === count) controller.abort(new Error("stopped"));
  };
  const job = { input, output, config: { ...config, ...over }, resume: true, signal: controller.signal };
  await expect(quantizeModel(job, session, { onLayer })).rejects.toThrow("stopped");
}

const logOf = (output: string) => `${output}.arrowquant-resume/model.log`;

describe("a resumed run", () => {
  it.each([1, 5, 11])("after %i layers gives the same bytes and reports, and tidies up", async (count) => {
    const output = folder.path(`stopped-${count}.parquet`);
    await stopAfter(count, output);
    expect(existsSync(output)).toBe(false);
    const { size } = await stat(logOf(output));
    const result = await quantizeModel({ input, output, config, resume: true }, session);
    expect(Buffer.compare(await readFile(output), unbroken)).toBe(0);
    expect(result.layers).toEqual(reports);
    expect(size).toBeGreaterThan(count * 96 * 64);
    expect(existsSync(`${output}.arrowquant-resume`)).toBe(false);
  });

  it("takes what a killed run left half-written, or damaged, up to the last whole layer", async () => {
    const output = folder.path("damaged.parquet");
    await stopAfter(6, output);
    const { size } = await stat(logOf(output));
    for (const damage of [
      () => truncate(logOf(output), size - 100),
      async () => {
        const log = await readFile(logOf(output));
        log[Math.floor(log.length / 2)] ^= 1;
        await writeFile(logOf(output), log);
      },
      () => writeFile(logOf(output), "nonsense"),
    ]) {
      await damage();
      await stopAfter(2, output);
    }
    await quantizeModel({ input, output, config, resume: true }, session);
    expect(Buffer.compare(await readFile(output), unbroken)).toBe(0);
  });

  it("begins anew where the settings are others", async () => {
    const output = folder.path("other.parquet");
    await stopAfter(6, output, { bit_width: 4 });
    await quantizeModel({ input, output, config, resume: true }, session);
    expect(Buffer.compare(await readFile(output), unbroken)).toBe(0);
  });

  it("is not what a run without resume does, which leaves nothing to resume", async () => {
    const output = folder.path("plain.parquet");
    await quantizeModel({ input, output, config }, session);
    expect(existsSync(`${output}.arrowquant-resume`)).toBe(false);
  });
});
