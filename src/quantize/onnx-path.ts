/** Where a graph is written, and under which name. */
import { mkdir } from "node:fs/promises";
import { resolve } from "node:path";
import { ArrowQuantError } from "../errors.js";
import type { QuantizedWeight } from "../graph/quantized-weight.js";
import { writeError } from "../io/output.js";

/**
 * Names by the width of the weights, as transformers.js looks for them (its `dtype` option, src/utils/dtypes.js):
 * `q8` is `quantized` there.
 */
const FILE_NAMES: Readonly<Record<"F32" | "F16", Readonly<Record<number, string>>>> = {
  F32: { 2: "model_q2.onnx", 4: "model_q4.onnx", 8: "model_quantized.onnx" },
  F16: { 2: "model_q2f16.onnx", 4: "model_q4f16.onnx" },
};

/**
 * The path of the graph: `output` itself, or in a folder, which is made, the name of the width that most weights have.
 * @throws E_USAGE where there is no such name, E_WRITE
 */
export async function settlePath(
  output: string,
  weights: readonly QuantizedWeight[],
  isHalf: boolean,
): Promise<string> {
  if (output.endsWith(".onnx")) return resolve(output);
  const sizes = new Map<number, number>();
  for (const { bits, rows, cols } of weights) sizes.set(bits, (sizes.get(bits) ?? 0) + rows * cols);
  const [bits] = [...sizes].reduce((most, each) => (each[1] > most[1] ? each : most));
  const name = FILE_NAMES[isHalf ? "F16" : "F32"][bits];
  if (name === undefined) throw noName(output, bits);
  await mkdir(output, { recursive: true }).catch((thrown) => {
    throw writeError(thrown, output);
  });
  return resolve(output, name);
}

function noName(output: string, bits: number): ArrowQuantError {
  return new ArrowQuantError("E_USAGE", `transformers.js has no name for a graph of ${bits} bits in float16`, {
    hint: "name an .onnx file as output",
    details: { output, bits },
  });
}
