/** Importance matrices of other programs as statistics. */
import { mkdir, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { calibrateModel } from "../../dist/calibration/calibrate.js";
import type { CalibrateResult } from "../../dist/calibration/calibration-job.js";
import { readImatrix } from "../../dist/calibration/imatrix.js";
import { openStatistics } from "../../dist/calibration/statistics.js";
import { Session } from "../../dist/engine/session.js";
import { gaussianPart, useFolder, writeModel } from "../quantize/source.js";
import { buildGguf, buildLegacy, type Entry } from "./imatrix-files.js";
import { smallJob } from "./small-model.js";

const folder = useFolder();
let session: Session;
beforeAll(async () => {
  session = new Session({ threads: 1 });
  await mkdir(folder.path("model"));
  await writeModel(folder.path("model", "model.safetensors"), [
    gaussianPart("blocks.0.attn.weight", [8, 3], 1),
    gaussianPart("blocks.1.attn.weight", [8, 3], 2),
    gaussianPart("model.layers.7.mlp.down_proj.weight", [8, 3], 3),
    gaussianPart("unknown.weight", [8, 3], 4),
    gaussianPart("norm", [8], 5),
  ]);
});
afterAll(() => session.dispose());

const ENTRIES: readonly Entry[] = [
  { name: "model.diffusion_model.blocks.0.attn.weight", sums: [8, 2, 0], counts: [4] },
  { name: "blocks.1.attn", sums: [1, 2, 3, 4], counts: [2] },
  { name: "blk.7.ffn_down.weight", sums: [9, 8, 7], counts: [1] },
];

async function importFile(name: string, bytes: Buffer): Promise<CalibrateResult> {
  const source = folder.path(name);
  await writeFile(source, bytes);
  return calibrateModel(smallJob(folder.path("model"), folder.path("cache"), { source }), session);
}

describe.each([
  ["GGUF", buildGguf(ENTRIES)],
  ["the older form", buildLegacy(ENTRIES, 12, "wiki.txt")],
  ["the oldest form, without the data set", buildLegacy(ENTRIES, 3, null)],
])("an imatrix in %s", (name, bytes) => {
  it("gives second moments to the tensors that it means, and says so", async () => {
    const result = await importFile(`${name}.dat`, bytes);
    expect(result.source).toMatchObject({ kind: "imatrix", label: expect.stringContaining("second moments alone") });
    const statistics = await openStatistics(result.path);
    const { info } = statistics;
    expect([info.secondMomentsOnly, info.time.bins.length, info.graph]).toEqual([true, 1, null]);
    const first = await statistics.read("blocks.0.attn.weight");
    expect([...(first?.meansq ?? [])]).toEqual([2, 0.5, 0]);
    expect(first).toMatchObject({ secondMomentsOnly: true, channels: 3, cols: 3, hessian: null, heldBack: null });
    expect(first?.absmax.length).toBe(0);
    expect([...((await statistics.read("model.layers.7.mlp.down_proj.weight"))?.meansq ?? [])]).toEqual([9, 8, 7]);
    expect(info.unmatched).toEqual([
      { tensorName: "blocks.1.attn.weight", reason: "the imatrix has 4 columns of it, the tensor 3" },
      { tensorName: "unknown.weight", reason: "the imatrix does not know it" },
    ]);
    expect((await importFile(`${name}.dat`, bytes)).cached).toBe(true);
  });
});

it("takes the mean over a tensor's experts by the rows that each saw", async () => {
  const path = folder.path("experts.gguf");
  await writeFile(path, buildGguf([{ name: "e", sums: [2, 4, 6, 8], counts: [1, 3] }]));
  const [entry] = await readImatrix(path);
  expect([...(entry?.meansq ?? [])]).toEqual([2, 3]);
  expect(entry?.count).toBe(4);
});

it("is refused for a model that it knows nothing of", async () => {
  const bytes = buildGguf([{ name: "somebody.else", sums: [1, 2, 3], counts: [1] }]);
  await expect(importFile("other.gguf", bytes)).rejects.toMatchObject({ code: "E_CALIBRATION" });
});

it("is refused where it is GGUF of another kind", async () => {
  await expect(importFile("model.gguf", buildGguf(ENTRIES, "model"))).rejects.toMatchObject({
    code: "E_CALIBRATION",
    message: expect.stringContaining('of type "model"'),
  });
});
