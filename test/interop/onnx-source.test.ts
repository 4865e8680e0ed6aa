/** Random ONNX models through the program and back into onnx.checker and ONNX Runtime for Python. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { ArrowQuant } from "../../dist/index.js";
import { preparePython } from "./environment.js";
import { runPython } from "./process.js";

const COUNT = 18;
const { python } = await preparePython();
const folder = mkdtempSync(join(tmpdir(), "arrowquant-interop-onnx-source-"));
const quantizer = new ArrowQuant({ threads: 2 });
afterAll(async () => {
  await quantizer.dispose();
  rmSync(folder, { recursive: true });
});

/**
 * What float32 sums in another order make of it; of a graph in float16 also products with activations of 8 bits, which
 * ONNX Runtime by itself makes of DequantizeLinear and MatMul (session.qdq_matmulnbits_accuracy_level).
 */
const NOISE = { float32: 1e-5, float16: 2e-2 };

interface Made {
  readonly path: string;
  readonly weights: Readonly<Record<string, readonly [number, number]>>;
}

interface Checked {
  readonly operators: Readonly<Record<string, number>>;
  readonly half: boolean;
  readonly error: number;
}

test.skipIf(python === null)("graphs of random shapes hold their weights as the native file has them", async () => {
  const made = await runPython<Made[]>(python as string, "make_onnx.py", [folder, String(COUNT), "7"]);
  const list = [];
  for (const [index, { path, weights }] of made.entries()) {
    const config = {
      ...({ modality: "image", method: "rtn", min_accuracy: 0, skip_sensitive_layers: false } as const),
      bit_width: ([4, 8, 2] as const)[Math.floor(index / 2) % 3] ?? 4,
      group_size: ([32, 128, 64, 256] as const)[index % 4] ?? 32,
      // Whole zero points and others: packed and float32 ones of MatMulNBits, DequantizeLinear and arithmetic.
      zero_point_bits: ([8, 6, "none"] as const)[index % 5] ?? 4,
    };
    const [native, quantized, rebuilt] = [".parquet", "-q.onnx", ".safetensors"].map((end) => path + end) as [
      string,
      string,
      string,
    ];
    const { layers } = await quantizer.quantize({ input: path, output: native, config });
    const shapes = Object.fromEntries(
      layers.filter(({ quantType }) => quantType !== "none").map(({ name, shape }) => [name, shape]),
    );
    expect(shapes).toEqual(weights);
    await quantizer.export({ input: native, output: rebuilt, dtype: "F32" });
    const { exported } = await quantizer.quantize({ input: path, output: quantized, config });
    expect(exported).toMatchObject({ format: "onnx", result: { notInGraph: [] } });
    list.push({ original: path, quantized, rebuilt });
  }
  const listPath = join(folder, "list.json");
  writeFileSync(listPath, JSON.stringify(list));
  const checked = await runPython<Checked[]>(python as string, "check_random_onnx.py", [listPath]);
  for (const [index, { half, error }] of checked.entries()) {
    expect(error, `model ${index}`).toBeLessThan(half ? NOISE.float16 : NOISE.float32);
  }
  const operators = new Set(checked.flatMap((each) => Object.keys(each.operators)));
  for (const operator of ["MatMulNBits", "DequantizeLinear", "BitShift"]) expect([...operators]).toContain(operator);
});
