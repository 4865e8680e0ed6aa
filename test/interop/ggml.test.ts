/** Blocks beside those of ggml's own quantizer, on every tensor of the shipped models. */
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { GgmlQuantizer } from "../../dist/kernels/ggml-quantizer.js";
import { loadKernels } from "../../dist/kernels/load.js";
import { BLOCKS, type BlockDtype } from "../../dist/tensor/dtype.js";
import { readSafetensors } from "../quantize/exported.js";
import { preparePython } from "./environment.js";
import { prepareGgml } from "./ggml-environment.js";
import { mapConcurrently, runPython } from "./process.js";

const MODELS = fileURLToPath(new URL("../../../shared/models/", import.meta.url));
/** Weights of every shipped model, all in float32. */
const FILES = {
  classifier: "classifier/classifier.safetensors",
  "dit-mnist": "dit-mnist/transformer/diffusion_pytorch_model.safetensors",
  "unet-mnist": "unet-mnist/unet/diffusion_pytorch_model.safetensors",
};
const TYPES = Object.keys(BLOCKS) as BlockDtype[];

/** gguf-py rebuilds in float32 as the kernels do; what differs is the order of the sums. */
const SUM_TOLERANCE = 1e-6;

const library = existsSync(MODELS) ? await prepareGgml() : null;
const { python } = library === null ? { python: null } : await preparePython();
const folder = mkdtempSync(join(tmpdir(), "arrowquant-interop-ggml-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface Case {
  readonly name: string;
  readonly type: BlockDtype;
  readonly rows: number;
  readonly cols: number;
  /** Σ (ŵ − w)² as the kernel summed it. */
  readonly squaredError: number;
}

/** Quantizes every matrix of a file, convolutions as output channels × rest, to all types whose blocks divide rows. */
function quantizeAll(weightsPath: string, blocksPath: string): Case[] {
  const kernels = loadKernels();
  const cases: Case[] = [];
  const blocks = openSync(blocksPath, "w");
  for (const [name, { dtype, shape, bytes }] of readSafetensors(weightsPath)) {
    if (shape.length < 2) continue;
    expect(dtype).toBe("F32");
    const [rows = 0] = shape;
    const cols = bytes.length / 4 / rows;
    for (const type of TYPES.filter((each) => cols % BLOCKS[each].elements === 0)) {
      const extent = { type, rows, cols, slabRows: rows, dtype: "F32", sourceScale: "none" } as const;
      const quantizer = new GgmlQuantizer(kernels, { ...extent, importance: null });
      quantizer.source(rows).set(bytes);
      expect(quantizer.quantize(rows)).toBeNull();
      writeSync(blocks, quantizer.outputs());
      cases.push({ name, type, rows, cols, squaredError: quantizer.sums().errorNorm2 });
    }
  }
  closeSync(blocks);
  return cases;
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

test.skipIf(python === null)(
  "no type of no model has a larger squared error than ggml's own, and gguf-py finds the errors that are reported",
  { timeout: 180_000 },
  async () => {
    const models = Object.entries(FILES).map(([model, file]) => {
      const [weights, blocks, list] = [
        join(MODELS, file),
        join(folder, `${model}.blocks`),
        join(folder, `${model}.json`),
      ];
      const cases = quantizeAll(weights, blocks);
      writeFileSync(list, JSON.stringify(cases));
      return { model, cases, args: [library as string, weights, list, blocks] };
    });
    const checked = await mapConcurrently(models, ({ args }) =>
      runPython<{ ours: number; ggml: number }[]>(python as string, "check_ggml.py", args),
    );
    for (const [index, { model, cases }] of models.entries()) {
      const found = cases.map(
        (each, at) => ({ ...each, ...checked[index]?.[at] }) as Case & { ours: number; ggml: number },
      );
      for (const { name, type, squaredError, ours } of found) {
        expect(Math.abs(squaredError - ours), `${name} of ${model} as ${type}`).toBeLessThanOrEqual(
          SUM_TOLERANCE * ours,
        );
      }
      for (const type of TYPES) {
        const ofType = found.filter((each) => each.type === type);
        expect(ofType.length, `${model} as ${type}`).toBeGreaterThan(0);
        const ggml = sum(ofType.map((each) => each.ggml));
        expect(sum(ofType.map((each) => each.ours)), `${model} as ${type}`).toBeLessThanOrEqual(ggml);
      }
    }
  },
);
