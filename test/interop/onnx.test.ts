/** Exported graphs under onnx's checker and in ONNX Runtime for Python. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { preparePython } from "./environment.js";
import { runArrowquant, runPython } from "./process.js";

const MODELS = fileURLToPath(new URL("../../../shared/models/", import.meta.url));
const { python } = await preparePython();
const folder = mkdtempSync(join(tmpdir(), "arrowquant-interop-onnx-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface GraphReport {
  readonly matMulNBits: number;
  readonly dequantizeLinear: number;
  readonly predictionError: number;
}

/** Errors are those of shared/models/README.md with a margin: 8 bits .0009, 4 bits .0129 and .0250. */
const CASES = [
  { model: "dit-mnist", bits: "8", matMulNBits: 28, dequantizeLinear: 0, mostError: 0.002 },
  { model: "dit-mnist", bits: "4", matMulNBits: 28, dequantizeLinear: 0, mostError: 0.025 },
  { model: "unet-mnist", bits: "4", matMulNBits: 27, dequantizeLinear: 34, mostError: 0.05 },
];

test.skipIf(python === null || !existsSync(MODELS)).each(CASES)(
  "$model at $bits bits passes onnx.checker and predicts what the model does",
  async ({ model, bits, matMulNBits, dequantizeLinear, mostError }) => {
    const native = join(folder, "native.parquet");
    const output = join(folder, "model.onnx");
    const source = join(MODELS, model);
    const settings = ["--bit-width", bits, "--method", "rtn", "--zero-point-bits", bits, "--min-accuracy", "0"];
    await runArrowquant(["quantize", source, "-o", native, ...settings]);
    await runArrowquant(["export", native, "-o", output, "--original", source]);
    const reference = join(source, "eval_reference.safetensors");
    const report = await runPython<GraphReport>(python as string, "check_onnx.py", [output, reference]);
    expect(report).toMatchObject({ matMulNBits, dequantizeLinear });
    expect(report.predictionError).toBeLessThan(mostError);
  },
);
