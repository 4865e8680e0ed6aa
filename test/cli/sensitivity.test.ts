import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { temporaryFolder, wave, writeModel } from "./models.js";
import { documentOf, run } from "./program.js";

const folder = temporaryFolder();
const model = writeModel(join(folder, "model.safetensors"), [
  { name: "blocks.0.weight", shape: [32, 128], values: wave },
  { name: "blocks.0.bias", shape: [32], values: wave },
  { name: "blocks.1.weight", shape: [16, 64], values: (index) => wave(3 * index) },
]);
/** The cache of whoever runs the tests is none of theirs. */
const env = { XDG_CACHE_HOME: join(folder, "cache") };
const settings = ["--modality", "image", "--candidate-bits", "8,2,4", "--candidate-group-sizes", "32,64"];

describe("arrowquant sensitivity", () => {
  it("measures every candidate of every layer, the same again from the cache, and writes it", async () => {
    const output = join(folder, "sensitivity.json");
    const args = ["sensitivity", model, ...settings, "--json", "-o", output];
    const ended = await run(args, { env });
    expect(ended.code).toBe(0);
    const document = documentOf(ended);
    expect(document.layers.map(({ name }) => name)).toEqual(["blocks.0.weight", "blocks.1.weight"]);
    for (const layer of document.layers) {
      const candidates = layer.candidates as Record<string, number | null>[];
      expect(candidates.map(({ bits, group_size }) => [bits, group_size])).toEqual([
        [2, 32],
        [2, 64],
        [4, 32],
        [4, 64],
        [8, 32],
        [8, 64],
      ]);
      const errors = candidates.map(({ weight_error }) => weight_error as number);
      // Each width is far better than the one before, whatever the group size.
      expect(Math.max(...errors.slice(2, 4))).toBeLessThan(Math.min(...errors.slice(0, 2)) / 4);
      expect(Math.max(...errors.slice(4))).toBeLessThan(Math.min(...errors.slice(2, 4)) / 16);
      for (const { output_error, model_error } of candidates) expect([output_error, model_error]).toEqual([null, null]);
      expect(layer.entropy).toBeGreaterThan(0.5);
    }
    const written = JSON.parse(readFileSync(output, "utf8")) as { layers: unknown; output: string };
    expect(written.layers).toEqual(document.layers);
    expect(written.output).toBe(output);
    const again = documentOf(await run([...args, "--force"], { env }));
    expect(again.layers).toEqual(document.layers);
  });

  it("shows people a table for every measure", async () => {
    const report = join(folder, "report.md");
    const ended = await run(["sensitivity", model, ...settings, "--report", report], { env });
    expect(ended.code).toBe(0);
    for (const text of [ended.stdout, readFileSync(report, "utf8")]) {
      expect(text).toContain("int2/32");
      expect(text).toContain("blocks.1.weight");
      expect(text).toContain("Entropy");
      expect(text).not.toContain("Output error");
    }
  });

  it("refuses what cannot be measured, and files that are not its own", async () => {
    const precious = join(folder, "precious.json");
    writeFileSync(precious, "{}");
    const cases = [
      { args: ["--kinds", "output"], code: 2, error: "E_CONFLICT" },
      { args: ["--kinds", "weight,size"], code: 2, error: "E_USAGE" },
      { args: ["-o", "out.txt"], code: 2, error: "E_USAGE" },
      { args: ["-o", precious], code: 2, error: "E_OUTPUT" },
      { args: ["--kinds", "model"], code: 3, error: "E_GRAPH" },
    ];
    for (const { args, code, error } of cases) {
      const ended = await run(["sensitivity", model, ...settings, "--json", ...args], { env });
      expect({ code: ended.code, error: documentOf(ended).error?.code }, args.join(" ")).toEqual({ code, error });
    }
    expect(readFileSync(precious, "utf8")).toBe("{}");
    expect(existsSync("out.txt")).toBe(false);
  });
});
